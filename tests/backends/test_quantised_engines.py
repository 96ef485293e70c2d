"""Engines with rounded weights through the TensorRT backend's own code: the same text as from ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

import fake_tensorrt  # noqa: E402
from tensorrt_rig import Builds, Gpu, backend, fake_library, fresh_library, shared_builds  # noqa: E402, F401
from test_tensorrt import watch_and_ask  # noqa: E402

from penguin_ros.backends.manifest import read_manifest  # noqa: E402
from penguin_ros.cli.build import build_tensorrt  # noqa: E402
from penguin_ros.core.errors import CalibrationError  # noqa: E402
from penguin_ros.model.calibration import read_calibration  # noqa: E402
from tests.model.write_plain_calibration import write_plain_calibration  # noqa: E402


def test_captions_and_answers_of_rounded_engines_are_those_of_onnx_runtime(
        builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = builds.checkpoint('aligned')
    write_plain_calibration(tmp_path / 'calibration', checkpoint)
    settings = {'vision_weights': 'int8', 'language_weights': 'int4', 'calibration': str(tmp_path / 'calibration')}
    spoken = []
    for kind in ('onnx', 'tensorrt'):
        folder = builds.folder(kind, 'aligned', cache_rows=512, **settings)
        assert read_manifest(folder).options['calibration'] == read_calibration(tmp_path / 'calibration', checkpoint).sha256
        gpu = Gpu()
        fake_tensorrt.machine = gpu
        if kind == 'tensorrt':
            monkeypatch.setattr(backend(), 'the_gpu', lambda gpu=gpu: gpu)
        spoken.append(watch_and_ask(folder))
    assert spoken[0] == spoken[1]


def test_another_calibration_makes_another_engine(builds: Builds, tmp_path: Path) -> None:
    hashes = set()
    for smooth in (False, True):
        calibration = tmp_path / f'calibration-{smooth}'
        write_plain_calibration(calibration, builds.checkpoint('aligned'), smooth=smooth)
        fake_tensorrt.machine = gpu = Gpu()
        manifest = build_tensorrt(
            builds.recipe('tensorrt', 'aligned', vision_weights='int8', calibration=str(calibration)), tmp_path / str(smooth),
            gpu=gpu, timing_folder=tmp_path)
        hashes.add(manifest.engine_hash)
    assert len(hashes) == 2


def test_without_a_calibration_nothing_is_compiled(builds: Builds, tmp_path: Path) -> None:
    fake_tensorrt.machine = gpu = Gpu()
    recipe = builds.recipe('tensorrt', 'aligned', language_weights='int4', calibration=str(tmp_path / 'nowhere'))
    with pytest.raises(CalibrationError, match='penguin calibrate'):
        build_tensorrt(recipe, tmp_path / 'built', gpu=gpu, timing_folder=tmp_path)
    assert not list(tmp_path.glob('built/*'))
