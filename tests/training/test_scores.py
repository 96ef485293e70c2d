"""Scores: what counts as named, which boxes belong together."""

from __future__ import annotations

import pytest

from penguin_ros.training.scores import box_iou, interval, mean_iou, right_phrases, score_caption, set_f1
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


def test_a_phrase_is_right_with_its_label_its_digit_and_half_of_its_box() -> None:
    true = [Thing('sign', 'white', 7, LEFT), Thing('crate', 'red', None, RIGHT)]
    near = (0.62, 0.0, 0.82, 0.2)
    assert right_phrases([Thing('sign', 'white', 7, LEFT), Thing('crate', 'red', None, near)], true) == [True, True]
    assert right_phrases([Thing('sign', 'white', None, LEFT), Thing('crate', 'blue', None, RIGHT)], true) == [True, False]
    assert right_phrases([Thing('sign', 'white', 1, LEFT), Thing('crate', 'red', None, LEFT)], true) == [False, False]
    assert right_phrases([true[1], true[1]], true).count(True) == 1, 'a second mention is of nothing'


def test_an_interval_holds_its_figure_and_narrows_with_more_scenes() -> None:
    few, many = (interval([(float(number % 2), 1.0) for number in range(count)]) for count in (20, 2000))
    assert few['value'] == many['value'] == 0.5
    assert few['low'] < many['low'] < 0.5 < many['high'] < few['high']
    assert (few['count'], many['count']) == (20, 2000)


def test_questions_of_one_scene_are_drawn_together() -> None:
    alone = interval([(float(number % 2), 1.0) for number in range(400)])
    in_fours = interval([(4.0 * (number % 2), 4.0) for number in range(100)])
    assert in_fours['count'] == alone['count']
    assert in_fours['high'] - in_fours['low'] > 1.5 * (alone['high'] - alone['low'])
    assert interval([(0.0, 0.0)], empty=0.0)['value'] == 0.0
