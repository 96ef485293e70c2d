"""The TensorRT engines' own code on a machine without a GPU: the same ONNX file, run by a fake TensorRT on a fake GPU."""

from __future__ import annotations

import gc
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

import contract  # noqa: E402
import fake_tensorrt  # noqa: E402
from fake_gpu import memory_at  # noqa: E402
from tensorrt_rig import ALIGNED, Builds, Gpu, backend, fake_library, fresh_library, shared_builds  # noqa: E402, F401

from penguin_ros.assemble import assemble  # noqa: E402
from penguin_ros.backends.onnx import load_onnx_engines  # noqa: E402
from penguin_ros.backends.recipe import Recipe  # noqa: E402
from penguin_ros.backends.stopwatch import measure_steps  # noqa: E402
from penguin_ros.cli.build import build_tensorrt  # noqa: E402
from penguin_ros.cli.main import main  # noqa: E402
from penguin_ros.core.config import CameraConfig, read_config  # noqa: E402
from penguin_ros.core.engine import VisualTokens  # noqa: E402
from penguin_ros.core.errors import EngineError, EngineMismatchError  # noqa: E402
from penguin_ros.core.frame import Frame, Region  # noqa: E402
from penguin_ros.core.health import CameraHealth, Health  # noqa: E402
from penguin_ros.core.scene import Question  # noqa: E402
from penguin_ros.core.worker import Inquiry  # noqa: E402

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'


class Loaded:
    """A pair of engines on a GPU of their own."""

    def __init__(self, folder: Path, **gpu: Any) -> None:
        self.gpu = Gpu(**gpu)
        fake_tensorrt.machine = self.gpu
        self.vision, self.language = backend().load_tensorrt_engines(folder, gpu=self.gpu)

    @property
    def both(self) -> tuple[Any, Any]:
        return self.vision, self.language


@pytest.fixture(params=['aligned', 'odd'])
def loaded(request: pytest.FixtureRequest, builds: Builds) -> Iterator[Loaded]:
    loaded = Loaded(builds.folder('tensorrt', request.param))
    yield loaded
    loaded.language.close()


@pytest.fixture
def aligned(builds: Builds) -> Iterator[Loaded]:
    loaded = Loaded(builds.folder('tensorrt', 'aligned'))
    yield loaded
    loaded.language.close()


# -- the contract of core/engine.py ------------------------------------------------------------------------------------

def test_appending_in_pieces_equals_reading_at_once(loaded: Loaded) -> None:
    contract.check_append_in_pieces_equals_reading_at_once(*loaded.both)


def test_prompts_longer_than_one_call_are_cut(loaded: Loaded) -> None:
    contract.check_prompts_longer_than_one_call_are_cut(loaded.language)


def test_setting_start_back_forgets_what_came_after(loaded: Loaded) -> None:
    contract.check_setting_start_back_forgets_what_came_after(*loaded.both)


def test_hidden_rows_are_as_if_never_read(loaded: Loaded) -> None:
    contract.check_hidden_rows_are_as_if_never_read(*loaded.both)


def test_moved_rows_answer_as_before(loaded: Loaded) -> None:
    contract.check_moved_rows_answer_as_before(*loaded.both)


def test_logits_come_for_the_rows_asked_for(loaded: Loaded) -> None:
    contract.check_logits_come_for_the_rows_asked_for(loaded.language)


def test_cache_buffers_never_move(loaded: Loaded) -> None:
    contract.check_cache_buffers_never_move(*loaded.both, addresses=lambda cache: cache.addresses)


def test_the_cache_says_its_size(loaded: Loaded) -> None:
    contract.check_cache_says_its_size(loaded.language, item_bytes=4)


def test_inputs_are_not_changed(loaded: Loaded) -> None:
    contract.check_inputs_are_not_changed(*loaded.both)


def test_frames_do_not_depend_on_each_other(loaded: Loaded) -> None:
    contract.check_frames_do_not_depend_on_each_other(*loaded.both)


