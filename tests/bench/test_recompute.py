"""Engines that keep nothing must say what the caches say: through drops, thinning, closed gaps and drafts."""

import numpy as np
import pytest

from penguin_ros.bench.recompute import ForgetfulLanguage, ForgetfulVision
from penguin_ros.core.decode import Limits, decode
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.stream import Stream
from tests.core.numpy_engine import NumpyLanguage, NumpyVision, byte_words

WORDS = byte_words()
GRID = (4, 6)
SECOND = 1_000_000_000


class Pair:
    """The same stream with and without caches."""

    def __init__(self) -> None:
        self.encoder = NumpyVision()
        self.language = NumpyLanguage()
        forgetful = ForgetfulLanguage(self.encoder, NumpyLanguage())
        self.streams = [(NumpyVision(), Stream(self.language, WORDS, 600)),
                        (ForgetfulVision(self.encoder), Stream(forgetful, WORDS, 600))]

    def show(self, number: int) -> None:
        patches = np.random.default_rng(number).normal(size=(24, 588))
        for vision, stream in self.streams:
            stream.append_frame(number * SECOND, vision.encode(patches, GRID), GRID, keyframe=number % 2 == 0)

    def captions(self, draft=()) -> list[list[int]]:
        prompt = [WORDS.ids(question_tail('What?'))]
        return [decode(stream, prompt, end_id=WORDS.end_id, draft=draft, limits=Limits(24)).ids for _, stream in self.streams]

    def logits(self) -> list[np.ndarray]:
        ids = WORDS.ids(question_tail('What?'))
        return [stream.append(stream.end, [ids], [len(ids) - 1])[1][0] for _, stream in self.streams]


def test_with_every_frame_kept_the_text_is_the_same() -> None:
    pair = Pair()
    draft: list[int] = []
    for number in range(6):
        pair.show(number)
        kept, forgotten = pair.captions(draft)
        assert kept == forgotten
        draft = kept[:12] + kept[14:]


def test_every_question_encodes_every_frame_that_can_be_seen_again() -> None:
    pair = Pair()
    for number in range(4):
        pair.show(number)
    assert pair.encoder.encoded_tokens == [], 'nothing was asked yet'
    pair.captions()
    assert len(pair.encoder.encoded_tokens) == 4
    pair.captions()
    assert len(pair.encoder.encoded_tokens) == 8
    for _, stream in pair.streams:
        stream.drop(stream.frames[1])
    pair.captions()
    assert len(pair.encoder.encoded_tokens) == 11


def test_what_is_dropped_before_anything_was_read_behind_it_leaves_no_trace() -> None:
    pair = Pair()
    for number in range(3):
        pair.show(number)
    for _, stream in pair.streams:
        stream.thin(stream.frames[-1], 3)       # the newest: no row behind it ever saw what is hidden
    kept, forgotten = pair.logits()
    np.testing.assert_allclose(kept, forgotten, rtol=1e-4, atol=1e-5)
    for _, stream in pair.streams:
        stream._compact()
    again, forgotten = pair.logits()
    np.testing.assert_allclose(again, kept, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(forgotten, kept, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('seed', range(6))
def test_both_go_on_through_anything_that_may_happen_to_a_stream(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pair = Pair()
    for number in range(14):
        pair.show(number)
        choice, index = rng.integers(4), int(rng.integers(len(pair.streams[0][1].frames)))
        for _, stream in pair.streams:
            if choice == 0 and len(stream.frames) > 2:
                stream.drop(stream.frames[min(index, len(stream.frames) - 2)])
            elif choice == 1:
                stream.thin(stream.frames[index], 3)
            elif choice == 2:
                stream._compact()
        kept, forgotten = pair.logits()
        # Rows read before a drop have seen what was dropped, so equality ends there; both must stay answers.
        assert np.isfinite(kept).all()
        assert np.isfinite(forgotten).all()
    visible = [stream.visible(stream.rows_used).sum() for _, stream in pair.streams]
    assert visible[0] == visible[1]
