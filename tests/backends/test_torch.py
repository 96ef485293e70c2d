"""The PyTorch engines keep the contract and reproduce the golden vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs PyTorch: pip install torch')

import contract  # noqa: E402

from penguin_ros.backends.torch import (  # noqa: E402
    TorchLanguageEngine,
    TorchVisionEngine,
    load_torch_engines,
    run_golden_case,
)
from penguin_ros.core.errors import CheckpointError, EngineError  # noqa: E402
from penguin_ros.model.checkpoint import load_model  # noqa: E402
from penguin_ros.model.definition import PenguinVL  # noqa: E402

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'
CASES = [(model, case['file']) for model in ('model_A', 'model_B')
         for case in json.loads((GOLDEN / model / 'cases.json').read_text())]
INPUTS = {'input_ids', 'pixel_values', 'grid_sizes', 'merge_sizes', 'greedy_min_margin'}
Engines = tuple[TorchVisionEngine, TorchLanguageEngine]


@pytest.fixture(scope='module', params=['model_A', 'model_B'])
def engines(request: pytest.FixtureRequest) -> Engines:
    return load_torch_engines(GOLDEN / request.param, max_append=32)


@pytest.fixture(scope='module')
def models() -> dict[str, PenguinVL]:
    return {name: load_model(GOLDEN / name) for name in ('model_A', 'model_B')}


def read_case(model: str, file: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / model / file) as arrays:
        return dict(arrays)


@pytest.mark.parametrize('model, file', CASES)
def test_every_array_of_every_golden_case_is_reproduced(models: dict[str, PenguinVL], model: str, file: str) -> None:
    case = read_case(model, file)
    made = run_golden_case(models[model], case)
    assert case.keys() - INPUTS <= made.keys()
    for name in case.keys() - INPUTS - {'greedy_tokens'}:
        contract.assert_close(made[name], case[name])
    np.testing.assert_array_equal(made['greedy_tokens'], case['greedy_tokens'])


@pytest.mark.parametrize('model, file', CASES)
def test_the_engines_alone_reproduce_the_golden_cases(models: dict[str, PenguinVL], model: str, file: str) -> None:
    network = models[model]
    contract.check_golden_case(
        lambda merge: TorchVisionEngine(network, merge=merge), TorchLanguageEngine(network, max_append=16),
        read_case(model, file), row_of_tokens=lambda tokens: tokens.data.numpy())


def test_a_golden_case_with_one_flipped_number_is_not_reproduced(models: dict[str, PenguinVL]) -> None:
    case = read_case('model_A', 'case_1.npz')
    case['pixel_values'][100, 7] += 1.0
    made = run_golden_case(models['model_A'], case)
    assert np.abs(made['logits'] - case['logits']).max() > 1e-4 * np.abs(case['logits']).max()


def test_a_golden_case_with_a_placeholder_too_many_says_so(models: dict[str, PenguinVL]) -> None:
    case = read_case('model_A', 'case_0.npz')
    case['input_ids'][0, -1] = models['model_A'].config.image_token_id
    with pytest.raises(EngineError, match=r'the prompt has 49 placeholders .* and the frames have 48 visual tokens'):
        run_golden_case(models['model_A'], case)


def test_a_golden_case_whose_grids_do_not_fit_its_patches_says_so(models: dict[str, PenguinVL]) -> None:
    case = read_case('model_A', 'case_1.npz')
    case['grid_sizes'] = case['grid_sizes'][:-1]
    case['merge_sizes'] = case['merge_sizes'][:-1]
    with pytest.raises(EngineError, match=r'the grids need \d+ patches and 224 are there'):
        run_golden_case(models['model_A'], case)


def test_appending_in_pieces_equals_reading_at_once(engines: Engines) -> None:
    contract.check_append_in_pieces_equals_reading_at_once(*engines)


def test_prompts_longer_than_one_call_are_cut(engines: Engines) -> None:
    contract.check_prompts_longer_than_one_call_are_cut(engines[1])


def test_setting_start_back_forgets_what_came_after(engines: Engines) -> None:
    contract.check_setting_start_back_forgets_what_came_after(*engines)


def test_hidden_rows_are_as_if_never_read(engines: Engines) -> None:
    contract.check_hidden_rows_are_as_if_never_read(*engines)


def test_moved_rows_answer_as_before(engines: Engines) -> None:
    contract.check_moved_rows_answer_as_before(*engines)


def test_logits_come_for_the_rows_asked_for(engines: Engines) -> None:
    contract.check_logits_come_for_the_rows_asked_for(engines[1])


def test_cache_buffers_never_move(engines: Engines) -> None:
    contract.check_cache_buffers_never_move(*engines, addresses=lambda cache: cache.addresses())


def test_row_0_stays_zero_and_rows_before_start_stay_as_they_were(engines: Engines) -> None:
    language = engines[1]
    cache = language.new_cache(32)
    contract.read(language, cache, [contract.random_ids(language, 10)])
    before = [[buffer[:6].clone() for buffer in layer] for layer in cache.layers]
    contract.read(language, cache, [contract.random_ids(language, 10, 1)], start=6)
    for layer, layer_before in zip(cache.layers, before):
        for buffer, buffer_before in zip(layer, layer_before):
            assert torch.equal(buffer[:6], buffer_before)
            assert not buffer[0].any()


def test_the_cache_says_its_size(engines: Engines) -> None:
    contract.check_cache_says_its_size(engines[1], item_bytes=4)


def test_inputs_are_not_changed(engines: Engines) -> None:
    contract.check_inputs_are_not_changed(*engines)


def test_frames_do_not_depend_on_each_other(engines: Engines) -> None:
    contract.check_frames_do_not_depend_on_each_other(*engines)


def test_streams_do_not_share_rows(engines: Engines) -> None:
    contract.check_streams_do_not_share_rows(engines[1])


def test_patches_that_do_not_fit_are_refused(engines: Engines) -> None:
    contract.check_patches_that_do_not_fit_are_refused(engines[0])


def test_appends_that_cannot_be_are_refused(engines: Engines) -> None:
    contract.check_appends_that_cannot_be_are_refused(*engines)


def test_placeholders_without_visual_tokens_are_refused(engines: Engines) -> None:
    contract.check_placeholders_without_visual_tokens_are_refused(engines[1])


def test_visual_tokens_of_another_backend_are_refused(engines: Engines) -> None:
    contract.check_visual_tokens_of_another_backend_are_refused(engines[1])


def test_a_cache_of_another_backend_is_refused(engines: Engines) -> None:
    class OtherCache:
        capacity_rows, row_bytes = 16, 64

    with pytest.raises(EngineError, match=r"Use this engine's new_cache"):
        contract.read(engines[1], OtherCache(), [contract.random_ids(engines[1], 2)])


@pytest.mark.parametrize('merge', [1, 2, 3, 4])
def test_merge_is_chosen_per_vision_engine(merge: int) -> None:
    vision, language = load_torch_engines(GOLDEN / 'model_B', merge=merge)
    assert vision.spec.token_px == 14 * merge
    assert contract.a_frame(vision, windows=(2, 3)).count == 6
    contract.check_append_in_pieces_equals_reading_at_once(vision, language)


@pytest.mark.parametrize('dtype, tolerance', [('bfloat16', 0.05), ('float16', 0.01)])
def test_half_precision_keeps_the_contract_within_its_rounding(dtype: str, tolerance: float) -> None:
    vision, language = load_torch_engines(GOLDEN / 'model_A', dtype=dtype)
    contract.check_cache_says_its_size(language, item_bytes=2)
    contract.check_append_in_pieces_equals_reading_at_once(vision, language, tolerance)
    contract.check_hidden_rows_are_as_if_never_read(vision, language, tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
@pytest.mark.parametrize('model, file', CASES)
def test_a_cuda_gpu_reproduces_the_golden_cases(model: str, file: str) -> None:
    case = read_case(model, file)
    made = run_golden_case(load_model(GOLDEN / model, device='cuda'), case)
    for name in case.keys() - INPUTS:
        contract.assert_close(made[name], case[name])


@pytest.mark.parametrize('wrong, text', [
    ({'dtype': 'int3'}, 'one of float32, float16, bfloat16'), ({'device': 'tpu'}, 'Use device auto or cpu'),
    ({'device': 'cuda:99' if torch.cuda.is_available() else 'cuda'}, 'cpu|smaller dtype')])
def test_a_device_or_type_that_is_not_there_is_named(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        load_torch_engines(GOLDEN / 'model_A', **wrong)


def test_a_gpu_is_taken_where_there_is_one() -> None:
    _, language = load_torch_engines(GOLDEN / 'model_A', device='auto')
    cache = language.new_cache(8)
    assert {buffer.is_cuda for layer in cache.layers for buffer in layer} == {torch.cuda.is_available()}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'nowhere/config\.json does not exist'):
        load_torch_engines(tmp_path / 'nowhere')
