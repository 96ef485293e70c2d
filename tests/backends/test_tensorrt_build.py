"""penguin build for TensorRT: engines, manifest, timing cache, what is said meanwhile, and what is left when it fails."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

import fake_tensorrt  # noqa: E402
from tensorrt_rig import Builds, Gpu, fake_library, fresh_library, shared_builds  # noqa: E402, F401

from penguin_ros.assemble import load_engines  # noqa: E402
from penguin_ros.backends.manifest import load_manifest  # noqa: E402
from penguin_ros.backends.profiles import language_profiles, vision_profiles  # noqa: E402
from penguin_ros.cli.build import build_tensorrt  # noqa: E402
from penguin_ros.cli.main import main  # noqa: E402
from penguin_ros.core.config import PenguinConfig  # noqa: E402
from penguin_ros.core.errors import EngineError, EngineMismatchError, PenguinError  # noqa: E402


def build(builds: Builds, tmp_path: Path, **more: Any) -> list[str]:
    """Build the small model into tmp_path/built; returns what was said."""
    said: list[str] = []
    fake_tensorrt.machine = gpu = Gpu()
    build_tensorrt(builds.recipe('tensorrt', 'aligned'), tmp_path / 'built', gpu=gpu, timing_folder=tmp_path / 'timing',
                   progress=said.append, **more)
    return said


def test_the_manifest_holds_every_ingredient_of_the_engines(builds: Builds, tmp_path: Path) -> None:
    build(builds, tmp_path)
    manifest = load_manifest(tmp_path / 'built', backend='tensorrt')
    assert manifest.details == {'tensorrt': '10.3.0', 'cuda_driver': '12.6', 'gpu': 'Orin', 'compute_capability': '8.7',
                                'multiprocessors': '16'}
    assert manifest.options == {'strongly_typed': 'yes', 'tf32': 'no', 'optimization_level': '3', 'workspace_mb': '1024'}
    assert {'vision.engine', 'language.engine', 'embeddings.bin', 'config.json', 'tokenizer.json'} == set(manifest.files)
    assert {'vision.onnx', 'vision.weights', 'language.onnx', 'language.weights'} == set(manifest.sources)
    assert [profile.name for profile in manifest.language.profiles] == ['decode', 'verify', 'prefill']
    assert manifest.language.profiles == language_profiles(max_append=32, cache_rows=256)
    assert manifest.vision.profiles == vision_profiles(merge=2, max_patches=256)
    assert manifest.builder.startswith('penguin_ros ')
    assert not list((tmp_path / 'built').glob('*.unfinished'))


@pytest.mark.parametrize('change', [{'optimization_level': 5}, {'workspace_mb': 64}, {'max_append': 16}, {'cache_rows': 128},
                                    {'max_patches': 64}, {'precision': 'fp16'}, {'attention': 'concat'}])
def test_another_ingredient_makes_another_engine(builds: Builds, tmp_path: Path, change: dict[str, Any]) -> None:
    fake_tensorrt.machine = gpu = Gpu()
    plain = load_manifest(builds.folder('tensorrt', 'aligned'), backend='tensorrt')
    fake_tensorrt.machine = gpu
    other = build_tensorrt(builds.recipe('tensorrt', 'aligned', **change), tmp_path / 'other', gpu=gpu,
                           timing_folder=tmp_path)
    assert other.engine_hash != plain.engine_hash


def test_the_graphs_may_be_deleted_after_the_build_but_not_changed(builds: Builds, tmp_path: Path) -> None:
    build(builds, tmp_path)
    folder = tmp_path / 'built'
    (folder / 'vision.weights').unlink()
    load_manifest(folder, backend='tensorrt')
    weights = bytearray((folder / 'language.weights').read_bytes())
    weights[1000] ^= 4
    (folder / 'language.weights').write_bytes(weights)
    with pytest.raises(EngineMismatchError, match=r'language\.weights has sha256'):
        load_manifest(folder, backend='tensorrt')


def test_a_build_says_what_it_does_and_where_it_is(builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module('penguin_ros.backends.tensorrt_build')
    monkeypatch.setattr(module, '_PROGRESS_S', 0.001)
    said = build(builds, tmp_path)
    assert any(line.endswith('layers read') for line in said)
    assert 'vision.engine: building; this takes minutes' in said
    assert any(line.startswith('language.engine: building for 0:00 min; TensorRT: Compiler backend') for line in said)
    assert any('built in 0:0' in line for line in said)
    assert 'files hashed' in said[-1]


def test_layers_are_written_where_they_are_asked_for(builds: Builds, tmp_path: Path) -> None:
    build(builds, tmp_path, layers=True)
    assert json.loads((tmp_path / 'built' / 'language.layers.json').read_text())['Layers']


def test_one_timing_cache_serves_all_builds_of_one_kind_of_machine(builds: Builds, tmp_path: Path) -> None:
    build(builds, tmp_path)
    file, = (tmp_path / 'timing').iterdir()
    assert file.name == '10.3.0-12.6-Orin-8.7-16.timing'
    assert file.read_bytes() == b'timed vision.onnx\ntimed language.onnx\n'
    build(builds, tmp_path)
    assert file.read_bytes() == 2 * b'timed vision.onnx\ntimed language.onnx\n'
    fake_tensorrt.fail_next.add('set_timing_cache')
    assert any('kernels are measured anew' in line for line in build(builds, tmp_path))


def test_a_timing_cache_that_others_could_have_written_is_refused(builds: Builds, tmp_path: Path) -> None:
    build(builds, tmp_path)
    file, = (tmp_path / 'timing').iterdir()
    file.chmod(0o666)
    with pytest.raises(EngineError, match='chmod o-w'):
        build(builds, tmp_path)


@pytest.mark.parametrize('call, text', [
    ('parse_from_file', r'does not take .*vision\.onnx: In node 7 \(importSwish\): UNSUPPORTED_NODE'),
    ('add_optimization_profile', r'refuses the shapes of profile frame.*Change max_append'),
    ('build_serialized_network', r'could not build vision\.engine: .*GB free.*add swap \(docs/engines\.md\)')])
def test_a_build_that_fails_says_why_and_leaves_no_engine(builds: Builds, tmp_path: Path, call: str, text: str) -> None:
    fake_tensorrt.fail_next.add(call)
    with pytest.raises(EngineError, match=text):
        build(builds, tmp_path)
    assert not list((tmp_path / 'built').glob('*.engine*'))
    assert not (tmp_path / 'built' / 'manifest.json').exists()


def test_a_build_over_an_older_one_that_fails_half_way_leaves_a_folder_that_is_not_loaded(
        builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(builds, tmp_path)
    run = fake_tensorrt.Builder.build_serialized_network

    def fail_on_language(self: Any, network: Any, config: Any) -> Any:
        return None if network.onnx_file.name == 'language.onnx' else run(self, network, config) + b' '
    monkeypatch.setattr(fake_tensorrt.Builder, 'build_serialized_network', fail_on_language)
    with pytest.raises(EngineError, match=r'could not build language\.engine'):
        build(builds, tmp_path)
    with pytest.raises(EngineMismatchError, match=r'vision\.engine .*Build it again'):
        load_manifest(tmp_path / 'built', backend='tensorrt')


def test_a_gpu_that_is_not_there_is_named(builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(logger: Any) -> None:
        raise TypeError('pybind11::init(): factory function returned nullptr')
    monkeypatch.setattr(fake_tensorrt, 'Builder', nothing)
    with pytest.raises(EngineError, match=r'cannot be started.*penguin doctor'):
        build(builds, tmp_path)


def test_without_tensorrt_the_command_says_where_to_run_it(
        builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    for name in [name for name in sys.modules if name.startswith('penguin_ros.backends.tensorrt')]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / 'orin.yaml').write_text(f'checkpoint: {builds.checkpoint("aligned")}\nbackend: tensorrt\noutput: built\n')
    assert main(['build', str(tmp_path / 'orin.yaml')]) == 1
    error = capsys.readouterr().err
    assert 'built on the machine they will run on' in error
    assert 'sudo apt install nvidia-jetpack' in error
    assert not (tmp_path / 'built').exists()


def test_starting_a_node_never_builds_anything(tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(PenguinError, match='penguin build RECIPE'):
        load_engines(PenguinConfig(engine=str(tmp_path)), logging.getLogger('test'))
    assert [file.name for file in tmp_path.iterdir()] == ['config.json']
    assert 'parse_from_file' not in fake_tensorrt.calls


def test_profiles_cover_every_call_and_each_corner_is_possible_by_itself() -> None:
    for max_append, cache_rows in ((512, 4096), (128, 1024), (8, 16)):
        for profile in language_profiles(max_append=max_append, cache_rows=cache_rows):
            for corner in range(3):
                size = {name: sizes[corner] for name, sizes in profile.dims.items()}
                assert size['S'] == size['P'] + size['T']
                assert 1 <= size['R'] <= 16
            assert profile.dims['P'] == (1, cache_rows // 2, cache_rows - 1)
        decode, verify, prefill = language_profiles(max_append=max_append, cache_rows=cache_rows)
        assert decode.dims['T'] == decode.dims['R'] == (1, 1, 1)
        assert verify.dims['T'][2] == min(16, max_append)
        assert prefill.dims['T'][2] == max_append
    assert vision_profiles(merge=2, max_patches=2048)[0].dims == {'N': (4, 1024, 2048)}
    assert vision_profiles(merge=1, max_patches=1)[0].dims == {'N': (1, 1, 1)}
