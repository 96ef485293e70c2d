"""Scores: what counts as named, which boxes belong together."""

from __future__ import annotations

import pytest

from penguin_ros.training.scores import box_iou, mean_iou, score_caption, set_f1
from penguin_ros.training.texts import Thing

LEFT, RIGHT = (0.0, 0.0, 0.2, 0.2), (0.6, 0.0, 0.8, 0.2)


def test_iou_of_a_box_with_itself_is_one_and_with_a_distant_one_zero() -> None:
    assert box_iou(LEFT, LEFT) == pytest.approx(1.0)
    assert box_iou(LEFT, RIGHT) == 0.0
    assert box_iou((0, 0, 2, 1), (1, 0, 3, 1)) == pytest.approx(1 / 3)


def test_two_things_alike_are_matched_by_overlap_not_by_order() -> None:
    true = [Thing('crate', 'red', None, LEFT), Thing('crate', 'red', None, RIGHT)]
    score = score_caption(list(reversed(true)), true)
    assert score.exact
    assert mean_iou([score]) == pytest.approx(1.0)


def test_f1_counts_what_is_missed_and_what_is_made_up() -> None:
    true = [Thing('crate', 'red', None, LEFT), Thing('ball', 'blue', None, RIGHT)]
    assert set_f1([score_caption(true, true)]) == 1.0
    assert set_f1([score_caption(true[:1], true)]) == pytest.approx(2 / 3)
    assert set_f1([score_caption([*true, Thing('cone', 'red')], true)]) == pytest.approx(4 / 5)
    assert set_f1([score_caption([], [])]) == 1.0
    assert set_f1([score_caption([], true)]) == 0.0


def test_a_second_mention_of_one_thing_counts_once() -> None:
    true = [Thing('crate', 'red', None, LEFT)]
    score = score_caption(true * 2, true)
    assert (score.matched, score.named, score.true, len(score.ious)) == (1, 2, 1, 1)
