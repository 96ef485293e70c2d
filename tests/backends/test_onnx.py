"""The ONNX Runtime engines reproduce the golden vectors, keep the contract, equal PyTorch, and never copy the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

import contract  # noqa: E402

from penguin_ros.backends.onnx import (  # noqa: E402
    OnnxCache,
    OnnxLanguageEngine,
    OnnxVisionEngine,
    load_onnx_engines,
    open_graph,
    run_golden_case,
)
from penguin_ros.backends.recipe import Recipe  # noqa: E402
from penguin_ros.cli.build import build_onnx  # noqa: E402
from penguin_ros.core.engine import KVCache  # noqa: E402
from penguin_ros.core.errors import EngineError, EngineMismatchError  # noqa: E402

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'
CASES = [(model, case['file']) for model in ('model_A', 'model_B')
         for case in json.loads((GOLDEN / model / 'cases.json').read_text())]
INPUTS = {'input_ids', 'pixel_values', 'grid_sizes', 'merge_sizes', 'greedy_min_margin'}
Engines = tuple[OnnxVisionEngine, OnnxLanguageEngine]


class Builds:
    """Engines of the golden checkpoints, built once per kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, Engines] = {}

    def folder(self, model: str, **settings: object) -> Path:
        name = '-'.join([model, *(str(value) for value in settings.values())])
        folder = self._folder / name
        if not folder.exists():
            recipe = Recipe(file=self._folder / f'{model}.yaml', checkpoint=str(GOLDEN / model),
                            **{'max_append': 32, 'cache_rows': 256, 'max_patches': 1152, **settings})
            build_onnx(recipe, folder, debug=True)
        return folder

    def engines(self, model: str, **settings: object) -> Engines:
        folder = self.folder(model, **settings)
        if folder.name not in self._engines:
            self._engines[folder.name] = load_onnx_engines(folder)
        return self._engines[folder.name]


@pytest.fixture(scope='module')
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return Builds(tmp_path_factory.mktemp('engines'))


@pytest.fixture(params=['model_A', 'model_B'])
def engines(request: pytest.FixtureRequest, builds: Builds) -> Engines:
    return builds.engines(request.param)


def read_case(model: str, file: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / model / file) as arrays:
        return dict(arrays)


@pytest.mark.parametrize('attention', ['split', 'concat'])
@pytest.mark.parametrize('model, file', CASES)
def test_every_array_of_every_golden_case_is_reproduced(builds: Builds, model: str, file: str, attention: str) -> None:
    case = read_case(model, file)
    made = run_golden_case(lambda merge: builds.engines(model, merge=merge)[0],
                           builds.engines(model, attention=attention)[1], case)
    assert case.keys() - INPUTS <= made.keys()
    for name in case.keys() - INPUTS - {'greedy_tokens'}:
        contract.assert_close(made[name], case[name])
    np.testing.assert_array_equal(made['greedy_tokens'], case['greedy_tokens'])


def test_a_golden_case_with_one_flipped_number_is_not_reproduced(builds: Builds) -> None:
    case = read_case('model_A', 'case_1.npz')
    case['pixel_values'][100, 7] += 1.0
    made = run_golden_case(lambda merge: builds.engines('model_A', merge=merge)[0], builds.engines('model_A')[1], case)
    assert np.abs(made['logits'] - case['logits']).max() > 1e-4 * np.abs(case['logits']).max()


@pytest.mark.parametrize('merge', [1, 2, 3, 4])
@pytest.mark.parametrize('model', ['model_A', 'model_B'])
def test_pytorch_gives_the_same_numbers(builds: Builds, model: str, merge: int) -> None:
    pytest.importorskip('torch', reason='needs PyTorch: pip install torch')
    from penguin_ros.backends.torch import load_torch_engines

    grid, ids = (3 * merge, 4 * merge), contract.random_ids(builds.engines(model)[1], 5)
    visual, logits = [], []
    for vision, language in (builds.engines(model, merge=merge), load_torch_engines(GOLDEN / model, merge=merge)):
        tokens = vision.encode(contract.random_patches(vision, grid), grid)
        visual.append(np.asarray(tokens.data))
        logits.append(contract.read(language, language.new_cache(32), [ids, tokens]))
    contract.assert_close(*visual)
    contract.assert_close(*logits)


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
    contract.check_cache_buffers_never_move(*engines, addresses=addresses)


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


@pytest.mark.parametrize('settings', [
    {'weights': 'safetensors'}, {'attention': 'concat'}, {'precision': 'fp16'},
    {'precision': 'fp16', 'weights': 'safetensors'}])
def test_every_kind_of_build_keeps_the_contract(builds: Builds, settings: dict[str, str]) -> None:
    half = settings.get('precision') == 'fp16'
    vision, language = builds.engines('model_A', **settings)
    contract.check_append_in_pieces_equals_reading_at_once(vision, language, 0.01 if half else contract.TOLERANCE)
    contract.check_hidden_rows_are_as_if_never_read(vision, language, 0.01 if half else contract.TOLERANCE)
    contract.check_cache_says_its_size(language, item_bytes=2 if half else 4)


def addresses(cache: KVCache) -> list[int]:
    assert isinstance(cache, OnnxCache)
    return [buffer.ctypes.data for buffer in cache.buffers]