def test_streams_do_not_share_rows(loaded: Loaded) -> None:
    contract.check_streams_do_not_share_rows(loaded.language)


def test_patches_that_do_not_fit_are_refused(loaded: Loaded) -> None:
    contract.check_patches_that_do_not_fit_are_refused(loaded.vision)


def test_appends_that_cannot_be_are_refused(loaded: Loaded) -> None:
    contract.check_appends_that_cannot_be_are_refused(*loaded.both)


def test_placeholders_without_visual_tokens_are_refused(loaded: Loaded) -> None:
    contract.check_placeholders_without_visual_tokens_are_refused(loaded.language)


def test_visual_tokens_of_another_backend_are_refused(loaded: Loaded) -> None:
    contract.check_visual_tokens_of_another_backend_are_refused(loaded.language)


def test_float16_engines_keep_the_contract(builds: Builds) -> None:
    loaded = Loaded(builds.folder('tensorrt', 'aligned', precision='fp16'))
    contract.check_append_in_pieces_equals_reading_at_once(*loaded.both, 0.01)
    contract.check_hidden_rows_are_as_if_never_read(*loaded.both, 0.01)
    contract.check_moved_rows_answer_as_before(*loaded.both, 0.01)
    contract.check_cache_says_its_size(loaded.language, item_bytes=2)


@pytest.mark.parametrize('settings', [{'attention': 'concat'}, {'weights': 'safetensors'}])
def test_every_kind_of_graph_keeps_the_contract(builds: Builds, settings: dict[str, str]) -> None:
    contract.check_append_in_pieces_equals_reading_at_once(*Loaded(builds.folder('tensorrt', 'aligned', **settings)).both)


def test_onnx_runtime_gives_the_same_numbers(loaded: Loaded, builds: Builds) -> None:
    model = 'aligned' if loaded.language.spec.width == ALIGNED.decoder.width else 'odd'
    logits = []
    for vision, language in (loaded.both, load_onnx_engines(builds.folder('onnx', model))):
        pieces = [contract.random_ids(language, 5), contract.a_frame(vision), contract.random_ids(language, 9, 1)]
        logits.append(contract.read(language, language.new_cache(64), pieces))
    contract.assert_close(*logits, tolerance=1e-5)


@pytest.mark.parametrize('model', ['model_A', 'model_B'])
def test_golden_cases_are_reproduced_by_engines_of_several_merges_on_one_gpu(tmp_path: Path, model: str) -> None:
    fake_tensorrt.machine = gpu = Gpu()
    engines: dict[int, tuple[Any, Any]] = {}

    def engines_for(merge: int) -> tuple[Any, Any]:
        if merge not in engines:
            recipe = Recipe(file=tmp_path / 'golden.yaml', checkpoint=str(GOLDEN / model), backend='tensorrt', max_append=32,
                            cache_rows=256, max_patches=1152, merge=merge)
            build_tensorrt(recipe, tmp_path / str(merge), gpu=gpu, timing_folder=tmp_path)
            engines[merge] = backend().load_tensorrt_engines(tmp_path / str(merge), gpu=gpu)
        return engines[merge]

    for file in ('case_0.npz', 'case_1.npz'):
        with np.load(GOLDEN / model / file) as arrays:
            case = dict(arrays)
        made = backend().run_golden_case(lambda merge: engines_for(merge)[0], engines_for(2)[1], case)
        assert {'logits', 'greedy_tokens', 'greedy_logits'} <= made.keys()
        for name in made.keys() & case.keys() - {'greedy_tokens'}:
            contract.assert_close(made[name], case[name])
        np.testing.assert_array_equal(made['greedy_tokens'], case['greedy_tokens'])
    for vision, _ in engines.values():
        vision.close()
    assert gpu.held_bytes == 0


