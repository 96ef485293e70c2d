"""Joins a backend to the core from one configuration; the only file that knows both."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penguin_ros.backends.manifest import read_manifest
from penguin_ros.core.confidence import read_confidence
from penguin_ros.core.config import CameraConfig, PenguinConfig
from penguin_ros.core.dialect import read_dialect
from penguin_ros.core.engine import LanguageEngine, Piece, VisionEngine, VisualTokens
from penguin_ros.core.errors import ConfigError, EngineError, PenguinError
from penguin_ros.core.health import Health
from penguin_ros.core.perception import Engines, Perception
from penguin_ros.core.words import read_words
from penguin_ros.shipped import shipped


def assemble(config: PenguinConfig, cameras: Sequence[CameraConfig], health: Health, log: logging.Logger) -> Perception:
    """Load and warm up the engines a configuration names. Raises PenguinError with what to do when that cannot be done."""
    return Perception(load_engines(config, log), config, cameras, health, log)


def engine_folder(name: str) -> Path:
    """The folder of a built engine: a path, or the name of one that is shipped (``nano``). Raises ConfigError."""
    if (Path(name) / 'manifest.json').exists():
        return Path(name)
    if '/' not in name and name not in ('', '.', '..'):
        try:
            return shipped(f'engines/{name}')
        except PenguinError as error:
            raise ConfigError(f'engine {name!r} is neither a folder nor shipped: {error}') from error
    raise ConfigError(f'{name} holds no built engine (manifest.json is missing). Build one with `penguin build RECIPE`, or '
                      'use engine nano, which is shipped.')


def load_engines(config: PenguinConfig, log: logging.Logger) -> Engines:
    """Check the engine folder against its manifest, load both engines and run each once."""
    folder = engine_folder(config.engine)
    manifest = read_manifest(folder)
    backend = manifest.backend if config.backend == 'auto' else config.backend
    begun_s = time.monotonic()
    vision, language = _load(backend, folder, config)
    engines = Engines(vision=vision, language=language, words=read_words(folder), dialect=read_dialect(folder),
                      model_name=manifest.model, engine_id=manifest.engine_hash[:12], cache_rows=manifest.ranges['S'][1],
                      confidence=read_confidence(folder), close=getattr(language, 'close', lambda: None))
    try:
        _warm_up(engines)
    except PenguinError:
        engines.close()
        raise
    log.info(f'{manifest.model} loaded from {folder} with {backend} in {time.monotonic() - begun_s:.1f} s')
    return engines


def _load(backend: str, folder: Path, config: PenguinConfig) -> tuple[VisionEngine, LanguageEngine]:
    try:
        if backend == 'onnx':
            from penguin_ros.backends.onnx import load_onnx_engines
            return load_onnx_engines(folder, threads=config.threads)
        if backend == 'torch':
            from penguin_ros.backends.torch import load_torch_engines
            return load_torch_engines(folder, device='auto')
        if backend == 'tensorrt':
            from penguin_ros.backends.tensorrt import load_tensorrt_engines
            return load_tensorrt_engines(folder)
    except ImportError as error:
        if backend == 'tensorrt':
            raise EngineError(f'the tensorrt backend needs TensorRT, which is not here: {error}. On a Jetson it comes with '
                              'JetPack (sudo apt install nvidia-jetpack; a virtual environment needs '
                              '--system-site-packages). Elsewhere use an engine built for onnx.') from error
        raise EngineError(f'the {backend} backend needs a package that is not installed: {error}. '
                          f"Install it: pip install 'penguin_ros[{'onnx' if backend == 'onnx' else 'export'}]'.") from error
    raise ConfigError(f'backend {backend!r} cannot run {folder}. Use auto, or build the engine for another backend.')


def _warm_up(engines: Engines) -> None:
    """A small frame, then a draft and a token: the first real frame should not pay for what is set up on first use."""
    side = engines.vision.spec.merge * 2
    patches = np.zeros((side * side, 3 * engines.vision.spec.patch_px ** 2), dtype=np.float32)
    visual = engines.vision.encode(patches, (side, side))
    cache = engines.language.new_cache(64)
    ids = engines.words.ids('Time 0.0s:')
    start = 1
    prompts: list[list[Piece]] = [[ids, visual], [ids[:2]], [ids[:1]]]
    for pieces in prompts:
        count = sum(piece.count if isinstance(piece, VisualTokens) else len(piece) for piece in pieces)
        logits = engines.language.append(cache, pieces, start=start, positions=np.arange(start - 1, start - 1 + count),
                                         visible=np.arange(start) > 0, logits_for=[count - 1])
        start += count
    if not np.isfinite(logits).all():
        raise EngineError('the engine gives numbers that are not finite on a blank frame. Build it again, and run '
                          '`penguin verify` on it; FP16 overflow is the usual cause.')
