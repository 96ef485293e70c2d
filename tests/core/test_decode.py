import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from penguin_ros.core.decode import _EXTRA_COST, VERIFY_TOKENS, Decoded, Limits, decode
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.stream import StreamPoint
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
    assert plain.passes == len(plain.ids) + 1
    assert drafted.passes <= len(plain.ids) / VERIFY_TOKENS + 2
    assert drafted.accepted == drafted.drafted


@dataclass
class ScriptedStream:
    """Writes given tokens as long as its rows hold the prompt (one token) and what it wrote: a stream in no time at all."""

    script: list[int]
    rows: list[int] = field(default_factory=lambda: [0] * 400)
    end: StreamPoint = field(default_factory=lambda: StreamPoint(1, 0))

    def append(self, point: StreamPoint, pieces, logits_for) -> tuple[StreamPoint, np.ndarray]:
        ids = [int(token) for piece in pieces for token in piece]
        self.rows[point.row:point.row + len(ids)] = ids
        logits = np.zeros((len(logits_for), END + 1), dtype=np.float32)
        for index, row in enumerate(logits_for):
            place = point.row + row - 1             # of the next token in the script
            as_written = self.rows[2:2 + place] == self.script[:place]
            logits[index, (self.script + [END])[min(place, len(self.script))] if as_written else WRONG] = 9.0
        return StreamPoint(point.row + len(ids), point.position + len(ids)), logits


WRONG = 698
END = 699


def write(script: list[int], draft: list[int]) -> Decoded:
    return decode(ScriptedStream(script), [np.array([1])], end_id=END, draft=draft, limits=Limits(max_new_tokens=300))


def scene_caption(rng: np.random.Generator) -> list[int]:
    """As the nano model writes: per thing a colour, a kind, a box of four edges, marks around them."""
    return [int(token) for _ in range(rng.integers(1, 6))
            for token in (1, 10 + rng.integers(6), 20 + rng.integers(6), 2, *(100 + rng.integers(0, 100, 4)), 3, 4)]


def next_caption(caption: list[int], rng: np.random.Generator) -> list[int]:
    """What follows a caption in a stream: the same, boxes a little elsewhere, a thing more or less, another scene."""
    change = rng.choice(['same', 'moved', 'more', 'less', 'cut'], p=[0.35, 0.35, 0.1, 0.1, 0.1])
    if change == 'moved':
        return [token + int(rng.integers(-1, 2)) * (token >= 100) for token in caption]
    if change == 'more':
        place = 10 * int(rng.integers(0, len(caption) // 10 + 1))
        return [*caption[:place], *scene_caption(rng)[:10], *caption[place:]]
    if change == 'less' and len(caption) > 10:
        place = 10 * int(rng.integers(0, len(caption) // 10))
        return [*caption[:place], *caption[place + 10:]]
    return scene_caption(rng) if change == 'cut' else caption


def test_three_thousand_captions_of_varied_streams_are_those_of_greedy_decoding() -> None:
    rng = np.random.default_rng(0)
    last = scene_caption(rng)
    plain_passes = drafted_passes = 0
    for _ in range(3000):
        caption_ids = next_caption(last, rng)
        drafted = write(caption_ids, last)
        assert drafted.ids == caption_ids
        assert drafted.stopped == 'end'
        plain_passes += len(caption_ids)
        drafted_passes += drafted.passes
        last = caption_ids
    assert plain_passes > 2.5 * drafted_passes


def test_an_unchanged_scene_takes_a_pass_for_ten_tokens() -> None:
    caption_ids = scene_caption(np.random.default_rng(1)) * 2
    drafted = write(caption_ids, caption_ids)
    assert drafted.accepted >= 9 * drafted.passes


def cost_passes(decoded: Decoded) -> float:
    """What decoding took, in passes of one token, the pass over the prompt included."""
    return decoded.passes + decoded.drafted * _EXTRA_COST


def test_useless_drafts_make_captions_at_most_a_twentieth_slower() -> None:
    rng = np.random.default_rng(2)
    scripts = [scene_caption(rng) for _ in range(400)]
    useless = [[int(token) for token in rng.integers(200, 600, len(script))] for script in scripts]
    for script, draft in zip(scripts, useless):
        assert cost_passes(write(script, draft)) <= 1.05 * max(cost_passes(write(script, [])), 20.0)
    unrelated = sum(cost_passes(write(script, draft)) for script, draft in itertools.pairwise(scripts))
    assert unrelated < sum(cost_passes(write(script, [])) for script in scripts), 'scenes share their grammar'


def test_a_useless_draft_is_soon_left_alone() -> None:
    stream = stream_of(2)
    plain = caption(stream)
    wrong = caption(stream, draft=[(token + 1) % 256 for token in plain.ids])
    assert wrong.ids == plain.ids
    assert wrong.passes == plain.passes
    assert wrong.drafted * _EXTRA_COST <= 0.05 * len(plain.ids)


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
