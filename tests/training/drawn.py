"""A data set drawn with a few lines of OpenCV instead of rendered: coloured shapes on a grey floor, for quick tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from penguin_ros.training.texts import COLOURS

RGB = {'red': (210, 20, 20), 'green': (20, 140, 35), 'blue': (20, 50, 205), 'yellow': (240, 200, 15),
       'purple': (120, 30, 170), 'white': (240, 240, 240)}
HEIGHT_PX, WIDTH_PX = 240, 320


def draw_split(folder: Path, clips: int, *, seed: int, frames: int = 1) -> None:
    """One shard of clips in the layout of sim/dataset.py; in clips of several frames a thing may appear or leave."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    pictures: list[np.ndarray] = []
    records = []
    for number in range(clips):
        records.append(_clip(rng, number, frames, pictures))
    np.save(folder / 'images_000.npy', np.stack(pictures))
    (folder / 'clips_000.json').write_text(json.dumps(records))


def _clip(rng: np.random.Generator, number: int, frames: int, pictures: list[np.ndarray]) -> dict[str, Any]:
    things = [_thing(rng, slot) for slot in range(int(rng.integers(1, 3)))]
    events, records, present = [], [], {0, 1}
    for index in range(frames):
        if index and rng.random() < 0.7:
            id = int(rng.integers(len(things)))
            events.append({'frame': index, 'type': 'left' if id in present else 'appeared', 'id': id})
            present ^= {id}
        picture = np.full((HEIGHT_PX, WIDTH_PX, 3), 110, np.uint8) + rng.integers(0, 12, (HEIGHT_PX, WIDTH_PX, 1), np.uint8)
        shown = [thing for thing in things if thing['id'] in present]
        for thing in shown:
            _draw(picture, thing)
        records.append({'shard': 0, 'index': len(pictures), 'time_s': float(index), 'pose': [0, 0, 0],
                        'path_clear': bool(number % 2), 'objects': shown, 'faint': []})
        pictures.append(picture)
    camera = {'height_m': 0.7, 'pitch_rad': 0.14, 'fovy_rad': 1.05}
    return {'seed': number, 'camera': camera, 'frames': records, 'events': events}


def _thing(rng: np.random.Generator, slot: int) -> dict[str, Any]:
    side = int(rng.integers(50, 100))
    x, y = slot * 160 + int(rng.integers(5, 150 - side)), int(rng.integers(20, 230 - side))
    return {'id': slot, 'kind': str(rng.choice(['crate', 'ball', 'cone'])), 'colour': str(rng.choice(COLOURS)), 'digit': None,
            'box': [x, y, x + side, y + side], 'pixels': side * side, 'fraction': 1.0, 'distance_m': 2.0 + slot}


def _draw(picture: np.ndarray, thing: dict[str, Any]) -> None:
    x0, y0, x1, y1 = thing['box']
    rgb = RGB[thing['colour']]
    if thing['kind'] == 'crate':
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), rgb, -1)
    elif thing['kind'] == 'ball':
        cv2.circle(picture, ((x0 + x1) // 2, (y0 + y1) // 2), (x1 - x0) // 2, rgb, -1)
    else:
        cv2.fillPoly(picture, [np.array([[(x0 + x1) // 2, y0], [x1, y1], [x0, y1]], np.int32)], rgb)
