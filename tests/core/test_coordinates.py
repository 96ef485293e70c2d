"""Where between two coordinate tokens an edge lies, and how that reaches the text that boxes are read from."""

from __future__ import annotations

import numpy as np
import pytest

from penguin_ros.assemble import engine_folder
from penguin_ros.core.coordinates import CoordinateTokens, coordinate_tokens
from penguin_ros.core.decode import Limits, decode
from penguin_ros.core.dialect import Dialect, read_dialect
from penguin_ros.core.grounding import ground
from penguin_ros.core.words import read_words
from tests.core.numpy_engine import byte_words
from tests.core.test_decode import END, ScriptedStream

TOKENS = CoordinateTokens(first_id=100, count=100, first=5, step=10)


def _logits(**shares: float) -> np.ndarray:
    """Of a vocabulary of 210, the shares of some tokens, named as in ``t107``."""
    logits = np.full(210, -30.0, dtype=np.float32)
    for name, share in shares.items():
        logits[int(name[1:])] = np.log(share)
    return logits


@pytest.mark.parametrize(('shares', 'token', 'permille'), [
    ({'t107': 1.0}, 107, 75),                               # sure: the middle of what the token stands for
    ({'t107': 0.51, 't108': 0.49}, 107, 80),                # torn between two: the edge between them
    ({'t106': 0.25, 't107': 0.5, 't108': 0.25}, 107, 75),
    ({'t107': 0.4, 't109': 0.3, 't110': 0.3}, 107, 93),     # most of it lies above, 1/3 into the place of 109
    ({'t107': 0.6, 't150': 0.4}, 107, 75),                  # the edge of another thing does not pull
    ({'t107': 0.1, 't200': 0.9}, 107, 75),                  # nor does what is no coordinate
    ({'t100': 1.0}, 100, 5), ({'t199': 1.0}, 199, 995)])
def test_the_median_of_what_lies_near(shares: dict[str, float], token: int, permille: int) -> None:
    assert TOKENS.between(token, _logits(**shares)) == permille


def test_other_tokens_have_no_place() -> None:
    assert TOKENS.between(99, _logits(t99=1.0)) is None
    assert TOKENS.between(200, _logits(t200=1.0)) is None


@pytest.mark.parametrize('broken', [np.nan, np.inf, -np.inf])
def test_an_engine_that_gives_no_numbers_leaves_the_token_as_it_is(broken: float) -> None:
    logits = _logits(t107=1.0)
    logits[105:110] = broken
    if broken < 0:
        logits[:] = broken
    assert TOKENS.between(107, logits) is None


def test_the_median_is_least_far_off_what_the_model_expects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        logits = np.full(210, -30.0, dtype=np.float32)
        logits[140:149] = rng.normal(0.0, 1.5, 9)
        logits[144] = logits.max() + 0.01
        shares = np.exp(logits[140:149]) / np.exp(logits[140:149]).sum()
        places = 400 + np.arange(90) + 0.5              # each token stands for ten of them
        off = np.array([(np.repeat(shares / 10, 10) * np.abs(places - edge)).sum() for edge in range(1001)])
        found = TOKENS.between(144, logits)
        assert found is not None
        assert off[found] <= off.min() + 0.01
        assert abs(found - 445) <= 45


def test_only_a_model_with_one_token_for_each_coordinate_has_them() -> None:
    nano = engine_folder('nano')
    found = coordinate_tokens(read_words(nano), read_dialect(nano))
    assert found is not None
    assert (found.count, found.first, found.step) == (100, 5, 10)
    assert coordinate_tokens(read_words(nano), Dialect()) is None, 'spelled out'
    assert coordinate_tokens(byte_words(), Dialect(coordinate_step=100)) is None
    digits = coordinate_tokens(byte_words(), Dialect(coordinate_step=100, coordinate='{value:c}', coordinate_first=97))
    assert digits is None, 'these do not stand in the order of their ids'


class _Torn(ScriptedStream):
    """Nearly as likely as each coordinate it writes is the next one."""

    def append(self, point, pieces, logits_for):
        behind, logits = super().append(point, pieces, logits_for)
        for row in logits:
            token = int(row.argmax())
            if 100 <= token < 200:
                row[token + 1] = row[token] - 0.01
        return behind, logits


@pytest.mark.parametrize('draft', [[], [1, 20, 2, 110, 120, 150, 160, 3]])
def test_decoding_notes_it_of_every_coordinate_drafted_or_not(draft: list[int]) -> None:
    script = [1, 20, 2, 110, 120, 150, 160, 3]
    decoded = decode(_Torn(script), [np.array([1])], end_id=END, draft=draft, limits=Limits(30), coordinates=TOKENS)
    assert decoded.ids == script
    assert decoded.between == {3: 110, 4: 210, 5: 510, 6: 610}
    plain = decode(_Torn(script), [np.array([1])], end_id=END, draft=draft, limits=Limits(30))
    assert (plain.ids, plain.between) == (script, {})


def test_a_finer_coordinate_takes_its_tokens_place_in_the_text() -> None:
    words = read_words(engine_folder('nano'))
    ids = [int(token) for token in words.ids('a red crate<box><105><445><235><635></box>.')]
    plain, ends = words.text_with_ends(ids)
    first = ends.index(len('a red crate<box><105>'))
    raw, finer_ends = words.text_with_ends(ids, {first: '<98>'})
    assert raw == plain.replace('<105>', '<98>')
    assert finer_ends == [end - (index >= first) for index, end in enumerate(ends)]
    region = ground(raw, ends=finer_ends, probabilities=[0.5] * len(ids), height_px=1000, width_px=1000).phrases[0].region
    assert region is not None
    assert (region.x_min, region.x_max) == (98.0, 235.0)
