"""A whole calibration: look at the frames, ask about them, note what happens, find the roundings, write it all down.

Knows nothing of the command line or of recipes (cli/calibrate.py).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import penguin_ros
from penguin_ros.backends.inputs import map_embeddings
from penguin_ros.backends.manifest import TableEntry
from penguin_ros.calibration.frames import (
    FRAMES_FILE,
    PROMPTS_FILE,
    Frame,
    FrameList,
    choose_frames,
    decoded_frames,
    read_frames,
    read_prompts,
    write_frames,
)
from penguin_ros.calibration.observe import Observations, ObservedLanguageEngine, ObservedVisionEngine, observed_graph
from penguin_ros.core.decode import Limits, decode
from penguin_ros.core.dialect import Dialect, read_dialect
from penguin_ros.core.errors import CalibrationError
from penguin_ros.core.frame import Region
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.stream import LEAD_ROWS, Stream
from penguin_ros.core.words import read_words
from penguin_ros.model.calibration import ENGINES, EngineCalibration, Reach, check_float16, write_calibration
from penguin_ros.model.config import config_from_folder, language_spec, vision_spec
from penguin_ros.model.export import ExportOptions, export_checkpoint
from penguin_ros.model.quantise import best_roundings, can_round, relative_error
from penguin_ros.model.weights import WeightFiles

WINDOW = 4                      # frames read one behind the other before a stream starts anew
_PROMPT_ROWS = 256
_PROGRESS_S = 5.0
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be calibrated, on what."""

    checkpoint: Path
    output: Path
    source: Path | None = None      # a recording, a folder of pictures or a list; None: the list that is in ``output``
    frames: int = 128               # how many to choose
    vision_weights: str = 'int8'
    language_weights: str = 'int4'
    kept_float32: tuple[str, ...] = ()      # weights that are not rounded, and multiplied in float32
    merge: int = 2
    max_tokens: int = 256           # visual tokens of one frame
    max_new_tokens: int = 64        # of one answer
    threads: int = 1


def calibrate(task: Task, progress: Progress = lambda line: None) -> dict[str, EngineCalibration]:
    """Do it. Raises CalibrationError, after everything was written, when an activation goes beyond what float16 should hold."""
    began_s = time.monotonic()
    prompts = read_prompts(_list_folder(task) / PROMPTS_FILE)
    listed = _frames(task, prompts, progress)
    if unknown := {prompt for frame in listed.frames for prompt in frame.prompts} - prompts.keys():
        raise CalibrationError(f'frames are to be asked {", ".join(sorted(unknown))}, which {PROMPTS_FILE} beside their list '
                               'does not have. Add lines with these ids, or remove frames.json to have frames chosen anew.')
    write_frames(task.output, listed, prompts)
    with tempfile.TemporaryDirectory(prefix='penguin-calibrate-') as scratch:
        observations = _observe(task, listed, prompts, Path(scratch), progress)
    weights = WeightFiles(task.checkpoint)
    kinds = {'vision': task.vision_weights, 'language': task.language_weights}
    engines = {name: _round(weights, kinds[name], observations[name], task.kept_float32, progress) for name in kinds}
    write_calibration(task.output, engines, {
        'builder': f'penguin_ros {penguin_ros.__version__}', 'weights': weights.hashes(), 'float32': list(task.kept_float32),
        'merge': task.merge, 'max_new_tokens': task.max_new_tokens, 'frames': len(listed.frames)})
    for name, engine in engines.items():
        progress(_summary(name, engine))
    progress(f'{task.output}: written, {time.monotonic() - began_s:.0f} s in all')
    check_float16(engines, kept_float32=task.kept_float32)
    return engines


def _list_folder(task: Task) -> Path:
    """Where prompts are looked for: beside the list of frames that is used."""
    return task.source.parent if task.source and task.source.suffix == '.json' else task.output


def _frames(task: Task, prompts: Mapping[str, str], progress: Progress) -> FrameList:
    if task.source is None or task.source.suffix == '.json':
        file = task.source or task.output / FRAMES_FILE
        listed = read_frames(file)
        progress(f'{file}: {len(listed.frames)} frames of {listed.source}')
        return listed
    encoder = config_from_folder(task.checkpoint).encoder
    listed = choose_frames(task.source, task.frames, max_tokens=task.max_tokens, patch_px=encoder.patch_px, merge=task.merge,
                           prompts=list(prompts), progress=progress)
    progress(f'{task.source}: {len(listed.frames)} frames chosen')
    return listed


