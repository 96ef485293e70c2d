"""A stream read frame by frame says on real runtimes what one read at once says: float32, golden model A."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('torch', reason='needs PyTorch: pip install torch')

from penguin_ros.core.engine import LanguageEngine, VisionEngine, VisualTokens
from penguin_ros.core.prompt import frame_lead, question_tail, stream_head
from penguin_ros.core.stream import Stream

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden' / 'model_A'
SECOND = 1_000_000_000
GRID = (6, 8)
MOST_POSITIONS = 320


class ByteWords:
    """One id per byte, as far as the golden model's vocabulary goes."""

    def __init__(self, vocabulary: int) -> None:
        self._ids = min(vocabulary, 256)

    def ids(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) % self._ids


class FewPositions:
    """An engine whose model knows few positions, so that their end comes soon."""

    def __init__(self, language: LanguageEngine) -> None:
        self.spec = replace(language.spec, max_positions=MOST_POSITIONS)
        self.new_cache, self.append, self.move_rows = language.new_cache, language.append, language.move_rows


@pytest.fixture(scope='module', params=['torch', 'onnx'])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionEngine, LanguageEngine]:
    if request.param == 'torch':
        from penguin_ros.backends.torch import load_torch_engines
        return load_torch_engines(GOLDEN, max_append=32)
    pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')
    from penguin_ros.backends.onnx import load_onnx_engines
    from penguin_ros.backends.recipe import Recipe
    from penguin_ros.cli.build import build_onnx
    folder = tmp_path_factory.mktemp('engine')
    build_onnx(Recipe(file=folder / 'a.yaml', checkpoint=str(GOLDEN), max_append=32, cache_rows=512, max_patches=256), folder)
    return load_onnx_engines(folder)


@pytest.fixture
def bench(engines: tuple[VisionEngine, LanguageEngine]) -> Any:
    vision, language = engines
    words = ByteWords(language.spec.vocabulary)

    def visual(seed: int) -> VisualTokens:
        patches = np.random.default_rng(seed).uniform(-1, 1, (GRID[0] * GRID[1], 588)).astype(np.float32)
        return vision.encode(patches, GRID)

    def ask(stream: Stream) -> np.ndarray:
        ids = words.ids(question_tail('What is new?'))
        return stream.append(stream.end, [ids], range(len(ids)))[1]

    def recomputed(times_s: list[float], visuals: list[VisualTokens]) -> np.ndarray:
        """Logits of the question when the whole prompt is read at once by an engine that has read nothing before."""
        pieces: list[Any] = []
        for index, (time_s, tokens) in enumerate(zip(times_s, visuals)):
            pieces += [words.ids((stream_head() if index == 0 else '') + frame_lead(time_s, first=index == 0)), tokens]
        question = words.ids(question_tail('What is new?'))
        count = sum(piece.count if isinstance(piece, VisualTokens) else len(piece) for piece in pieces)
        return language.append(language.new_cache(count + len(question) + 1), [*pieces, question], start=1,
                               positions=np.arange(count + len(question)), visible=np.zeros(1, dtype=bool),
                               logits_for=range(count, count + len(question)))

    return SimpleNamespace(language=language, words=words, visual=visual, ask=ask, recomputed=recomputed)


def assert_equal(logits: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_logits_of_a_stream_equal_those_of_a_full_recompute(bench: Any) -> None:
    stream = Stream(bench.language, bench.words, 512)
    visuals = [bench.visual(seed) for seed in range(5)]
    for number, visual in enumerate(visuals):
        stream.append_frame(number * SECOND, visual, GRID, keyframe=number == 0)
        bench.ask(stream)                       # forgotten again, each time
        assert_equal(bench.ask(stream), bench.recomputed([float(n) for n in range(number + 1)], visuals[:number + 1]))


def test_closing_gaps_changes_no_logits(bench: Any) -> None:
    stream = Stream(bench.language, bench.words, 512)
    for number in range(5):
        stream.append_frame(number * SECOND, bench.visual(number), GRID, keyframe=number == 0)
    stream.drop(stream.frames[1])
    stream.thin(stream.frames[0], 5)
    before, rows = bench.ask(stream), stream.rows_used
    stream._compact()
    assert stream.rows_used < rows
    assert_equal(bench.ask(stream), before)


def test_a_stream_ten_times_as_long_as_the_positions_ends_like_one_read_anew(bench: Any) -> None:
    stream = Stream(FewPositions(bench.language), bench.words, 400)
    rows = number = 0
    visuals = [bench.visual(seed) for seed in range(8)]
    while rows <= 10 * MOST_POSITIONS:
        while len(stream.frames) > 3:
            stream.drop(stream.frames[0])
        rows += stream.append_frame(number * SECOND, visuals[number % 8], GRID, keyframe=False).rows
        number += 1
    assert stream.reread > 5
    assert stream.end.position <= MOST_POSITIONS
    kept = list(stream.frames)
    stream._reread(64, kept[-1].stamp_ns)
    times_s = [(frame.stamp_ns - kept[0].stamp_ns) / SECOND for frame in kept]
    assert_equal(bench.ask(stream), bench.recomputed(times_s, [frame.visual for frame in kept]))
