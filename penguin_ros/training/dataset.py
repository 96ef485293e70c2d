"""Rendered clips with their truth, as sim/dataset.py writes them, read through memory maps. Knows nothing of texts.

A shard that appears while training runs is picked up by `refresh`; one that is not finished yet is left alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.core.errors import RecordingError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SeenObject:
    """One object of one frame; ``box`` is x_min, y_min, x_max, y_max as fractions of the image."""

    id: int
    kind: str
    colour: str
    digit: int | None
    digit_px: float             # height of a readable digit in the camera's pixels, else 0
    box: Box
    distance_m: float
    path_gap_m: float = math.nan    # to the strip that must be clear, negative in it; nan in clips rendered before it was noted


def shown_box(seen: SeenObject, flipped: bool) -> Box:
    """Its box in the picture as shown: mirrored or not."""
    x0, y0, x1, y1 = seen.box
    return (1.0 - x1, y0, 1.0 - x0, y1) if flipped else seen.box


@dataclass(frozen=True)
class Mount:
    """How the camera sits above the floor; pitch is down."""

    height_m: float
    pitch_rad: float
    fovy_rad: float


@dataclass(frozen=True)
class SceneFrame:
    """One image's place in its shard and what it shows, objects left to right."""

    shard: int
    index: int
    time_s: float
    path_clear: bool
    objects: tuple[SeenObject, ...]
    faint: tuple[SeenObject, ...]   # seen, but too small or hidden too much to be named
    mount: Mount | None = None      # None where clips were rendered before it was noted
    pose: tuple[float, float, float] | None = None      # the robot's x_m, y_m, yaw_rad; None where it says nothing


@dataclass(frozen=True)
class Event:
    """What happened between a frame and the one before it."""

    frame: int
    type: str
    id: int | None


@dataclass(frozen=True)
class Clip:
    """One picture, or a few in order."""

    seed: int
    frames: tuple[SceneFrame, ...]
    events: tuple[Event, ...] = ()
    events_tell: bool = True    # whether one who sees the frames can tell what changed from the events alone


@dataclass
class Split:
    """The clips of one or more folders."""

    folders: tuple[Path, ...]
    clips: list[Clip] = field(default_factory=list)
    _images: list[np.ndarray] = field(default_factory=list)     # a frame's `shard` is a place in this list
    _read: set[Path] = field(default_factory=set)

    def refresh(self) -> int:
        """Read shards that are complete and new; returns how many."""
        new = [path for folder in self.folders for path in sorted(folder.glob('clips_*.json')) if path not in self._read]
        for path in new:
            images = np.load(path.with_name(path.name.replace('clips_', 'images_')).with_suffix('.npy'), mmap_mode='r')
            height_px, width_px = images.shape[1:3]
            clips = [clip_from_record(record, width_px, height_px, shard=len(self._images))
                     for record in json.loads(path.read_text())]
            self._images.append(images)     # first: another thread may take one of the clips at once
            self.clips += clips
            self._read.add(path)
        return len(new)

    @property
    def frame_count(self) -> int:
        return sum(len(clip.frames) for clip in self.clips)

    def image(self, frame: SceneFrame) -> np.ndarray:
        """RGB uint8 [H, W, 3]."""
        return np.asarray(self._images[frame.shard][frame.index])


def open_split(*folders: Path) -> Split:
    """The clips of one or more folders; raises RecordingError where one holds none."""
    for folder in folders:
        if not any(folder.glob('clips_*.json')):
            raise RecordingError(f'{folder} holds no finished shard (clips_000.json). '
                                 'Render one: penguin sim dataset, or let penguin train do it.')
    split = Split(folders)
    split.refresh()
    return split


def clip_from_record(record: dict[str, Any], width_px: int, height_px: int, *, shard: int = 0) -> Clip:
    """A clip as sim/dataset.py describes it, each frame with its `index` in a shard."""
    mount = Mount(**record['camera']) if 'camera' in record else None
    frames = tuple(
        SceneFrame(shard, frame['index'], frame['time_s'], frame['path_clear'],
                   _objects(frame['objects'], width_px, height_px), _objects(frame.get('faint', ()), width_px, height_px),
                   mount, tuple(frame['pose']) if 'pose' in frame else None)
        for frame in record['frames'])
    return Clip(record['seed'], frames, tuple(Event(**event) for event in record['events']))


def _objects(records: list[dict[str, Any]], width_px: int, height_px: int) -> tuple[SeenObject, ...]:
    def box(edges: list[float]) -> Box:
        return edges[0] / width_px, edges[1] / height_px, edges[2] / width_px, edges[3] / height_px
    return tuple(SeenObject(record['id'], record['kind'], record['colour'], record['digit'], record.get('digit_px', 0.0),
                            box(record['box']), record['distance_m'], record.get('path_gap_m', math.nan))
                 for record in records)