def test_penguin_verify_builds_engines_for_the_cases_and_checks_them(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What a field engineer runs first on a new Jetson."""
    fake_tensorrt.machine = gpu = Gpu()
    for name in ('tensorrt', 'tensorrt_build'):
        monkeypatch.setattr(importlib.import_module(f'penguin_ros.backends.{name}'), 'the_gpu', lambda: gpu)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert main(['verify', str(GOLDEN), '--backend', 'tensorrt', '--only', 'model_A']) == 0
    assert '(models on tensorrt)' in capsys.readouterr().out
    assert len(list((tmp_path / 'penguin_ros').glob('*.timing'))) == 1


# -- where things lie --------------------------------------------------------------------------------------------------

def test_a_frames_tokens_are_read_where_the_vision_engine_wrote_them(aligned: Loaded) -> None:
    vision, language, gpu = aligned.vision, aligned.language, aligned.gpu
    cache = language.new_cache(200)
    frame = contract.a_frame(vision, windows=(5, 8))        # 40 tokens: two calls
    gpu.calls.clear()
    contract.read(language, cache, [contract.random_ids(language, 12), frame], logits_for=[])
    assert gpu.calls == {'upload': 2, 'copy': 1, 'run': 2}      # the copy brings the 12 words in front of the frame
    gpu.calls.clear()
    contract.read(language, cache, [frame], start=53, logits_for=[])
    assert gpu.calls == {'upload': 2, 'run': 2}


def test_a_frame_read_again_behind_other_words_is_the_same_frame(aligned: Loaded) -> None:
    vision, language = aligned.both
    frame, fresh = contract.a_frame(vision, 3), contract.a_frame(vision, 3)
    contract.read(language, language.new_cache(64), [contract.random_ids(language, 20, 1), frame])
    words = contract.random_ids(language, 7, 2)
    again = contract.read(language, language.new_cache(64), [words, frame])
    contract.assert_close(again, contract.read(language, language.new_cache(64), [words, fresh]), 1e-6)


def test_words_too_many_for_the_room_before_a_frame_are_copied_together_with_it(aligned: Loaded) -> None:
    vision, language = aligned.both
    frame, words = contract.a_frame(vision, 3), contract.random_ids(language, 60)
    together = contract.read(language, language.new_cache(128), [words, frame])
    cache = language.new_cache(128)
    apart = [contract.read(language, cache, [words]), contract.read(language, cache, [frame], start=61)]
    contract.assert_close(together, np.concatenate(apart))


def test_a_token_costs_one_copy_in_one_run_and_one_copy_out(aligned: Loaded) -> None:
    language, gpu = aligned.language, aligned.gpu
    cache = language.new_cache(64)
    contract.read(language, cache, [contract.random_ids(language, 9)])
    for row in range(10, 14):
        gpu.calls.clear()
        waits = gpu.waits
        contract.read(language, cache, [contract.random_ids(language, 1, row)], start=row)
        assert gpu.calls == {'upload': 1, 'run': 1, 'download': 1}
        assert gpu.waits == waits + 1


def test_the_host_waits_only_where_logits_are_wanted(aligned: Loaded) -> None:
    vision, language, gpu = aligned.vision, aligned.language, aligned.gpu
    cache = language.new_cache(128)
    waits = gpu.waits
    frame = contract.a_frame(vision)
    contract.read(language, cache, [contract.random_ids(language, 5), frame], logits_for=[])
    assert gpu.waits == waits
    contract.read(language, cache, [contract.random_ids(language, 5)], start=12, logits_for=[4])
    assert gpu.waits == waits + 1


def test_the_steps_of_a_tick_can_be_timed(aligned: Loaded) -> None:
    steps = measure_steps(*aligned.both, grid=(4, 6), kept_rows=40, cache_rows=128, repeats=2)
    assert min(steps.prefill_ms, steps.token_ms, steps.verify_ms, steps.host_ms) > 0


def test_what_is_bound_already_is_not_bound_again(aligned: Loaded) -> None:
    language = aligned.language
    cache = language.new_cache(64)
    for row in range(1, 4):
        fake_tensorrt.calls.clear()
        contract.read(language, cache, [contract.random_ids(language, 1, row)], start=row)
    layers = language.spec.layers
    # In a decode step the past grows and new rows go one further; all else lies where it lay.
    assert fake_tensorrt.calls.count('set_tensor_address') == 2 * layers
    assert fake_tensorrt.calls.count('set_optimization_profile_async') == 0


def test_profiles_are_changed_only_when_the_next_call_needs_another(aligned: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    language = aligned.language
    chosen: list[int] = []
    change = fake_tensorrt.IExecutionContext.set_optimization_profile_async
    monkeypatch.setattr(fake_tensorrt.IExecutionContext, 'set_optimization_profile_async',
                        lambda self, index, stream: (chosen.append(index), change(self, index, stream))[1])
    cache = language.new_cache(200)
    row = 1
    for count in (20, 32, 17, 1, 1, 1, 16, 2, 1, 20):
        contract.read(language, cache, [contract.random_ids(language, count)], start=row, logits_for=[count - 1])
        row += count
    assert chosen == [2, 0, 1, 0, 2]
    assert [profile.name for profile in language._profiles] == ['decode', 'verify', 'prefill']


def test_more_logits_than_one_call_gives_are_read_in_several(aligned: Loaded) -> None:
    calls_for = backend().calls_for
    assert list(calls_for(40, np.array([39]), most_rows=32, most_logits=16)) == [(0, 32), (32, 40)]
    assert list(calls_for(40, np.arange(40), most_rows=32, most_logits=16)) == [(0, 16), (16, 32), (32, 40)]
    assert list(calls_for(40, np.array([3] * 50), most_rows=32, most_logits=16)) == [(0, 32), (32, 40)]
    assert list(calls_for(0, np.array([]), most_rows=32, most_logits=16)) == []
    language = aligned.language
    ids = contract.random_ids(language, 20)
    every = contract.read(language, language.new_cache(32), [ids])
    odd_order = contract.read(language, language.new_cache(32), [ids], logits_for=[19, 3, 3, 0])
    contract.assert_close(odd_order, every[[19, 3, 3, 0]])


def test_nothing_is_ever_empty_for_tensorrt(aligned: Loaded) -> None:
    for profile in (*aligned.language._profiles,):
        assert all(low >= 1 for low, _, _ in profile.dims.values())
        low, usual, high = ({name: sizes[corner] for name, sizes in profile.dims.items()} for corner in range(3))
        assert all(corner['S'] == corner['P'] + corner['T'] for corner in (low, usual, high))


# -- memory ------------------------------------------------------------------------------------------------------------

def test_memory_of_frames_and_caches_let_go_of_is_used_again(aligned: Loaded) -> None:
    vision, language, gpu = aligned.vision, aligned.language, aligned.gpu
    generator = np.random.default_rng(0)

    def work() -> None:
        cache = language.new_cache(128)
        for _ in range(20):
            windows = tuple(generator.integers(1, 8, 2))
            contract.read(language, cache, [contract.random_ids(language, 6), contract.a_frame(vision, windows=windows)],
                          logits_for=[0])

    work()
    gc.collect()
    held = gpu.held_bytes
    for _ in range(3):
        work()
        gc.collect()
    assert gpu.held_bytes == held


def test_frames_may_be_let_go_of_in_any_thread(aligned: Loaded) -> None:
    frames = [contract.a_frame(aligned.vision, seed) for seed in range(3)]
    thread = threading.Thread(target=frames.clear)
    thread.start()
    thread.join()
    gc.collect()
    held = aligned.gpu.held_bytes
    kept = [contract.a_frame(aligned.vision, seed) for seed in range(3)]
    assert aligned.gpu.held_bytes == held
    assert len(kept) == 3


def test_idle_memory_is_given_back_before_a_call_fails_for_lack_of_it(builds: Builds) -> None:
    loaded = Loaded(builds.folder('tensorrt', 'aligned'))
    vision, language, gpu = loaded.vision, loaded.language, loaded.gpu
    frames = [contract.a_frame(vision, seed) for seed in range(10)]
    gpu.limit_bytes = gpu.held_bytes + 100_000
    del frames
    gc.collect()
    cache = language.new_cache(256)             # larger than any idle block and than what is left
    assert contract.read(language, cache, [contract.random_ids(language, 3)]).shape == (3, 300)


def test_closing_gives_everything_back_and_what_was_made_is_refused(builds: Builds) -> None:
    loaded = Loaded(builds.folder('tensorrt', 'aligned'))
    vision, language, gpu = loaded.vision, loaded.language, loaded.gpu
    cache, frame = language.new_cache(64), contract.a_frame(vision)
    contract.read(language, cache, [frame], logits_for=[])
    language.close()
    vision.close()      # both may
    assert gpu.held_bytes == gpu.held_host_bytes == 0
    with pytest.raises(EngineError, match='Configure the node again'):
        contract.read(language, cache, [contract.random_ids(language, 1)])
    with pytest.raises(EngineError, match='Configure the node again'):
        contract.a_frame(vision)
    again_vision, again_language = backend().load_tensorrt_engines(builds.folder('tensorrt', 'aligned'), gpu=gpu)
    with pytest.raises(EngineError, match='Encode the frame with the vision engine of the same model'):
        contract.read(again_language, again_language.new_cache(64), [frame])
    with pytest.raises(EngineError, match="Use this engine's new_cache"):
        contract.read(again_language, cache, [contract.a_frame(again_vision)])
    again_language.close()


def test_loading_that_fails_half_way_gives_everything_back(builds: Builds) -> None:
    folder = builds.folder('tensorrt', 'aligned')
    gpu = Gpu(limit_bytes=400_000)
    fake_tensorrt.machine = gpu
    with pytest.raises(EngineError, match='no room left'):
        backend().load_tensorrt_engines(folder, gpu=gpu)
    assert gpu.held_bytes == gpu.held_host_bytes == 0
    fake_tensorrt.fail_next.add('create_execution_context')
    gpu.limit_bytes = 1 << 40
    with pytest.raises(EngineError, match=r'no execution context.*lower max_append, cache_rows or max_patches'):
        backend().load_tensorrt_engines(folder, gpu=gpu)
    assert gpu.held_bytes == 0
    backend().load_tensorrt_engines(folder, gpu=gpu)[0].close()


def test_a_cache_larger_than_the_engine_was_built_for_is_refused(aligned: Loaded) -> None:
    with pytest.raises(EngineError, match=r'built for 256 at most.*raise cache_rows'):
        aligned.language.new_cache(257)


def test_no_cache_row_is_nan_that_a_hidden_row_could_spread(aligned: Loaded) -> None:
    language, gpu = aligned.language, aligned.gpu
    cache = language.new_cache(64)
    with gpu.current():
        gpu.synchronize()
    assert not memory_at(cache.block.address, cache.block.nbytes).any()
    contract.read(language, cache, [contract.random_ids(language, 20)])
    for base in cache.addresses:
        rows = memory_at(base, 64 * cache.buffer_row_bytes).view(np.float32).reshape(64, -1)
        assert not rows[0].any()
        assert rows[1:21].any(axis=1).all()
        assert not rows[21:].any()


# -- threads -----------------------------------------------------------------------------------------------------------

def test_engines_loaded_in_one_thread_work_in_another_and_close_in_a_third(builds: Builds) -> None:
    made: dict[str, Any] = {}

    def load() -> None:
        made['loaded'] = Loaded(builds.folder('tensorrt', 'aligned'))

    def work() -> None:
        vision, language = made['loaded'].both
        made['logits'] = contract.read(language, language.new_cache(64), [contract.a_frame(vision)])

    for step in (load, work, work, lambda: made['loaded'].language.close()):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert made['logits'].shape == (6, 300)
    assert made['loaded'].gpu.thread is None
    assert made['loaded'].gpu.held_bytes == 0


def test_two_threads_take_turns(aligned: Loaded) -> None:
    language = aligned.language
    caches = [language.new_cache(128) for _ in range(2)]
    needed = [contract.read(language, language.new_cache(128), [contract.random_ids(language, 60, seed)]) for seed in range(2)]
    found: list[Any] = [None, None]

    def work(seed: int) -> None:
        ids = contract.random_ids(language, 60, seed)
        found[seed] = np.concatenate([contract.read(language, caches[seed], [ids[begin:begin + 6]], start=1 + begin)
                                      for begin in range(0, 60, 6)])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, needed):
        contract.assert_close(one, other)


# -- what can fail -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('call', ['set_optimization_profile_async', 'set_input_shape', 'set_tensor_address',
                                  'execute_async_v3'])
def test_a_call_that_tensorrt_refuses_is_an_error_and_the_next_works(aligned: Loaded, call: str) -> None:
    vision, language = aligned.both
    ids, cache = contract.random_ids(language, 20), language.new_cache(64)
    needed = contract.read(language, language.new_cache(64), [ids])
    for work in (lambda: contract.read(language, cache, [ids[:1]]), lambda: contract.a_frame(vision)):
        fake_tensorrt.fail_next.add(call)
        if call == 'set_optimization_profile_async':
            language._engine._profile = vision._engine._profile = None
        if call in ('set_input_shape', 'set_tensor_address'):
            language._engine._profile = vision._engine._profile = None      # otherwise nothing may need to be set
        with pytest.raises(EngineError, match=rf'{call}: Error Code 3.*start the node anew.*penguin doctor'):
            work()
        assert not fake_tensorrt.fail_next
        contract.assert_close(contract.read(language, cache, [ids]), needed, 1e-6)
        assert contract.a_frame(vision).count == 6


def test_after_a_failure_everything_is_bound_anew(aligned: Loaded) -> None:
    language = aligned.language
    cache = language.new_cache(64)
    contract.read(language, cache, [contract.random_ids(language, 1)])
    fake_tensorrt.fail_next.add('execute_async_v3')
    with pytest.raises(EngineError):
        contract.read(language, cache, [contract.random_ids(language, 1)], start=2)
    fake_tensorrt.calls.clear()
    contract.read(language, cache, [contract.random_ids(language, 1)], start=2)
    assert fake_tensorrt.calls.count('set_optimization_profile_async') == 1
    assert fake_tensorrt.calls.count('set_tensor_address') == 6 + 4 * language.spec.layers


def test_running_out_of_memory_is_an_error_and_the_next_call_works(aligned: Loaded) -> None:
    vision, language, gpu = aligned.vision, aligned.language, aligned.gpu
    gpu.limit_bytes = gpu.held_bytes
    with pytest.raises(EngineError, match='no room left'):
        vision.encode(contract.random_patches(vision, (16, 16)), (16, 16))
    with pytest.raises(EngineError, match='no room left'):
        language.new_cache(256)
    gpu.limit_bytes = 1 << 40
    assert contract.read(language, language.new_cache(256), [contract.a_frame(vision, windows=(8, 8))]).shape == (64, 300)


def test_a_call_interrupted_in_the_middle_leaves_nothing_half_done(aligned: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    language, gpu = aligned.language, aligned.gpu
    ids, cache = contract.random_ids(language, 40), language.new_cache(64)
    needed = contract.read(language, language.new_cache(64), [ids])
    run, left = language._engine.run, [1]

    def run_once(*args: Any) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        run(*args)

    monkeypatch.setattr(language._engine, 'run', run_once)
    with pytest.raises(KeyboardInterrupt):
        contract.read(language, cache, [ids], logits_for=[39])
    assert gpu.thread is None
    assert not gpu._queue       # the host has waited, so nothing reads inputs that the next call writes
    monkeypatch.setattr(language._engine, 'run', run)
    contract.assert_close(contract.read(language, cache, [ids]), needed, 1e-6)


def test_the_reason_comes_from_tensorrts_own_log_and_goes_to_ours(caplog: pytest.LogCaptureFixture) -> None:
    context = importlib.import_module('penguin_ros.backends.tensorrt_context')
    said = context.TensorRTLog(logging.getLogger('engines'))
    with caplog.at_level(logging.DEBUG, 'engines'):
        for severity in fake_tensorrt.Severity:
            said.log(severity, f'a {severity.name} message.')
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ('ERROR', 'TensorRT: a INTERNAL_ERROR message.'), ('ERROR', 'TensorRT: a ERROR message.'),
        ('WARNING', 'TensorRT: a WARNING message.'), ('DEBUG', 'TensorRT: a INFO message.')]
    assert said.reason() == ': a ERROR message.'
    assert said.reason() == ' without saying why.'


def test_an_address_that_is_not_aligned_is_refused_before_tensorrt_sees_it(aligned: Loaded) -> None:
    engine = aligned.vision._engine
    with aligned.gpu.current(), pytest.raises(EngineError, match=r'visual would lie at 0x.*please report'):
        engine.run(0, {}, {'visual': 0x1234_5678}, aligned.gpu.stream)


def test_tensorrt_8_is_refused_with_what_to_install(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    class OldFlags:
        EXPLICIT_BATCH = 0

    monkeypatch.setattr(fake_tensorrt, 'NetworkDefinitionCreationFlag', OldFlags)
    monkeypatch.setattr(fake_tensorrt, '__version__', '8.6.1')
    with pytest.raises(EngineError, match=r'TensorRT 8\.6\.1; 10\.3 .* Install JetPack 6\.2'):
        backend().load_tensorrt_engines(builds.folder('tensorrt', 'aligned'), gpu=Gpu())


def test_tensorrt_that_cannot_be_started_is_named(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = builds.folder('tensorrt', 'aligned')
    fake_tensorrt.machine = gpu = Gpu()

    def nothing(logger: Any) -> None:
        raise TypeError('pybind11::init(): factory function returned nullptr')
    monkeypatch.setattr(fake_tensorrt, 'Runtime', nothing)
    with pytest.raises(EngineError, match=r'cannot be started.*penguin doctor'):
        backend().load_tensorrt_engines(folder, gpu=gpu)


# -- the whole way -----------------------------------------------------------------------------------------------------

def test_whole_captions_and_answers_are_those_of_onnx_runtime(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames in, captions, drafted captions, an answer, a choice and a closer look out, through all of the node's own code."""
    spoken = []
    for kind in ('onnx', 'tensorrt'):
        folder = builds.folder(kind, 'aligned', cache_rows=512)
        gpu = Gpu()
        fake_tensorrt.machine = gpu
        if kind == 'tensorrt':
            monkeypatch.setattr(backend(), 'the_gpu', lambda gpu=gpu: gpu)
        spoken.append(watch_and_ask(folder))
        assert gpu.held_bytes == gpu.held_host_bytes == 0
    assert spoken[0] == spoken[1]
    assert len({text for text in spoken[0] if text}) > 4
    assert fake_tensorrt.calls.count('execute_async_v3') > 50


def watch_and_ask(folder: Path) -> list[str]:
    log, health = logging.getLogger('test'), Health()
    config = read_config({
        'engine': str(folder), 'cameras': ['front', 'rear'], 'token_budget.window_tokens': 96, 'window.frames': 3,
        'caption.max_new_tokens': 24, 'ask.max_new_tokens': 12, 'ask.max_prompt_tokens': 96, 'ask.detail_tokens': 48})
    with health.held():
        health.cameras = {name: CameraHealth() for name in config.cameras}
    perception = assemble(config, [CameraConfig(name=name) for name in config.cameras], health, log)
    said = []
    for second in range(1, 7):
        for camera in config.cameras:
            pixels = np.random.default_rng(second // 2).integers(0, 255, (6, 8, 3), np.uint8).repeat(28, 0).repeat(28, 1)
            scene = perception.look(Frame(pixels, second * 10**9, 'lens', camera, time.monotonic()))
            said.append(scene.caption)
    for question in (Question(text='What?'), Question(text='Is it?', choices=('yes', 'no', 'a crate')),
                     Question(text='', region=Region(20, 20, 120, 90)), Question(text='Then?', stamp_ns=3 * 10**9)):
        answer = perception.answer(Inquiry(question, time.monotonic(), time.monotonic() + 60))
        said.append(answer.text)
    perception.close()
    return said


# -- engines that are not ours -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('name, value, text', [
    ('__version__', '10.16.1.11', r'tensorrt 10\.3\.0 \(here 10\.16\.1\.11\)'), ('name', 'Thor', r'gpu Orin \(here Thor\)'),
    ('driver_version', '13.2', r'cuda_driver 12\.6 \(here 13\.2\)'), ('multiprocessors', 8, r'multiprocessors 16 \(here 8\)'),
    ('compute_capability', '8.6', r'compute_capability 8\.7 \(here 8\.6\)')])
