"""The folder that `penguin calibrate` writes and an export reads: how weights are rounded, how far activations reach.

    manifest.json           weights and frames it was made of, and the hash of everything else in here
    frames.json             which frames, and why (penguin_ros/calibration/frames.py)
    prompts.jsonl           what each frame was asked
    ranges/ENGINE.json      largest magnitude of every activation; of every rounded product the error
    scales.safetensors      roundings: ENGINE/weight/{weight_scale,input_scale,smoothing}

Knows nothing of how any of it is found out (penguin_ros/calibration) or used (export.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from penguin_ros.backends.manifest import hash_file, hash_files, write_whole
from penguin_ros.core.errors import CalibrationError
from penguin_ros.model.quantise import KINDS, Rounding

ENGINES = ('vision', 'language')
FLOAT16_LIMIT = 1e4             # of an activation; float16 ends at 65504, and other scenes will reach further than these
FORMAT = 1
SCALES_FILE = 'scales.safetensors'
MANIFEST_FILE = 'manifest.json'
_NAMES_IN_AN_ERROR = 4


@dataclass(frozen=True)
class Reach:
    """How far one activation went."""

    largest: float
    float16: bool                   # whether a float16 engine holds it in float16
    weights: tuple[str, ...] = ()   # if only products with these hold it so: computing those in float32 mends it


@dataclass(frozen=True)
class EngineCalibration:
    """What was found out about one engine."""

    kind: str = ''                                                  # int8, int4, or empty if nothing is rounded
    roundings: Mapping[str, Rounding] = field(default_factory=dict)     # by canonical weight name
    reaches: Mapping[str, Reach] = field(default_factory=dict)          # by tensor of the graph
    errors: Mapping[str, float] = field(default_factory=dict)           # of each rounded product, in parts of its size


@dataclass(frozen=True)
class Calibration:
    """A calibration as it was written."""

    folder: Path
    sha256: str                     # of its manifest, and so of everything in it
    weights: Mapping[str, str]      # sha256 of each weights file it was made of
    vision: EngineCalibration
    language: EngineCalibration

    def of(self, engine: str) -> EngineCalibration:
        return self.vision if engine == 'vision' else self.language


def remedy(checkpoint: Path | str, folder: Path | str) -> str:
    return f'Calibrate: penguin calibrate {checkpoint} --output {folder} (and --frames, see calibration/README.md).'


def write_calibration(folder: Path, engines: Mapping[str, EngineCalibration], about: Mapping[str, Any]) -> None:
    """Write ranges, scales and, last, the manifest; ``about`` goes into it. Frames and prompts are there already."""
    (folder / 'ranges').mkdir(parents=True, exist_ok=True)
    for name, engine in engines.items():
        write_whole(folder / 'ranges' / f'{name}.json', _a_line_each(_ranges(engine)).encode())
    save_file({f'{name}/{key}': value for name, engine in engines.items() for key, value in _tensors(engine).items()},
              folder / SCALES_FILE)
    files = [SCALES_FILE, *(f'ranges/{name}.json' for name in engines),
             *(name for name in ('frames.json', 'prompts.jsonl') if (folder / name).exists())]
    manifest = {'format': FORMAT, **about, **{f'{name}_weights': engine.kind for name, engine in engines.items()},
                'files': {name: entry.sha256 for name, entry in hash_files(folder, files).items()}}
    write_whole(folder / MANIFEST_FILE, (json.dumps(manifest, indent=1) + '\n').encode())


def read_calibration(folder: str | Path, checkpoint: str | Path) -> Calibration:
    """Read a calibration and check every file against its manifest. ``checkpoint`` is for what an error recommends."""
    folder = Path(folder)
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
        listed, weights = dict(manifest['files']), dict(manifest['weights'])
        if manifest['format'] != FORMAT:
            raise ValueError(f'format {manifest["format"]}, not {FORMAT}')
        for name, sha256 in listed.items():
            if hash_file(folder / name).sha256 != sha256:
                raise CalibrationError(f'{folder / name} is not the one that {path} describes. {remedy(checkpoint, folder)}')
        tensors = load_file(folder / SCALES_FILE)
        engines = {name: _engine(manifest[f'{name}_weights'], json.loads((folder / 'ranges' / f'{name}.json').read_text()),
                                 {key[len(name) + 1:]: value for key, value in tensors.items() if key.startswith(f'{name}/')})
                   for name in ENGINES}
    except FileNotFoundError as error:
        raise CalibrationError(f'{folder} holds no calibration: {error.filename} does not exist. '
                               f'{remedy(checkpoint, folder)}') from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CalibrationError(f'{folder} holds no calibration that can be read ({error!r}). '
                               f'{remedy(checkpoint, folder)}') from error
    return Calibration(folder, hash_file(path).sha256, weights, engines['vision'], engines['language'])


def check_weights(calibration: Calibration, checkpoint: Path, weights: Mapping[str, str]) -> None:
    """Raise CalibrationError unless the calibration was made of exactly these weights (file name -> sha256)."""
    if dict(calibration.weights) != dict(weights):
        raise CalibrationError(f'{calibration.folder} was made of other weights than those in {checkpoint}: its scales would '
                               f'not fit. {remedy(checkpoint, calibration.folder)}')


def check_float16(engines: Mapping[str, EngineCalibration], *, kept_float32: Collection[str] = ()) -> None:
    """Raise CalibrationError where an activation that is held in float16 went beyond FLOAT16_LIMIT.

    ``kept_float32`` are weights that are multiplied in float32.
    """
    beyond = {name: reach for engine in engines.values() for name, reach in engine.reaches.items()
              if reach.float16 and not reach.largest < FLOAT16_LIMIT
              and not (reach.weights and set(reach.weights) <= set(kept_float32))}
    if not beyond:
        return
    names = sorted(beyond, key=lambda name: -beyond[name].largest)
    told = ', '.join(f'{name} {beyond[name].largest:.3g}' for name in names[:_NAMES_IN_AN_ERROR])
    more = f' and {len(names) - _NAMES_IN_AN_ERROR} more' if len(names) > _NAMES_IN_AN_ERROR else ''
    mending = sorted({weight for reach in beyond.values() for weight in reach.weights} | set(kept_float32))
    advice = f'Multiply these in float32, with this line in the recipe: float32: [{", ".join(mending)}]'
    if not all(reach.weights for reach in beyond.values()):
        advice = 'Use precision fp32: attention itself goes beyond float16'
    raise CalibrationError(
        f'{len(beyond)} activations go beyond {FLOAT16_LIMIT:g}, where float16 (which ends at 65504) is not safe on other '
        f'scenes: {told}{more}. {advice}. All of them are in ranges/*.json of the calibration.')


def _ranges(engine: EngineCalibration) -> dict[str, Any]:
    return {
        'float16_limit': FLOAT16_LIMIT,
        'activations': {
            name: {'largest': float(f'{reach.largest:.6g}'), 'float16': reach.float16, 'weights': list(reach.weights)}
            for name, reach in engine.reaches.items()},
        'products': {name: {'error': float(f'{error:.4g}'), 'smoothed': engine.roundings[name].smoothing is not None}
                     for name, error in engine.errors.items()}}


def _a_line_each(content: Mapping[str, Any]) -> str:
    """JSON with one line for each entry of each object inside, so that two calibrations can be compared line by line."""
    parts = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, Mapping):
            text = '{\n' + ',\n'.join(f'  {json.dumps(name)}: {json.dumps(entry)}' for name, entry in value.items()) + '\n }'
        parts.append(f' {json.dumps(key)}: {text}')
    return '{\n' + ',\n'.join(parts) + '\n}\n'


def _tensors(engine: EngineCalibration) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, rounding in engine.roundings.items():
        found[f'{name}/weight_scale'] = np.ascontiguousarray(rounding.weight_scale)
        if rounding.input_scale is not None:
            found[f'{name}/input_scale'] = np.array([rounding.input_scale], np.float16)
        if rounding.smoothing is not None:
            found[f'{name}/smoothing'] = np.ascontiguousarray(rounding.smoothing)
    return found


def _engine(kind: str, ranges: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> EngineCalibration:
    if kind and kind not in KINDS:
        raise ValueError(f'weights {kind!r}')
    roundings = {}
    for key, scale in tensors.items():
        name, _, part = key.rpartition('/')
        if part == 'weight_scale':
            input_scale = tensors.get(f'{name}/input_scale')
            roundings[name] = Rounding(kind, scale, None if input_scale is None else input_scale[0],
                                       tensors.get(f'{name}/smoothing'))
    reaches = {name: Reach(float(entry['largest']), bool(entry['float16']), tuple(entry['weights']))
               for name, entry in ranges['activations'].items()}
    return EngineCalibration(kind, roundings, reaches, {name: entry['error'] for name, entry in ranges['products'].items()})