class Watched(OnnxLanguageEngine):
    """Notes address and size of everything that is bound."""

    def __init__(self, folder: Path, spec_of: OnnxLanguageEngine) -> None:
        super().__init__(open_graph(folder / 'language.onnx'), spec_of.spec, spec_of._embeddings)
        self.bound: dict[str, tuple[int, int]] = {}

    def _bind_and_run(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        self.bound = {name: (array.ctypes.data, array.nbytes) for name, array in {**inputs, **outputs}.items()}
        super()._bind_and_run(inputs, outputs)


def test_a_call_is_bound_to_the_caches_own_rows(builds: Builds) -> None:
    language = Watched(builds.folder('model_A'), builds.engines('model_A')[1])
    cache = language.new_cache(64)
    row_bytes = language.spec.kv_heads * language.spec.head_dim * 4
    contract.read(language, cache, [contract.random_ids(language, 20)])
    for row in range(21, 30):
        contract.read(language, cache, [contract.random_ids(language, 1, row)], start=row)
        for layer, (keys, values) in enumerate(zip(cache.keys, cache.values)):
            for kind, buffer in (('k', keys), ('v', values)):
                base = buffer.ctypes.data
                assert base % 256 == 0
                assert language.bound[f'past_{kind}_{layer}'] == (base, row * row_bytes)
                assert language.bound[f'new_{kind}_{layer}'] == (base + row * row_bytes, row_bytes)


def test_new_rows_are_written_behind_the_old_ones_and_nowhere_else(engines: Engines) -> None:
    language = engines[1]
    cache = language.new_cache(40)
    contract.read(language, cache, [contract.random_ids(language, 20)])
    before = [buffer.copy() for buffer in cache.buffers]
    contract.read(language, cache, [contract.random_ids(language, 6, 1)], start=21)
    for buffer, old in zip(cache.buffers, before):
        np.testing.assert_array_equal(buffer[:21], old[:21])
        assert not buffer[0].any()
        assert buffer[21:27].any(axis=(1, 2)).all()
        assert not buffer[27:].any()


def test_what_a_token_costs_does_not_grow_with_the_caches_capacity(builds: Builds) -> None:
    language = Watched(builds.folder('model_A'), builds.engines('model_A')[1])
    sizes = []
    for capacity_rows in (64, 1024, 65536):
        cache = language.new_cache(capacity_rows)
        contract.read(language, cache, [contract.random_ids(language, 1)], start=40)
        sizes.append({name: nbytes for name, (_, nbytes) in language.bound.items()})
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize('attention, copying', [('split', set()), ('concat', {'Concat'})])
def test_no_node_copies_the_past_rows(builds: Builds, tmp_path: Path, attention: str, copying: set[str]) -> None:
    """In the graph as ONNX Runtime runs it, matrix products read the past rows themselves (a Reshape is only a view)."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'as_run.onnx')
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(builds.folder('model_A', attention=attention) / 'language.onnx'), options,
                                 providers=['CPUExecutionProvider'])
    nodes = onnx.load(tmp_path / 'as_run.onnx', load_external_data=False).graph.node
    past = {name for node in nodes for name in node.input if name.startswith('past_')}
    past |= {node.output[0] for node in nodes if node.op_type == 'Reshape' and node.input[0] in past}
    readers = {node.op_type for node in nodes if past & set(node.input)}
    assert readers - {'Reshape', 'MatMul', 'FusedMatMul', 'Shape'} == copying


def test_memory_stays_level_over_calls_of_changing_shape(builds: Builds) -> None:
    vision, language = builds.engines('model_B')
    cache = language.new_cache(256)
    generator = np.random.default_rng(0)

    def call_often() -> int:
        for _ in range(150):
            frame = contract.a_frame(vision, windows=tuple(generator.integers(1, 9, 2)))
            start, count = generator.integers(1, 180), generator.integers(1, 10)
            contract.read(language, cache, [frame, contract.random_ids(language, count)], start=start, logits_for=[0])
        return resident_bytes()

    call_often()
    before = call_often()
    assert call_often() < before + 8e6


def resident_bytes() -> int:
    statm = Path('/proc/self/statm')
    if not statm.exists():
        pytest.skip('needs /proc')
    return int(statm.read_text().split()[1]) * 4096


def test_an_engine_with_another_byte_is_not_loaded(builds: Builds, tmp_path: Path) -> None:
    for file in builds.folder('model_A').iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    load_onnx_engines(tmp_path)
    content = bytearray((tmp_path / 'language.weights').read_bytes())
    content[100] ^= 1
    (tmp_path / 'language.weights').write_bytes(content)
    with pytest.raises(EngineMismatchError, match=r'language\.weights has sha256 .* penguin build .*model_A\.yaml'):
        load_onnx_engines(tmp_path)


def test_a_cache_of_another_backend_is_refused(engines: Engines) -> None:
    class OtherCache:
        capacity_rows, row_bytes = 16, 64

    with pytest.raises(EngineError, match=r"Use this engine's new_cache"):
        contract.read(engines[1], OtherCache(), [contract.random_ids(engines[1], 2)])


def test_a_graph_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    (tmp_path / 'vision.onnx').write_bytes(b'not a graph')
    with pytest.raises(EngineError, match=r'cannot load .*vision\.onnx'):
        open_graph(tmp_path / 'vision.onnx')
