import numpy as np
import pytest

from penguin_ros.core.decode import VERIFY_TOKENS, Decoded, Limits, decode
from penguin_ros.core.prompt import question_tail
from tests.core.numpy_engine import NumpyLanguage, byte_words
from tests.core.test_stream import stream_of

WORDS = byte_words()


def caption(stream, text: str = 'What?', *, draft=(), tokens: int = 40, **limits) -> Decoded:
    return decode(stream, [WORDS.ids(question_tail(text))], end_id=WORDS.end_id, draft=draft,
                  limits=Limits(max_new_tokens=tokens, **limits))


def test_decoding_is_greedy() -> None:
    stream = stream_of(2)
    decoded = caption(stream, tokens=5)
    prompt = WORDS.ids(question_tail('What?'))
    for count, token in enumerate(decoded.ids):
        ids = np.concatenate([prompt, decoded.ids[:count]]).astype(np.int64)
        _, logits = stream.append(stream.end, [ids], [len(ids) - 1])
        assert int(logits[0].argmax()) == token
        probability = np.exp(logits[0] - logits[0].max())[token] / np.exp(logits[0] - logits[0].max()).sum()
        assert decoded.probabilities[count] == pytest.approx(probability, rel=1e-4)


@pytest.mark.parametrize('seed', range(30))
def test_a_draft_never_changes_the_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream = stream_of(1 + seed % 3, language=NumpyLanguage(seed))
    plain = caption(stream)
    draft = list(plain.ids)
    for _ in range(int(rng.integers(0, 6))):     # words changed, added and left out, as between two captions of a stream
        place = int(rng.integers(0, len(draft)))
        kind = rng.integers(0, 3)
        if kind == 0:
            draft[place] = int(rng.integers(0, 256))
        elif kind == 1:
            draft.insert(place, int(rng.integers(0, 256)))
        else:
            del draft[place]
    drafted = caption(stream, draft=draft)
    assert drafted.ids == plain.ids
    np.testing.assert_allclose(drafted.probabilities, plain.probabilities, rtol=1e-3)


def test_a_draft_that_is_right_is_read_sixteen_tokens_a_pass() -> None:
    stream = stream_of(2)
    plain = caption(stream, tokens=64)
    drafted = caption(stream, draft=plain.ids, tokens=64)
    assert drafted.ids == plain.ids
    assert plain.passes == len(plain.ids)
    assert drafted.passes <= len(plain.ids) / VERIFY_TOKENS + 1
    assert drafted.accepted == drafted.drafted


def test_a_useless_draft_is_soon_left_alone() -> None:
    stream = stream_of(2)
    plain = caption(stream)
    wrong = caption(stream, draft=[(token + 1) % 256 for token in plain.ids])
    assert wrong.ids == plain.ids
    assert wrong.passes == plain.passes
    assert wrong.drafted <= VERIFY_TOKENS


def test_decoding_stops_for_whoever_no_longer_wants_it_within_one_token() -> None:
    seen: list[int] = []
    stream = stream_of(1)
    decoded = decode(stream, [WORDS.ids(question_tail('What?'))], end_id=-1, on_tokens=lambda d: seen.append(len(d.ids)),
                     limits=Limits(max_new_tokens=50, cancelled=lambda: len(seen) >= 3))
    assert decoded.stopped == 'cancelled'
    assert len(decoded.ids) <= 4


def test_decoding_stops_at_its_deadline() -> None:
    clock = iter(range(1000))
    decoded = caption(stream_of(1), deadline_s=5, clock=lambda: next(clock))
    assert decoded.stopped in ('deadline', 'end')
    assert len(decoded.ids) <= 5
