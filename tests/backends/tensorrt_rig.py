"""What tests of the TensorRT backend work with: the fake library in place of the real one, tiny models, engines built once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_tensorrt
import pytest

from penguin_ros.backends.recipe import Recipe
from penguin_ros.cli.build import build_onnx, build_tensorrt
from penguin_ros.model.config import DecoderConfig, EncoderConfig, PenguinVLConfig
from tests.core.numpy_engine import byte_words
from tests.model.write_random_checkpoint import write_random_checkpoint

if os.environ.get('PENGUIN_TEST_GPU') == 'pycuda':      # set by test_pycuda.py
    from host_gpu import HostGpu as Gpu
else:
    from fake_gpu import FakeGpu as Gpu

SETTINGS = {'max_append': 32, 'cache_rows': 256, 'max_patches': 256, 'merge': 2}
# Rows of the first have a multiple of 256 bytes, as those of the published models; rows of the second have not.
ALIGNED = PenguinVLConfig(
    encoder=EncoderConfig(width=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=96, norm_eps=1e-6, rope_theta=1e4),
    decoder=DecoderConfig(width=128, layers=3, heads=4, kv_heads=2, head_dim=32, mlp_width=160, norm_eps=1e-6, rope_theta=1e4,
                          vocabulary=300, max_positions=2048),
    image_token_id=256, tied_embeddings=True)
ODD = replace(ALIGNED, decoder=replace(ALIGNED.decoder, width=48, layers=2, head_dim=16))
MODELS = {'aligned': ALIGNED, 'odd': ODD}
ENGINE_MODULES = ('tensorrt', 'tensorrt_build', 'tensorrt_context')


@pytest.fixture(scope='module', autouse=True)
def fake_library() -> Iterator[None]:
    """Let the backend import the fake, and let nobody else find either afterwards."""
    names = ['tensorrt', *(f'penguin_ros.backends.{name}' for name in ENGINE_MODULES)]
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.modules['tensorrt'] = fake_tensorrt
    yield
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture(autouse=True)
def fresh_library() -> Iterator[None]:
    """Nothing set to fail and no calls noted."""
    fake_tensorrt.reset()
    yield
    fake_tensorrt.reset()


def backend() -> ModuleType:
    return importlib.import_module('penguin_ros.backends.tensorrt')


class Builds:
    """Engine folders, built once per kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoint(self, model: str) -> Path:
        folder = self._folder / model
        if not folder.exists():
            write_random_checkpoint(folder, MODELS[model], dtype='F32', spread=0.12)
            byte_words()._tokenizer.save(str(folder / 'tokenizer.json'))
        return folder

    def recipe(self, kind: str, model: str, **settings: Any) -> Recipe:
        return Recipe(file=self._folder / f'{model}.yaml', checkpoint=str(self.checkpoint(model)), backend=kind,
                      **{**SETTINGS, **settings})

    def folder(self, kind: str, model: str, **settings: Any) -> Path:
        folder = self._folder / '-'.join([kind, model, *map(str, settings.values())])
        if not folder.exists():
            recipe = self.recipe(kind, model, **settings)
            if kind == 'onnx':
                build_onnx(recipe, folder)
            else:
                fake_tensorrt.machine = gpu = Gpu()
                build_tensorrt(recipe, folder, gpu=gpu, timing_folder=self._folder / 'timing')
                fake_tensorrt.reset()
        return folder


@pytest.fixture(scope='module', name='builds')
def shared_builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return Builds(tmp_path_factory.mktemp('engines'))
