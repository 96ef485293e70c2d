"""How good captions and answers are: F1 of what is named, overlap of boxes, exact answers. Knows nothing of models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penguin_ros.training.texts import Thing

Box = tuple[float, float, float, float]


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


def score_caption(named: Sequence[Thing], true: Sequence[Thing]) -> CaptionScore:
    """Kinds and colours as multisets; among things of one kind and colour the pairs with the largest overlap match."""
    matched, ious = 0, []
    labels = Counter((thing.kind, thing.colour) for thing in true)
    for label in labels:
        mine = [thing for thing in named if (thing.kind, thing.colour) == label]
        theirs = [thing for thing in true if (thing.kind, thing.colour) == label]
        pairs = sorted(((box_iou(a.box, b.box) if a.box and b.box else 0.0, i, j)
                        for i, a in enumerate(mine) for j, b in enumerate(theirs)), reverse=True)
        taken_i: set[int] = set()
        taken_j: set[int] = set()
        for iou, i, j in pairs:
            if i not in taken_i and j not in taken_j:
                taken_i.add(i)
                taken_j.add(j)
                ious.append(iou)
        matched += len(taken_i)
    return CaptionScore(matched, len(named), len(true), tuple(ious))


def set_f1(scores: Sequence[CaptionScore]) -> float:
    """F1 over all scenes together; 1 where there is nothing to name and nothing was named."""
    matched, named, true = (sum(getattr(score, part) for score in scores) for part in ('matched', 'named', 'true'))
    return 2 * matched / (named + true) if named + true else 1.0


def mean_iou(scores: Sequence[CaptionScore]) -> float:
    """Mean over all matched pairs of all scenes; 0 without any."""
    ious = [iou for score in scores for iou in score.ious]
    return float(np.mean(ious)) if ious else 0.0
