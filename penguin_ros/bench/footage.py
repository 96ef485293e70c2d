"""What the benchmark looks at: images of one or more cameras in order, each with its truth. Knows nothing of policies.

The four-camera drive is rendered once into a folder: one JPEG per image and the truth beside them. It is seeded, so that
everybody gets the same one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from penguin_ros.core.errors import RecordingError

FIRST_STAMP_NS = 1_760_000_000_000_000_000
DRIVE_SPLIT, DRIVE_SEED = 'bench', 1        # no world of training, evaluation or demonstration
VIEWS_RAD = {'front': 0.0, 'left': math.pi / 2, 'rear': math.pi, 'right': -math.pi / 2}
JPEG_QUALITY = 90

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shot:
    """One image; ``pixels`` decodes it."""

    camera: str
    stamp_ns: int
    truth: dict[str, Any]
    pixels: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Footage:
    """Images of all cameras, in order of their stamps."""

    name: str
    cameras: tuple[str, ...]
    rate_hz: float              # of each camera
    shots: Sequence[Shot]

    @property
    def seconds(self) -> float:
        return len(self.shots) / len(self.cameras) / self.rate_hz

    def first(self, seconds: float) -> Footage:
        """The beginning of it."""
        end_ns = self.shots[0].stamp_ns + round(seconds * 1e9)
        shots = [shot for shot in self.shots if shot.stamp_ns < end_ns]
        if len(shots) == len(self.shots):
            return self
        return replace(self, name=f'{self.name}, the first {seconds:g} s', shots=shots)

    def repeated(self, times: int) -> Iterator[Shot]:
        """The same images over and over, stamps going on."""
        length_ns = round(self.seconds * 1e9)
        for turn in range(times):
            yield from (replace(shot, stamp_ns=shot.stamp_ns + turn * length_ns) for shot in self.shots)


def recorded_footage(path: Path) -> Footage:
    """A recording made by `penguin sim record`."""
    from penguin_ros.sim.recording import read_recording

    frames = list(read_recording(path))
    shots = [Shot('camera', frame.stamp_ns, frame.truth, partial(np.asarray, frame.pixels)) for frame in frames]
    span_s = (frames[-1].stamp_ns - frames[0].stamp_ns) / 1e9
    return Footage(path.name, ('camera',), (len(frames) - 1) / span_s if span_s else 1.0, shots)


def driven_footage(folder: Path, *, minutes: float, rate_hz: float, progress: Progress) -> Footage:
    """The four-camera drive, rendered into the folder unless it is there already."""
    count = max(2, round(60 * minutes * rate_hz))
    folder = folder / f'drive_{DRIVE_SEED}_{60 * minutes:g}s_{rate_hz:g}hz'
    if not (folder / 'truth.json').exists():
        _render_drive(folder, count, rate_hz, progress)
    truths = json.loads((folder / 'truth.json').read_text())
    shots = [Shot(camera, FIRST_STAMP_NS + round(index * 1e9 / rate_hz), truths[camera][index],
                  partial(_read_picture, folder / camera / f'{index:05d}.jpg'))
             for index in range(count) for camera in VIEWS_RAD]
    return Footage(f'{minutes:g} minutes with four cameras', tuple(VIEWS_RAD), rate_hz, shots)


def _render_drive(folder: Path, count: int, rate_hz: float, progress: Progress) -> None:
    """All views of the drive. Shadows and smoothed edges are left out: they take three quarters of the time."""
    from penguin_ros.sim.drive import sample_drive
    from penguin_ros.sim.recording import drive_events
    from penguin_ros.sim.render import Renderer
    from penguin_ros.sim.world import Way

    world = sample_drive(DRIVE_SPLIT, DRIVE_SEED, count / rate_hz)
    world = replace(world, sensor=replace(world.sensor, smooth_edges=False), light=replace(world.light, casts_shadow=False))
    documents: dict[str, list[dict[str, Any]]] = {}
    done = 0
    with Renderer() as renderer:
        for view, turn_rad in VIEWS_RAD.items():
            (folder / view).mkdir(parents=True, exist_ok=True)
            seen = replace(world, robot=Way(tuple((time_s, x, y, yaw + turn_rad) for time_s, x, y, yaw in world.robot.stops)))
            truths = []
            for index in range(count):
                picture, truth = renderer.frame(seen, index / rate_hz)
                truths.append(truth)
                path = folder / view / f'{index:05d}.jpg'
                cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                done += 1
                progress(done, count * len(VIEWS_RAD))
            events = drive_events(seen, truths, rate_hz)
            documents[view] = [{**truth.as_dict(), 'events': events.get(index, [])} for index, truth in enumerate(truths)]
    (folder / 'truth.json').write_text(json.dumps(documents, separators=(',', ':')))


def _read_picture(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise RecordingError(f'{path} cannot be read. Remove {path.parent.parent} to have the drive rendered again.')
    return np.ascontiguousarray(picture[..., ::-1])
