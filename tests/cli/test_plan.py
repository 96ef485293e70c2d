"""penguin plan reproduces the published table, says what does not fit, and the shipped recipes quote it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from penguin_ros.backends.recipe import Recipe, read_recipe
from penguin_ros.backends.roofline import (
    MODULES,
    PUBLISHED,
    Precision,
    Roofline,
    Scene,
    body_weights,
    cache_row_bytes,
    head_weights,
    tokens_per_pass,
    vision_weights,
)
from penguin_ros.backends.stopwatch import measure_steps
from penguin_ros.cli.main import main
from penguin_ros.cli.plan import plan_rows
from penguin_ros.core.config import read_config
from penguin_ros.core.errors import ConfigError
from penguin_ros.model.config import PENGUIN_VL_2B, PENGUIN_VL_8B
from tests.core.numpy_engine import NumpyLanguage, NumpyVision

ROOT = Path(__file__).parents[2]
ORIN_RECIPES = sorted((ROOT / 'engines').glob('penguin-vl-2b-*orin*.yaml'))
RECIPE = Recipe(checkpoint='x', backend='tensorrt', precision='fp16')
# Milliseconds at 100 %: encode 256, 1024, 2048 patches and prefill 300, 1000, 2000 in FP16 and INT8; a token behind 1000 rows
# in FP16, INT8, INT4 with FP16 head, INT4 (reference/tensorrt.md 7.2).
TABLE = {
    'agx-orin-64gb': ('6/3 27/16 65/44 20/10 69/36 143/77', '17.4 9.0 7.1 4.9'),
    'agx-orin-32gb': ('9/5 43/26 104/70 32/16 110/57 229/123', '17.4 9.0 7.1 4.9'),
    'orin-nx-16gb': ('16/8 76/46 184/124 57/29 195/101 405/218', '34.7 17.9 14.3 9.8'),
    'orin-nx-16gb-super': ('13/7 59/36 144/97 45/23 153/79 317/171', '34.7 17.9 14.3 9.8'),
    'orin-nx-8gb': ('19/10 91/55 221/149 68/35 234/122 486/261', '34.7 17.9 14.3 9.8'),
    'orin-nano-8gb': ('23/12 112/68 270/182 84/42 286/149 595/320', '52.3 27.0 21.5 14.7'),
    'orin-nano-8gb-super': ('14/8 68/41 166/112 51/26 176/91 365/196', '34.7 17.9 14.3 9.8')}


def test_the_weights_are_those_of_the_published_model() -> None:
    assert vision_weights(PENGUIN_VL_2B) / 1e9 == pytest.approx(0.440, abs=0.002)
    assert body_weights(PENGUIN_VL_2B.decoder) / 1e9 == pytest.approx(1.409, abs=0.001)
    assert head_weights(PENGUIN_VL_2B) / 1e9 == pytest.approx(0.311, abs=0.001)
    assert cache_row_bytes(PENGUIN_VL_2B.decoder) == 114_688


@pytest.mark.parametrize('key', MODULES)
def test_at_full_efficiency_the_roofline_of_the_reference_comes_out(key: str) -> None:
    steps, tokens = TABLE[key]
    precisions = [Precision(), Precision(vision='int8', language='int8', head='int8'), Precision(language='int4'),
                  Precision(language='int4', head='int4')]
    lines = [Roofline(PENGUIN_VL_2B, MODULES[key], precision, efficiency=1.0) for precision in precisions]
    found = [step(lines[place]) for step in (
        lambda line: line.encode_ms(256), lambda line: line.encode_ms(1024), lambda line: line.encode_ms(2048),
        lambda line: line.rows_ms(300, 0), lambda line: line.rows_ms(1000, 0), lambda line: line.rows_ms(2000, 0))
        for place in (0, 1)]
    assert found == pytest.approx([float(value) for value in re.split('[ /]', steps)], abs=1.0)
    assert [line.token_ms(1000) for line in lines] == pytest.approx([float(value) for value in tokens.split()], abs=0.1)


def test_half_the_efficiency_takes_twice_as_long() -> None:
    fast, slow = (Roofline(PENGUIN_VL_2B, MODULES['orin-nx-16gb'], Precision(), efficiency=share) for share in (1.0, 0.5))
    assert slow.encode_ms(1024) == pytest.approx(2 * fast.encode_ms(1024))
    assert slow.token_ms(500) == pytest.approx(2 * fast.token_ms(500))


@pytest.mark.parametrize('published', PUBLISHED, ids=lambda published: published.module)
def test_what_others_measured_lies_between_the_ceiling_and_a_third_of_it(published: object) -> None:
    """The plan's promise, half of the ceiling, is then right to a factor of two."""
    line = Roofline(PENGUIN_VL_2B, MODULES[published.module], Precision(language='int4'), efficiency=1.0)
    for measured, ceiling in ((published.prefill_ms, line.prefill_ms(292)), (published.token_ms, line.token_ms(292))):
        assert 1 / 3 < ceiling / measured < 1


