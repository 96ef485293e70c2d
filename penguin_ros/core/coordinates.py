"""Where between two coordinate tokens an edge lies. Knows nothing of boxes or of how tokens are chosen.

A model that writes a coordinate as one token of many also says how likely each of the others is. The likeliest is off by up
to half a step and, where several are about as likely, by more; the median is what is least far off on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from penguin_ros.core.dialect import Dialect
from penguin_ros.core.grid import PERMILLE
from penguin_ros.core.words import Words

# Of the tokens no further than this from the written one, in 1/1000 of the image: beyond lie the edges of other things. From 30
# on all reaches tried gave the nano model's boxes the same IoU on the split `valid`.
_REACH_PERMILLE = 40


@dataclass(frozen=True)
class CoordinateTokens:
    """``count`` tokens with ids in order, each ``step`` further than the one before; in 1/1000 of the image."""

    first_id: int
    count: int
    first: int
    step: int

    def between(self, token: int, logits: np.ndarray) -> int | None:
        """The median of what the model takes for the coordinate where it wrote ``token``, 0 to 1000; None for other tokens.

        ``logits`` [vocabulary] are those that chose the token; None too where they are no numbers. Each token stands for all
        places nearest to it.
        """
        place = token - self.first_id
        if not 0 <= place < self.count:
            return None
        reach = _REACH_PERMILLE // self.step
        low, high = max(place - reach, 0), min(place + reach + 1, self.count)
        near = logits[self.first_id + low:self.first_id + high].astype(np.float64)
        if not np.isfinite(near.max()):
            return None
        shares = np.exp(near - near.max())
        shares /= shares.sum()
        below = np.cumsum(shares)
        middle = int(np.searchsorted(below, 0.5))
        into = (0.5 - (below[middle] - shares[middle])) / shares[middle]
        return min(max(round(self.first + (low + middle - 0.5 + into) * self.step), 0), PERMILLE)


def coordinate_tokens(words: Words, dialect: Dialect) -> CoordinateTokens | None:
    """The tokens of a model that has one for each coordinate, with ids in their order; None for one that spells them out."""
    first_id = None
    count = math.floor((PERMILLE - dialect.coordinate_first) / dialect.coordinate_step) + 1
    for place in range(count):
        written = words.ids(dialect.coordinate.format(value=dialect.coordinate_first + place * dialect.coordinate_step))
        if len(written) != 1:
            return None
        first_id = int(written[0]) if first_id is None else first_id
        if written[0] != first_id + place:
            return None
    if first_id is None or count < 2:
        return None
    return CoordinateTokens(first_id, count, dialect.coordinate_first, dialect.coordinate_step)
