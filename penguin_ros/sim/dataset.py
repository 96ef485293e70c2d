"""Writes clips with their truth into a folder of shards that training maps into memory. Knows nothing of models.

A shard is `images_000.npy`, uint8 [n, 240, 320, 3] RGB, and `clips_000.json`, written after it: a shard whose json
exists is complete. Shards depend only on split and seeds, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.core.errors import RecordingError
from penguin_ros.sim.clip import clip_length, sample_clip
from penguin_ros.sim.events import events_of
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.world import Camera

FRAMES_PER_SHARD = 2000
Progress = Callable[[int, int, float], None]       # frames done, frames in all, frames per second


def shard_plan(split: str, clips: int, *, first_seed: int = 0,
               frames_per_shard: int = FRAMES_PER_SHARD) -> list[list[int]]:
    """The seeds of each shard, cut before a shard would grow beyond `frames_per_shard`."""
    shards: list[list[int]] = [[]]
    frames = 0
    for seed in range(first_seed, first_seed + clips):
        length = clip_length(split, seed)
        if frames + length > frames_per_shard and shards[-1]:
            shards.append([])
            frames = 0
        shards[-1].append(seed)
        frames += length
    return shards


def generate_dataset(folder: Path | str, split: str, clips: int, *, first_seed: int = 0, processes: int = 1,
                     frames_per_shard: int = FRAMES_PER_SHARD, progress: Progress | None = None) -> int:
    """Write the clips of seeds first_seed .. first_seed + clips - 1 of a split; returns the number of frames rendered.

    Complete shards already in the folder are kept. Shards are finished in order of their number (nearly so with several
    processes), so training can begin with the first ones.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, split)
    plan = shard_plan(split, clips, first_seed=first_seed, frames_per_shard=frames_per_shard)
    jobs = [(folder, shard, split, seeds) for shard, seeds in enumerate(plan)
            if _finished_seeds(folder, shard) != seeds]
    total = sum(clip_length(split, seed) for job in jobs for seed in job[3])
    done, start_s = 0, time.monotonic()

    def count(frames: int) -> None:
        nonlocal done
        done += frames
        if progress:
            progress(done, total, done / (time.monotonic() - start_s))

    if processes == 1 or len(jobs) < 2:
        with Renderer() as renderer:
            for job in jobs:
                _write_shard(*job, renderer, on_frames=count)
    else:
        # OpenGL contexts do not survive a fork
        with multiprocessing.get_context('spawn').Pool(min(processes, len(jobs))) as pool:
            for frames in pool.imap_unordered(_render_shard, jobs):
                count(frames)
    return done


def _claim(folder: Path, split: str) -> None:
    """Note whose clips the folder holds; a folder of another split is refused, or test clips could end up in training."""
    note = folder / 'dataset.json'
    if not note.exists():
        note.write_text(json.dumps({'split': split}))
    found = json.loads(note.read_text())['split']
    if found != split:
        raise RecordingError(f'{folder} holds clips of split {found}; {split} was asked for. Choose another folder.')


def _json_path(folder: Path, shard: int) -> Path:
    return folder / f'clips_{shard:03d}.json'


def _finished_seeds(folder: Path, shard: int) -> list[int]:
    """The seeds a finished shard holds; the last shard of a shorter run holds fewer than are now asked for."""
    path = _json_path(folder, shard)
    return [clip['seed'] for clip in json.loads(path.read_text())] if path.exists() else []


def _render_shard(job: tuple[Path, int, str, list[int]]) -> int:
    """One shard in a process of its own."""
    with Renderer() as renderer:
        return _write_shard(*job, renderer)


def _write_shard(folder: Path, shard: int, split: str, seeds: list[int], renderer: Renderer, *,
                 on_frames: Callable[[int], None] | None = None) -> int:
    camera = Camera()
    images_path = folder / f'images_{shard:03d}.npy'
    unfinished_path = images_path.with_suffix('.npy.part')
    images = np.lib.format.open_memmap(
        unfinished_path, mode='w+', dtype=np.uint8,
        shape=(sum(clip_length(split, seed) for seed in seeds), camera.height_px, camera.width_px, 3))
    clips: list[dict[str, Any]] = []
    index = reported = 0
    for seed in seeds:
        clip, pictures = render_clip(renderer, split, seed)
        for frame, picture in zip(clip['frames'], pictures):
            images[index] = picture
            frame |= {'shard': shard, 'index': index}
            index += 1
        clips.append(clip)
        if on_frames and (len(clips) % 50 == 0 or len(clips) == len(seeds)):
            on_frames(index - reported)
            reported = index
    images.flush()
    del images
    os.replace(unfinished_path, images_path)
    unfinished_json = _json_path(folder, shard).with_suffix('.json.part')
    unfinished_json.write_text(json.dumps(clips, separators=(',', ':')))
    os.replace(unfinished_json, _json_path(folder, shard))
    return index


def render_clip(renderer: Renderer, split: str, seed: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The clip of a seed: {'seed', 'camera', 'frames', 'events'} and its pictures."""
    world, times_s = sample_clip(split, seed)
    rendered = [renderer.frame(world, time_s) for time_s in times_s]
    truths = [truth for _, truth in rendered]
    camera = {name: round(getattr(world.camera, name), 4) for name in ('height_m', 'pitch_rad', 'fovy_rad')}
    clip = {'seed': seed, 'camera': camera, 'frames': [truth.as_dict() for truth in truths], 'events': events_of(world, truths)}
    return clip, [picture for picture, _ in rendered]
