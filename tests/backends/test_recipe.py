"""Recipes are read and checked; a mistake in one is an error that says what to change. `penguin build` follows them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from penguin_ros.backends.manifest import load_manifest
from penguin_ros.backends.recipe import read_recipe
from penguin_ros.cli.main import main
from penguin_ros.core.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / 'tests' / 'data' / 'golden'


def recipe_file(folder: Path, text: str) -> Path:
    file = folder / 'my-robot.yaml'
    file.write_text(text)
    return file


def test_what_is_not_said_has_a_default_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file(tmp_path, 'checkpoint: ../weights\nprecision: fp16\nmax_append: 128\n'))
    assert recipe.checkpoint_folder == tmp_path / '../weights'
    assert recipe.output_folder == tmp_path / 'my-robot'
    assert (recipe.model_name, recipe.precision, recipe.max_append, recipe.merge) == ('my-robot', 'fp16', 128, 2)


@pytest.mark.parametrize('text, problem', [
    ('precision: fp32\n', 'no checkpoint is named'),
    ('checkpoint: x\nprecison: fp16\n', "sets 'precison', which no recipe has. Did you mean precision"),
    ('checkpoint: x\nqwertz: 1\n', 'It can set model, checkpoint'),
    ('checkpoint: x\nprecision: int3\n', 'it can be fp32, fp16'),
    ('checkpoint: x\nbackend: abacus\n', 'it can be onnx, tensorrt'),
    ('checkpoint: x\nmerge: 0\n', 'it can be 1 to 8'),
    ('checkpoint: x\nmerge: two\n', 'whole number'),
    ('checkpoint: x\nmax_patches: 1022\n', 'not a multiple of merge'),
    ('checkpoint: x\nmax_append: 512\ncache_rows: 512\n', 'Lower max_append or raise cache_rows'),
    ('- checkpoint\n', 'holds no "name: value" lines'),
    ('checkpoint: [\n', 'cannot be read')])
def test_a_mistake_is_an_error_that_names_the_file_and_the_remedy(tmp_path: Path, text: str, problem: str) -> None:
    file = recipe_file(tmp_path, text)
    with pytest.raises(ConfigError, match=problem) as error:
        read_recipe(file)
    assert str(file) in str(error.value)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'nothing\.yaml does not exist.*engines/\*\.yaml'):
        read_recipe(tmp_path / 'nothing.yaml')


@pytest.mark.parametrize('file', sorted((ROOT / 'engines').glob('*.yaml')), ids=lambda file: file.name)
def test_every_shipped_recipe_can_be_read(file: Path) -> None:
    assert read_recipe(file).model_name


def test_penguin_build_writes_an_engine_that_passes_its_own_check(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / 'model_B', tmp_path / 'model')
    (tmp_path / 'model' / 'tokenizer.json').write_text('{}')
    recipe_file(tmp_path, 'checkpoint: model\noutput: built\nmodel: tiny\nmax_patches: 64\n')
    assert main(['build', 'my-robot.yaml']) == 0
    manifest = load_manifest(tmp_path / 'built', backend='onnx')
    assert (manifest.model, manifest.recipe, manifest.vision_spec.max_patches) == ('tiny', 'my-robot.yaml', 64)
    assert {'vision.onnx', 'language.onnx', 'vision.weights', 'language.weights', 'embeddings.bin', 'config.json',
            'tokenizer.json'} == set(manifest.files)
    assert manifest.ranges['S'] == (2, 4096)
    assert manifest.language_spec.max_positions == 4096
    assert manifest.engine_hash in capsys.readouterr().out
    assert main(['build', 'my-robot.yaml', '--output', 'again']) == 0
    assert load_manifest(tmp_path / 'again', backend='onnx').engine_hash == manifest.engine_hash


def test_penguin_build_in_place_adds_only_graphs_and_manifest(tmp_path: Path) -> None:
    pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
    shutil.copytree(GOLDEN / 'model_A', tmp_path / 'tiny')
    before = {file.name for file in (tmp_path / 'tiny').iterdir()}
    file = tmp_path / 'tiny.yaml'
    file.write_text('checkpoint: tiny\nweights: safetensors\n')
    assert main(['build', str(file)]) == 0
    after = {file.name for file in (tmp_path / 'tiny').iterdir()}
    assert after - before == {'vision.onnx', 'language.onnx', 'manifest.json'}
    assert load_manifest(tmp_path / 'tiny', backend='onnx').embeddings.file == 'model.safetensors'


def test_penguin_export_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
    assert main(['export', str(tmp_path / 'nowhere'), str(tmp_path / 'out')]) == 1
    assert 'config.json does not exist' in capsys.readouterr().err
    assert main(['export', str(GOLDEN / 'model_A'), str(tmp_path / 'out'), '--debug']) == 0
    assert (tmp_path / 'out' / 'language.onnx').exists()


def test_a_recipe_for_tensorrt_says_where_it_can_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec('tensorrt'):
        pytest.skip('TensorRT is here')
    file = recipe_file(tmp_path, 'checkpoint: x\nbackend: tensorrt\n')
    assert main(['build', str(file)]) == 1
    assert 'use a recipe for onnx' in capsys.readouterr().err