def _observe(task: Task, listed: FrameList, prompts: Mapping[str, str], scratch: Path,
             progress: Progress) -> dict[str, Observations]:
    """Look at every frame and ask about it, as the node would, in float32."""
    export = export_checkpoint(task.checkpoint, scratch, ExportOptions(merge=task.merge), progress=progress)
    found = {name: observed_graph(scratch / f'{name}.onnx', scratch / f'{name}.observed.onnx') for name in ENGINES}
    most_patches = max(frame.grid[0] * frame.grid[1] for frame in listed.frames)
    vision = ObservedVisionEngine(scratch / 'vision.observed.onnx',
                                  vision_spec(export.config, merge=task.merge, max_patches=most_patches),
                                  found['vision'], threads=task.threads)
    table = export.embeddings
    language = ObservedLanguageEngine(
        scratch / 'language.observed.onnx', language_spec(export.config, max_append=512),
        map_embeddings(scratch, TableEntry(table.file, table.offset, table.dtype, table.shape)),
        found['language'], threads=task.threads)
    words, dialect = read_words(task.checkpoint), read_dialect(task.checkpoint)
    frame_rows = most_patches // task.merge**2 + LEAD_ROWS
    stream = Stream(language, words, WINDOW * frame_rows + _PROMPT_ROWS + task.max_new_tokens)
    limits = Limits(max_new_tokens=task.max_new_tokens)
    drafts: dict[str, list[int]] = {}
    said_s = time.monotonic()
    began_s = said_s
    for number, (frame, pixels) in enumerate(decoded_frames(listed)):
        if number % WINDOW == 0:
            stream.clear()
        patches = patches_for_grid(pixels, frame.grid, patch_px=vision.spec.patch_px, merge=task.merge)
        visual = vision.encode(patches, frame.grid)
        stream.append_frame(frame.stamp_ns, visual, frame.grid, keyframe=number % WINDOW == 0)
        for prompt in frame.prompts:
            text = _question(prompts[prompt], dialect, frame)
            decoded = decode(stream, [words.ids(question_tail(text))], end_id=words.end_id, limits=limits,
                             draft=drafts.get(prompt, ()))
            drafts[prompt] = decoded.ids
        if time.monotonic() > said_s + _PROGRESS_S or number == 0:
            said_s = time.monotonic()
            left_s = (said_s - began_s) / (number + 1) * (len(listed.frames) - number - 1)
            progress(f'frame {number + 1} of {len(listed.frames)} looked at, about {left_s:.0f} s to go')
    return found


def _question(text: str, dialect: Dialect, frame: Frame) -> str:
    """A prompt in the model's words: none is the caption instruction, {box} the middle of the frame."""
    if '{box}' not in text:
        return text or dialect.caption_instruction
    width, height = frame.width_px, frame.height_px
    middle = Region(0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)
    return dialect.with_region(text, middle, width_px=width, height_px=height)


def _round(weights: WeightFiles, kind: str, observations: Observations, kept_float32: tuple[str, ...],
           progress: Progress) -> EngineCalibration:
    """The roundings of every product inside the blocks; first and last layers stay as they are, as is usual."""
    found = EngineCalibration(kind, {}, observations.reaches())
    if not kind:
        return found
    roundings, errors, reaches = {}, {}, dict(found.reaches)
    said_s = time.monotonic()
    for tensor, names in observations.products.items():
        chosen = [name for name in names if '.layers.' in name and name not in kept_float32]
        matrices = [_matrix(weights, name) for name in chosen]
        if not chosen or not can_round(kind, len(matrices[0])):
            continue
        rows = observations.rows_of(tensor)
        best = best_roundings(kind, rows, observations.channels[tensor], matrices)
        for name, matrix, rounding in zip(chosen, matrices, best):
            roundings[name], errors[name] = rounding, relative_error(rounding, rows, matrix)
        if best[0].smoothing is not None:
            smoothed = float((observations.channels[tensor] * best[0].smoothing).max())
            reaches[f'{tensor}.smoothed'] = Reach(smoothed, True, tuple(chosen))
        if time.monotonic() > said_s + _PROGRESS_S:
            said_s = time.monotonic()
            progress(f'{kind} scales of {chosen[-1]} and those before')
    return replace(found, roundings=roundings, errors=errors, reaches=reaches)


def _matrix(weights: WeightFiles, name: str) -> np.ndarray:
    """float32 [in, out]"""
    value = weights.read(name).astype(np.float32)
    return np.ascontiguousarray(value.reshape(len(value), -1).T)


def _summary(name: str, engine: EngineCalibration) -> str:
    held: Any = [reach.largest for reach in engine.reaches.values() if reach.float16]
    text = f'{name}: {len(engine.reaches)} activations, those in float16 reach {max(held, default=0):.4g}'
    if engine.errors:
        worst = max(engine.errors, key=lambda weight: engine.errors[weight])
        text += (f'; {len(engine.errors)} products {engine.kind}, error {100 * np.mean(list(engine.errors.values())):.1f} % on '
                 f'average, most {100 * engine.errors[worst]:.1f} % in {worst}')
    return text
