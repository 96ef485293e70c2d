import numpy as np
import pytest

from penguin_ros.core.decode import Limits, choice_probabilities, decode
from penguin_ros.core.engine import VisualTokens
from penguin_ros.core.errors import BudgetError, QuestionError
from penguin_ros.core.prompt import frame_lead, question_tail, stream_head
from penguin_ros.core.stream import LONGEST_TIME_S, Stream
from tests.core.numpy_engine import WIDTH, NumpyLanguage, byte_words

SECOND = 1_000_000_000


def visual(count: int, seed: int) -> VisualTokens:
    return VisualTokens(count, np.random.default_rng(seed).normal(size=(count, WIDTH)))


def stream_of(frames: int, *, tokens: int = 6, capacity: int = 600, language: NumpyLanguage | None = None) -> Stream:
    stream = Stream(language or NumpyLanguage(), byte_words(), capacity)
    for number in range(frames):
        stream.append_frame(number * SECOND, visual(tokens, number), (4, 6), keyframe=number == 0)
    return stream


def ask(stream: Stream, text: str = 'What?') -> np.ndarray:
    ids = byte_words().ids(question_tail(text))
    _, logits = stream.append(stream.end, [ids], [len(ids) - 1])
    return logits[0]


def recomputed(times: list[float], visuals: list[VisualTokens], text: str = 'What?') -> np.ndarray:
    """The whole prompt read at once by a fresh engine."""
    words, language = byte_words(), NumpyLanguage()
    pieces: list = []
    for index, (time_s, tokens) in enumerate(zip(times, visuals)):
        head = stream_head() if index == 0 else ''
        pieces += [words.ids(head + frame_lead(time_s, first=index == 0)), tokens]
    pieces.append(words.ids(question_tail(text)))
    count = sum(piece.count if isinstance(piece, VisualTokens) else len(piece) for piece in pieces)
    return language.append(language.new_cache(2048), pieces, start=1, positions=np.arange(count),
                           visible=np.zeros(1, dtype=bool), logits_for=[count - 1])[0]


def test_a_stream_read_frame_by_frame_says_what_one_read_at_once_says() -> None:
    expected = recomputed([0.0, 1.0, 2.0], [visual(6, n) for n in range(3)])
    np.testing.assert_allclose(ask(stream_of(3)), expected, rtol=1e-4, atol=1e-5)


def test_a_question_leaves_no_trace() -> None:
    stream = stream_of(2)
    before = ask(stream)
    decode(stream, [byte_words().ids(question_tail('Something long and different?'))], end_id=-1,
           limits=Limits(max_new_tokens=20))
    np.testing.assert_array_equal(ask(stream), before)
    stream.append_frame(2 * SECOND, visual(6, 2), (4, 6), keyframe=False)
    np.testing.assert_allclose(ask(stream), ask(stream_of(3)), rtol=1e-6)


def test_a_dropped_frame_is_no_longer_looked_at() -> None:
    stream = stream_of(3)
    before = ask(stream)
    stream.drop(stream.frames[1])
    assert stream.tokens == 12
    assert not np.allclose(ask(stream), before)


def test_a_thinned_frame_keeps_tokens_spread_over_it() -> None:
    stream = stream_of(2, tokens=12)
    stream.thin(stream.frames[0], 4)
    assert stream.frames[0].tokens == 4
    assert stream.frames[0].shown[[0, 11]].all()
    stream.thin(stream.frames[0], 9)
    assert stream.frames[0].tokens == 4, 'hidden tokens do not come back'


def test_closing_gaps_in_place_changes_no_answer() -> None:
    language = NumpyLanguage()
    stream = stream_of(4, tokens=12, language=language)
    stream.drop(stream.frames[1])
    stream.thin(stream.frames[0], 5)
    before, rows = ask(stream), stream.rows_used
    stream._compact()
    assert stream.rows_used < rows
    assert language.moved_rows > 0
    np.testing.assert_allclose(ask(stream), before, rtol=1e-6)
    stream.thin(stream.frames[0], 3)
    stream.drop(stream.frames[-1])
    assert stream.tokens == 3 + 12
    head_rows = len(byte_words().ids(stream_head()))
    assert stream.visible(stream.rows_used).sum() == head_rows + sum(f.lead_rows + f.tokens for f in stream.frames)


def test_a_full_cache_closes_its_gaps_by_itself() -> None:
    stream = stream_of(1, tokens=20, capacity=150)
    for number in range(1, 30):
        if len(stream.frames) > 2:
            stream.drop(stream.frames[0])
        stream.append_frame(number * SECOND, visual(20, number), (8, 10), keyframe=False)
    assert stream.compacted > 0
    assert len(stream.frames) == 3