def test_engines_built_elsewhere_are_refused_before_they_are_deserialised(
        builds: Builds, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, text: str) -> None:
    folder = builds.folder('tensorrt', 'aligned')
    gpu = Gpu()
    fake_tensorrt.machine = gpu
    monkeypatch.setattr(fake_tensorrt if name == '__version__' else gpu, name, value)
    with pytest.raises(EngineMismatchError, match=rf'{text}.*penguin build .*aligned\.yaml'):
        backend().load_tensorrt_engines(folder, gpu=gpu)
    assert 'deserialize_cuda_engine' not in fake_tensorrt.calls


@pytest.mark.parametrize('change, text', [
    (lambda engine: engine.profiles[0]['mask'][2].__setitem__(1, 7), 'profile decode takes other shapes of mask'),
    (lambda engine: engine.profiles.pop(), 'has 2 profiles, not 3'),
    (lambda engine: engine.ports.pop('new_v_1'), 'new_v_1 is missing'),
    (lambda engine: engine.ports.update(extra=engine.ports['mask']), 'extra is not expected'),
    (lambda engine: setattr(engine.ports['mask'][0], 'dtype', fake_tensorrt.DataType.HALF),
     r'mask is float16 \[-1, -1\], not float32'),
    (lambda engine: setattr(engine.ports['past_k_0'][0], 'shape', (-1, 8, 32)), r'past_k_0 is float32 \[-1, 8, 32\], not'),
    (lambda engine: setattr(type(engine), 'get_tensor_location', lambda self, name: fake_tensorrt.TensorLocation.HOST),
     'is wanted in host memory')])
