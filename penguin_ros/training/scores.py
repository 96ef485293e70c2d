"""How good captions are: F1 of what is named, overlap of boxes; and how sure a figure is. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penguin_ros.training.texts import Thing

Box = tuple[float, float, float, float]
RIGHT_IOU = 0.5
RESAMPLES = 1000
Part = tuple[float, float]     # what one scene adds above and below the line


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes x_min, y_min, x_max, y_max."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@dataclass(frozen=True)
class CaptionScore:
    """One caption against the truth: things matched by kind and colour, and the overlap of the matched boxes."""

    matched: int
    named: int
    true: int
    ious: tuple[float, ...]

    @property
    def exact(self) -> bool:
        return self.matched == self.named == self.true


def match_things(named: Sequence[Thing], true: Sequence[Thing]) -> list[tuple[int, int, float]]:
    """Which named thing is which true one, and the overlap of their boxes.

    Kinds and colours as multisets; among things of one kind and colour the pairs with the largest overlap match.
    """
    pairs = sorted(((box_iou(one.box, other.box) if one.box and other.box else 0.0, i, j)
                    for i, one in enumerate(named) for j, other in enumerate(true)
                    if (one.kind, one.colour) == (other.kind, other.colour)), reverse=True)
    taken_i: set[int] = set()
    taken_j: set[int] = set()
    matches = []
    for iou, i, j in pairs:
        if i not in taken_i and j not in taken_j:
            taken_i.add(i)
            taken_j.add(j)
            matches.append((i, j, iou))
    return matches


def score_caption(named: Sequence[Thing], true: Sequence[Thing]) -> CaptionScore:
    """What a caption names against what there is."""
    matches = match_things(named, true)
    return CaptionScore(len(matches), len(named), len(true), tuple(iou for _, _, iou in matches))


def right_phrases(named: Sequence[Thing], true: Sequence[Thing]) -> list[bool]:
    """For each thing named: there is one of that kind and colour, not named better already, in a box that overlaps by
    ``RIGHT_IOU``, and a digit that is stated is the one on it. This is what a phrase's confidence is the probability of."""
    right = [False] * len(named)
    for i, j, iou in match_things(named, true):
        right[i] = iou >= RIGHT_IOU and named[i].digit in (None, true[j].digit)
    return right


def set_f1(scores: Sequence[CaptionScore]) -> float:
    """F1 over all scenes together; 1 where there is nothing to name and nothing was named."""
    matched, named, true = (sum(getattr(score, part) for score in scores) for part in ('matched', 'named', 'true'))
    return 2 * matched / (named + true) if named + true else 1.0


def mean_iou(scores: Sequence[CaptionScore]) -> float:
    """Mean over all matched pairs of all scenes; 0 without any."""
    ious = [iou for score in scores for iou in score.ious]
    return float(np.mean(ious)) if ious else 0.0


def f1_parts(score: CaptionScore) -> Part:
    """One scene's part of F1, for `interval`."""
    return 2.0 * score.matched, float(score.named + score.true)


def interval(parts: Sequence[Part], count: int | None = None, *, empty: float = 1.0) -> dict[str, float]:
    """A figure that is a ratio of two sums over scenes (a mean, F1), with its 95 % bootstrap interval over the scenes.

    ``count`` is how many things were judged; by default as many as the second sum says. A scene with several questions
    is drawn as a whole, since its answers are right or wrong together. ``empty`` is the figure of scenes without any.
    """
    sums = np.asarray(parts, dtype=float).reshape(-1, 2)
    drawn = sums[np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))].sum(axis=1)
    low, high = np.percentile(_ratio(drawn, empty), [2.5, 97.5])
    value = float(_ratio(sums.sum(axis=0), empty))
    return {'value': round(value, 4), 'low': round(float(low), 4), 'high': round(float(high), 4),
            'count': int(sums[:, 1].sum()) if count is None else count}


def _ratio(sums: np.ndarray, empty: float) -> np.ndarray:
    over, under = sums[..., 0], sums[..., 1]
    return np.where(under > 0, over / np.maximum(under, 1e-12), empty)