def test_keeping_caches_and_drafting_never_costs_more() -> None:
    line = Roofline(PENGUIN_VL_2B, MODULES['orin-nano-8gb'], Precision(language='int4'))
    scene = Scene()
    drafted, kept, anew = (line.caption(scene, kept=kept, drafted=drafted)
                           for kept, drafted in ((True, True), (True, False), (False, False)))
    assert drafted.total_ms < kept.total_ms < anew.total_ms
    assert drafted.encode_ms == kept.encode_ms == pytest.approx(anew.encode_ms / 4)
    assert tokens_per_pass(1.0) == 16
    assert tokens_per_pass(0.0) == 1
    assert tokens_per_pass(0.9) == pytest.approx(8.15, abs=0.01)


def test_a_prompt_is_never_cheaper_in_one_call_than_reading_the_weights_once() -> None:
    line = Roofline(PENGUIN_VL_2B, MODULES['agx-orin-64gb'], Precision(), efficiency=1.0)
    assert line.rows_ms(1, 1) > 3.4e9 / 204.8e6
    assert line.prefill_ms(1024, max_append=512) > line.prefill_ms(1024, max_append=1024)


def test_memory_counts_one_cache_per_camera_and_one_for_questions() -> None:
    line = Roofline(PENGUIN_VL_2B, MODULES['orin-nx-16gb'], Precision())
    parts = [{part.name: part.gb for part in line.memory(RECIPE, cameras=cameras)} for cameras in (1, 3)]
    assert parts[0]['KV caches'] == pytest.approx(2 * 4096 * 114_688 / 1e9)
    assert parts[1]['KV caches'] == pytest.approx(2 * parts[0]['KV caches'])
    assert parts[0]['language weights'] == pytest.approx(3.44, abs=0.01)


@pytest.mark.parametrize('file', ORIN_RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_fits_its_module_and_quotes_the_plan(file: Path) -> None:
    recipe = read_recipe(file)
    row, = plan_rows(recipe, PENGUIN_VL_2B, Scene(), [recipe.module], cameras=1, efficiency=0.5)
    assert row.fits
    assert f'#   {row.summary}\n' in file.read_text()
    assert file.stem == f'penguin-vl-2b-{recipe.module}'
    assert recipe.output_folder.name == file.stem


@pytest.mark.parametrize('file', ORIN_RECIPES, ids=lambda file: file.stem)
def test_the_parameter_file_a_recipe_names_fits_its_caches(file: Path) -> None:
    yaml = pytest.importorskip('yaml')
    named = ROOT / re.search(r'Goes with (config/\w+\.yaml)', file.read_text())[1]
    parameters = yaml.safe_load(named.read_text())['/**']['ros__parameters']
    values = {f'{group}.{name}': value for group, inner in parameters.items() if isinstance(inner, dict) and group != 'camera'
              for name, value in inner.items()}
    config = read_config({**values, 'cameras': parameters['cameras']})
    recipe = read_recipe(file)
    words = 16 + 16 * (config.window.frames + 1) + 24 + config.ask.max_prompt_tokens + config.ask.max_new_tokens
    assert config.token_budget.window_tokens + words < recipe.cache_rows
    assert max(config.ask.detail_tokens, config.token_budget.min_frame_tokens) * recipe.merge**2 <= recipe.max_patches
    row, = plan_rows(recipe, PENGUIN_VL_2B, Scene(), [recipe.module], cameras=len(config.cameras), efficiency=0.5)
    assert row.fits


def test_there_is_a_recipe_for_each_of_the_five_modules() -> None:
    assert {read_recipe(file).module for file in ORIN_RECIPES} == {key for key in MODULES if not key.endswith('super')}


def test_the_command_shows_every_module_at_a_glance(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['plan']) == 0
    text = capsys.readouterr().out
    assert all(module.name in text for module in MODULES.values())
    assert 'computed at 50% of peak arithmetic and bandwidth, not measured' in text
    assert 'TensorRT-Edge-LLM 0.9.0' in text
    assert max(len(line) for line in text.splitlines()[4:14]) <= 120


def test_a_named_module_that_is_too_small_is_a_warning_with_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['plan', '--module', 'orin-nano-8gb', '--cameras', '2']) == 1
    text = capsys.readouterr().out
    assert 'TOO MUCH' in text
    assert re.search(r'warning: penguin-vl-2b does not fit Orin Nano 8GB: it needs .* GB of 8 .*language_weights: int4', text)


