"""Recorded appends say what unrecorded ones say, on a CPU with a stand-in for CUDA graphs and on a GPU with real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs PyTorch: pip install torch')

import contract  # noqa: E402
from host_graphs import HostRecorder  # noqa: E402

from penguin_ros.backends.torch import TorchLanguageEngine, TorchVisionEngine  # noqa: E402
from penguin_ros.backends.torch_graphs import CudaRecorder, rows_looked_at  # noqa: E402
from penguin_ros.core.decode import VERIFY_TOKENS  # noqa: E402
from penguin_ros.model.checkpoint import load_model  # noqa: E402
from penguin_ros.model.definition import PenguinVL  # noqa: E402

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'
CASES = [('model_A', case['file']) for case in json.loads((GOLDEN / 'model_A' / 'cases.json').read_text())]
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU: graphs of CUDA itself')


class Rig:
    """Engines of golden model A, recorded on this device, and the same unrecorded."""

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.model: PenguinVL = load_model(GOLDEN / 'model_A', device=device, dtype=dtype)
        self.vision = TorchVisionEngine(self.model)
        self.recorder = HostRecorder() if device == 'cpu' else CudaRecorder(torch.device(device))
        self.language = TorchLanguageEngine(self.model, max_append=32, recorder=self.recorder)


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=NEEDS_CUDA)])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


def test_the_contract_is_kept(rig: Rig) -> None:
    contract.check_append_in_pieces_equals_reading_at_once(rig.vision, rig.language)
    contract.check_setting_start_back_forgets_what_came_after(rig.vision, rig.language)
    contract.check_hidden_rows_are_as_if_never_read(rig.vision, rig.language)
    contract.check_moved_rows_answer_as_before(rig.vision, rig.language)
    contract.check_logits_come_for_the_rows_asked_for(rig.language)
    contract.check_cache_buffers_never_move(rig.vision, rig.language, addresses=lambda cache: cache.addresses())
    contract.check_cache_says_its_size(rig.language, item_bytes=4)
    contract.check_inputs_are_not_changed(rig.vision, rig.language)
    contract.check_appends_that_cannot_be_are_refused(rig.vision, rig.language)


@pytest.mark.parametrize('model, file', CASES)
def test_golden_cases_are_reproduced(rig: Rig, model: str, file: str) -> None:
    with np.load(GOLDEN / model / file) as arrays:
        case = dict(arrays)
    contract.check_golden_case(lambda merge: TorchVisionEngine(rig.model, merge=merge), rig.language, case,
                               row_of_tokens=lambda tokens: tokens.data.cpu().numpy())


def test_bfloat16_is_recorded_too() -> None:
    rig = Rig('cpu', torch.bfloat16)
    contract.check_append_in_pieces_equals_reading_at_once(rig.vision, rig.language, 0.05)


def test_a_shape_is_recorded_once_and_replayed_ever_after() -> None:
    rig = Rig('cpu')
    cache = rig.language.new_cache(600)
    for row in (1, 2, 100, 254):
        contract.read(rig.language, cache, [contract.random_ids(rig.language, 1, row)], start=row)
    assert (rig.recorder.recordings, rig.recorder.replays) == (1, 4)
    contract.read(rig.language, cache, [contract.random_ids(rig.language, VERIFY_TOKENS)], start=100)
    contract.read(rig.language, cache, [contract.random_ids(rig.language, 5)], start=200)
    assert rig.recorder.recordings == 2, 'drafts of every length share a recording'
    contract.read(rig.language, cache, [contract.random_ids(rig.language, 3)], start=255)
    assert rig.recorder.recordings == 3, 'more of the cache is looked at'
    contract.read(rig.language, cache, [contract.random_ids(rig.language, 17)], start=100)
    contract.read(rig.language, cache, [contract.a_frame(rig.vision)], start=100)
    assert rig.recorder.recordings == 3, 'prompts and frames are not recorded'
    contract.read(rig.language, rig.language.new_cache(600), [contract.random_ids(rig.language, 1)])
    assert rig.recorder.recordings == 4, 'a recording holds the addresses of its cache'


def test_every_length_at_every_edge_equals_the_unrecorded_append(rig: Rig) -> None:
    """Up to the last row of a cache of odd size, over rows that hold what was said before."""
    plain = TorchLanguageEngine(rig.model, max_append=32)
    plain._recorder = None
    rows = 261
    caches = [language.new_cache(rows) for language in (rig.language, plain)]
    filled = contract.random_ids(plain, rows - 1, 1)
    for language, cache in zip((rig.language, plain), caches):
        contract.read(language, cache, [filled])
    for count in (1, 2, 7, VERIFY_TOKENS):
        for start in (1, 2, 256 - count, 257 - count, rows - count):
            ids = contract.random_ids(plain, count, start)
            found, needed = (contract.read(language, cache, [ids], start=start, hidden_rows=range(1, start, 3))
                             for language, cache in zip((rig.language, plain), caches))
            contract.assert_close(found, needed)
    for layer, other in zip(caches[0].layers, caches[1].layers):
        for buffer, needed_buffer in zip(layer, other):
            assert not buffer[0].any(), 'row 0 stays zero'
            torch.testing.assert_close(buffer[:rows], needed_buffer[:rows], rtol=0, atol=1e-4)


def test_cuda_is_asked_for_a_graph_in_the_right_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls alone: work is done aside first, both streams wait for each other, and graphs share memory."""
    said: list[str] = []

    class Stream:
        def __init__(self, name: str = 'aside') -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            said.append(f'{self.name} waits for {other.name}')

    class Graph:
        def replay(self) -> None:
            said.append('replay')

    @contextmanager
    def inside(what: str) -> Iterator[None]:
        said.append(f'enter {what}')
        yield
        said.append(f'leave {what}')

    current = Stream('current')
    for name, stand_in in {
            'graph_pool_handle': lambda: 'pool', 'current_stream': lambda: current, 'Stream': Stream, 'CUDAGraph': Graph,
            'device': lambda device: inside(str(device)), 'stream': lambda stream: inside(stream.name),
            'graph': lambda graph, *, pool, capture_error_mode: inside(f'{pool} {capture_error_mode}')}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    result = torch.zeros(1)

    def work() -> torch.Tensor:
        said.append('work')
        return result

    replay, found = CudaRecorder(torch.device('cuda:1')).record(work)
    replay()
    assert found is result
    assert said == ['enter cuda:1', 'aside waits for current', 'enter aside', 'work', 'leave aside', 'current waits for aside',
                    'enter pool thread_local', 'work', 'leave pool thread_local', 'leave cuda:1', 'replay']


@pytest.mark.parametrize('end, capacity, rows', [(1, 600, 256), (256, 600, 256), (257, 600, 512), (513, 600, 600), (5, 64, 64)])
def test_the_rows_looked_at_come_in_few_sizes(end: int, capacity: int, rows: int) -> None:
    assert rows_looked_at(end, capacity) == rows


@pytest.mark.parametrize('work, text', [
    (lambda x: x * x.sum().item(), 'reads a number back'), (lambda x: x[x > 0], 'makes a shape from values'),
    (lambda x: x + torch.tensor(1.0), 'copies from the host')])
def test_the_stand_in_refuses_what_cuda_cannot_record(work: object, text: str) -> None:
    x = torch.ones(3)
    with torch.inference_mode(), pytest.raises(AssertionError, match=text):
        HostRecorder().record(lambda: work(x))  # type: ignore[operator]
