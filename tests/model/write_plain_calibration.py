"""Write a calibration with the plainest scales, largest magnitude by largest code, without looking at a frame. Test tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from penguin_ros.model.calibration import EngineCalibration, Reach, write_calibration
from penguin_ros.model.quantise import BLOCKS, Rounding, can_round
from penguin_ros.model.weights import WeightFiles

ENGINE_OF = {'encoder': 'vision', 'decoder': 'language'}


def write_plain_calibration(folder: Path, checkpoint: Path, *, vision: str = 'int8', language: str = 'int4',
                            smooth: bool = False, reaches: Mapping[str, Reach] | None = None) -> None:
    """Scales for every weight inside the blocks that can be rounded; inputs of INT8 products are taken to reach 8."""
    weights = WeightFiles(checkpoint)
    kinds = {'vision': vision, 'language': language}
    roundings: dict[str, dict[str, Rounding]] = {'vision': {}, 'language': {}}
    for name in weights.names():
        engine = ENGINE_OF.get(name.split('.')[0], '')
        if '_proj.' in name and engine and kinds[engine] and can_round(kinds[engine], weights.shape(name)[1]):
            roundings[engine][name] = plain_rounding(kinds[engine], weights.read(name).astype(np.float32).T, smooth=smooth)
    write_calibration(folder, {engine: EngineCalibration(kinds[engine], roundings[engine], dict(reaches or {}),
                                                         dict.fromkeys(roundings[engine], 0.01)) for engine in kinds},
                      {'weights': weights.hashes(), 'frames': 0})


def plain_rounding(kind: str, weight: np.ndarray, *, smooth: bool = False) -> Rounding:
    """The rounding of one weight [in, out]."""
    rows = len(weight)
    smoothing = np.linspace(0.5, 2, rows, dtype=np.float32) if smooth else None
    magnitude = np.abs(weight if smoothing is None else weight / smoothing[:, None])
    if kind == 'int8':
        return Rounding(kind, (magnitude.max(axis=0) / 127).astype(np.float16), np.float16(8 / 127), smoothing)
    block = next(size for size in BLOCKS if rows % size == 0)
    return Rounding(kind, (magnitude.reshape(rows // block, block, -1).max(axis=1) / 7).astype(np.float16), None, smoothing)
