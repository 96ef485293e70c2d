"""Judging: one rule for each skill, and the choices that go with a question."""

from __future__ import annotations

import pytest

from penguin_ros.training import texts
from penguin_ros.training.judging import choices_of, is_near, judge, named_in
from penguin_ros.training.questions import Turn
from penguin_ros.training.texts import Thing

BOX = texts.box_text((0.1, 0.1, 0.5, 0.5))
TIMES_S = (0.0, 2.0, 4.0, 6.0)


@pytest.mark.parametrize(('skill', 'truth', 'answer', 'figures'), [
    ('colour', 'red', 'red', {'colour': 1.0}),
    ('count', '2', '3', {'count': 0.0}),
    ('region', 'a red crate', 'a red crate saying 1', {'region': 1.0}),
    ('sign', texts.NO_SIGN, texts.NO_SIGN, {'sign_absent': 1.0}),
    ('sign', '7', texts.NO_SIGN, {'digit': 0.0}),
    ('where', 'not in view.', f'a red crate{BOX}.', {'where_absent': 0.0}),
    ('change', f'a red crate{BOX}; a blue ball{BOX}.', 'a blue ball; a red crate.',
     {'change': 1.0, 'change_some': 1.0, 'time': 1.0}),
    ('change', 'nothing.', 'a blue ball.', {'change': 0.0, 'time': 0.0}),
    ('order', 'red crate', 'red crate', {'order': 1.0, 'time': 1.0}),
    ('passed', 'yes', 'no', {'passed': 0.0, 'time': 0.0}),
    ('when', '4.0s', '4.0s', {'when': 1.0, 'time': 1.0, 'when_near': 1.0, 'when_between': 1.0}),
    ('when', '4.0s', '2.0s', {'when': 0.0, 'time': 0.0, 'when_near': 1.0, 'when_between': 0.0}),
    ('when', '4.0s', '0.0s', {'when': 0.0, 'time': 0.0, 'when_near': 0.0, 'when_between': 0.0}),
    ('when', '0.0s', '0.0s', {'when': 1.0, 'time': 1.0, 'when_near': 1.0}),
    ('when', '6.0s', '6.0s', {'when': 1.0, 'time': 1.0, 'when_near': 1.0}),
    ('when', '4.0s', 'a red crate.', {'when': 0.0, 'time': 0.0, 'when_near': 0.0, 'when_between': 0.0})])
def test_an_answer_adds_to_the_figures_of_its_skill(skill: str, truth: str, answer: str, figures: dict[str, float]) -> None:
    verdict = judge(Turn(skill, '?', truth), answer, TIMES_S)
    assert verdict.figures == figures
    assert verdict.right == bool(next(iter(figures.values())))


def test_a_place_is_right_from_half_an_overlap_on() -> None:
    turn = Turn('where', '?', f'a red crate{BOX}.')
    assert judge(turn, f'a red crate{BOX}.').right
    far = judge(turn, f'a red crate{texts.box_text((0.6, 0.6, 0.9, 0.9))}.')
    assert not far.right
    assert far.figures == {'where_iou': 0.0}


def test_a_place_is_judged_by_the_true_box_and_not_by_the_nearest_that_can_be_written() -> None:
    true = (0.1004, 0.1, 0.5, 0.5)
    turn = Turn('where', '?', f'a red crate{BOX}.', places=(Thing('crate', 'red', None, true),))
    written, finer = (judge(turn, f'a red crate<box><{x_min}><100><500><500></box>.') for x_min in (105, 100))
    assert written.figures['where_iou'] < finer.figures['where_iou'] == pytest.approx(0.3996 / 0.4, abs=1e-6)


def test_within_one_frame_goes_by_the_neighbours_and_ends_at_the_window() -> None:
    assert is_near('0.0s', '2.0s', TIMES_S)
    assert not is_near('0.0s', '3.0s', TIMES_S)
    assert not is_near('6.0s', '7.0s', TIMES_S)


def test_questions_whose_answers_can_be_listed_offer_choices() -> None:
    order = Turn('order', 'Which came first, the person in blue or the red crate?', 'red crate')
    assert choices_of(order) == ('person in blue', 'red crate')
    assert choices_of(Turn('path', '?', 'no')) == ('yes', 'no')
    assert choices_of(Turn('colour', '?', 'green')) == texts.COLOURS
    assert '4' in choices_of(Turn('count', '?', '4'))
    assert choices_of(Turn('when', '?', '4.0s')) == choices_of(Turn('change', '?', 'nothing.')) == ()


def test_things_are_found_in_a_question_in_its_order() -> None:
    assert named_in('Did a white sign pass?') == [Thing('sign', 'white')]
    assert named_in('What moved?') == []