def test_an_engine_with_other_inputs_than_its_manifest_says_is_refused(
        builds: Builds, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], text: str) -> None:
    folder = builds.folder('tensorrt', 'aligned')
    load = fake_tensorrt.Runtime.deserialize_cuda_engine
    monkeypatch.setattr(fake_tensorrt.ICudaEngine, 'get_tensor_location', fake_tensorrt.ICudaEngine.get_tensor_location)

    def changed(self: Any, content: Any) -> Any:
        engine = load(self, content)
        if 'mask' in engine.ports:
            change(engine)
        return engine

    monkeypatch.setattr(fake_tensorrt.Runtime, 'deserialize_cuda_engine', changed)
    gpu = Gpu()
    fake_tensorrt.machine = gpu
    with pytest.raises(EngineMismatchError, match=text):
        backend().load_tensorrt_engines(folder, gpu=gpu)
    assert gpu.held_bytes == 0


def test_a_foreign_frame_is_refused(aligned: Loaded, builds: Builds) -> None:
    other = Loaded(builds.folder('tensorrt', 'aligned'))
    foreign = contract.a_frame(other.vision)
    fake_tensorrt.machine = aligned.gpu
    with pytest.raises(EngineError, match='on this device were needed'):
        contract.read(aligned.language, aligned.language.new_cache(32), [foreign])
    frame = contract.a_frame(aligned.vision)
    with pytest.raises(EngineError, match='6 rows'):
        contract.read(aligned.language, aligned.language.new_cache(32), [VisualTokens(5, frame.data)])