def test_what_one_append_costs_does_not_grow_with_the_stream() -> None:
    stream = stream_of(1, tokens=20, capacity=2000)
    used = []
    for number in range(1, 200):
        if len(stream.frames) > 3:
            stream.drop(stream.frames[0])
        stream.append_frame(number * SECOND, visual(20, number), (8, 10), keyframe=False)
        used.append(stream.rows_used)
    assert max(used) <= 1.5 * (4 * (20 + 12)) + 64 + 64
    assert max(used[100:]) <= max(used[:100]) + 8, 'stamps get a digit or two longer'


def test_a_cache_too_small_for_its_frames_says_what_to_change() -> None:
    stream = stream_of(2, tokens=40, capacity=130)
    with pytest.raises(BudgetError, match='Lower token_budget'):
        stream.append_frame(5 * SECOND, visual(40, 9), (8, 20), keyframe=True)


def test_a_stream_ten_times_as_long_as_the_models_positions_goes_on() -> None:
    language = NumpyLanguage(max_positions=256)
    stream = Stream(language, byte_words(), 400)
    rows = 0
    for number in range(200):
        while len(stream.frames) > 3:
            stream.drop(stream.frames[0])
        stream.append_frame(number * SECOND, visual(8, number), (4, 8), keyframe=False)
        rows += stream.frames[-1].rows
    assert rows > 10 * 256
    assert stream.reread > 5
    kept = list(stream.frames)
    stream._reread(64, kept[-1].stamp_ns)
    fresh = recomputed([(frame.stamp_ns - kept[0].stamp_ns) / SECOND for frame in kept], [frame.visual for frame in kept])
    np.testing.assert_allclose(ask(stream), fresh, rtol=1e-4, atol=1e-5)


def test_stamps_start_at_zero_again_before_they_grow_long() -> None:
    stream = stream_of(2)
    late_ns = int((LONGEST_TIME_S + 10) * SECOND)
    stream.append_frame(late_ns, visual(6, 7), (4, 6), keyframe=True)
    stream.drop(stream.frames[0])
    stream.drop(stream.frames[0])
    stream.append_frame(late_ns + SECOND, visual(6, 8), (4, 6), keyframe=True)
    assert stream.time_s(late_ns + SECOND) <= LONGEST_TIME_S / 2 + 1.0


def test_a_frame_that_stands_for_hours_is_not_read_anew_with_every_other() -> None:
    stream = stream_of(1)
    for number in range(20):
        stream.append_frame(int((LONGEST_TIME_S + 10 + number) * SECOND), visual(6, number), (4, 6), keyframe=False)
    assert stream.reread == 1
    assert stream.frames[0].stamp_ns == 0, 'it is kept'
    assert stream.time_s(stream.frames[-1].stamp_ns) < LONGEST_TIME_S


def test_thinned_frames_read_anew_keep_what_was_left_of_them_even_in_a_narrow_cache() -> None:
    language = NumpyLanguage(max_positions=500)
    stream = Stream(language, byte_words(), 230)
    for number in range(24):
        stream.append_frame(number * SECOND, visual(40, number), (10, 16), keyframe=True)
        for frame in stream.frames[:-1]:
            stream.thin(frame, 8)
        while len(stream.frames) > 4:
            stream.drop(stream.frames[0])
    assert stream.reread > 0
    assert [frame.tokens for frame in stream.frames] == [8, 8, 8, 40]
    before = ask(stream)
    stream._compact()
    np.testing.assert_allclose(ask(stream), before, rtol=1e-5)


def test_two_frames_with_one_stamp_are_told_apart() -> None:
    stream = stream_of(1)
    second = stream.append_frame(0, visual(6, 5), (4, 6), keyframe=False)
    stream.drop(second)
    assert len(stream.frames) == 1
    assert stream.frames[0] is not second


def test_a_question_that_does_not_fit_is_refused() -> None:
    stream = stream_of(1, capacity=60)
    with pytest.raises(QuestionError, match='do not fit'):
        ask(stream, 'x' * 100)


def test_choices_get_the_probabilities_of_being_written() -> None:
    stream, words = stream_of(2), byte_words()
    prompt = [words.ids(question_tail('Which?'))]
    choices = [words.ids(text) for text in ('yes', 'no', 'no idea')]
    probabilities = choice_probabilities(stream, prompt, choices, end_id=words.end_id, limits=Limits(max_new_tokens=8))
    assert probabilities.sum() == pytest.approx(1.0)
    expected = []
    for choice in choices:
        ids = np.concatenate([prompt[0], choice])
        _, logits = stream.append(stream.end, [ids], range(len(prompt[0]) - 1, len(ids)))
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected.append(sum(row[token] for row, token in zip(log_probabilities, [*choice, words.end_id])))
    weights = np.exp(np.array(expected) - max(expected))
    np.testing.assert_allclose(probabilities, weights / weights.sum(), rtol=1e-4)