def test_json_holds_all_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['plan', str(ROOT / 'engines' / 'penguin-vl-2b-orin-nx-16gb.yaml'), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['precision'] == {'vision': 'int8', 'language': 'int4', 'head': 'fp16'}
    assert found['modules']['orin-nx-16gb']['named']
    assert not found['modules']['orin-nano-8gb']['named']
    assert found['modules']['orin-nx-16gb']['needs_gb'] == pytest.approx(
        sum(found['modules']['orin-nx-16gb']['memory_gb'].values()))
    assert found['warnings'] == []


def test_steps_are_measured_on_any_engine() -> None:
    vision, language = NumpyVision(), NumpyLanguage()
    steps = measure_steps(vision, language, grid=(4, 6), kept_rows=20, cache_rows=64, repeats=3)
    assert steps.prefill_ms > 0
    assert steps.token_ms > 0
    assert steps.verify_ms > steps.token_ms
    assert set(vision.encoded_tokens) == {6}
    with pytest.raises(ConfigError, match='need 63 cache rows; the engine has 62'):
        measure_steps(vision, language, grid=(4, 6), kept_rows=40, cache_rows=62)


def test_a_built_engine_is_run_beside_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')
    arguments = ['plan', str(ROOT / 'engines' / 'nano.yaml'), '--measure', 'nano', '--frame-tokens', '16',
                 '--kept-tokens', '20']
    assert main(arguments) == 0
    assert re.search(r'verify a draft of 16 +\d+\.\d\d', capsys.readouterr().out)
    assert main([*arguments, '--json', '--module', 'orin-nx-16gb']) == 0
    assert json.loads(capsys.readouterr().out)['measured']['token_ms'] > 0


def test_a_checkpoint_that_is_here_is_planned_for_its_own_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'config.json').write_text(json.dumps(PENGUIN_VL_8B.to_dict()))
    (tmp_path / 'mine.yaml').write_text('checkpoint: model\nbackend: tensorrt\nprecision: fp16\nmodule: orin-nx-16gb\n')
    assert main(['plan', str(tmp_path / 'mine.yaml'), '--json']) == 1
    found = json.loads(capsys.readouterr().out)
    assert found['modules']['orin-nx-16gb']['memory_gb']['language weights'] > 14
    assert 'does not fit Orin NX 16GB' in found['warnings'][0]


@pytest.mark.parametrize('arguments, text', [
    (['--module', 'orin-max'], 'there is no module'), (['--efficiency', '0'], '--efficiency is 0.0; it can be'),
    (['--accepted', '1.5'], '--accepted is 1.5'), (['nowhere.yaml'], 'does not exist'), (['--cameras', '0'], '--cameras is 0')])
def test_a_mistake_is_explained(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['plan', *arguments]) == 1
    assert text in capsys.readouterr().err


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib', reason='needs matplotlib: pip install matplotlib')
    assert main(['plan', '--plot', str(tmp_path / 'deep' / 'plan.png')]) == 0
    assert (tmp_path / 'deep' / 'plan.png').stat().st_size > 10_000


def test_a_larger_budget_never_takes_less_memory() -> None:
    line = Roofline(PENGUIN_VL_2B, MODULES['orin-nx-16gb'], Precision())
    sizes = [sum(part.gb for part in line.memory(replace(RECIPE, cache_rows=rows, max_patches=rows // 2)))
             for rows in (1024, 2048, 4096)]
    assert sizes == sorted(sizes)
