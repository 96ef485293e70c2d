"""Questions have the answers the truth gives, and are not asked where there is none."""

from __future__ import annotations

import random
from dataclasses import replace

from penguin_ros.training import texts
from penguin_ros.training.dataset import Clip, Event, SceneFrame, SeenObject
from penguin_ros.training.questions import (
    Asker,
    View,
    caption_turn,
    change_turn,
    changes_of,
    colour_turn,
    count_turn,
    order_turn,
    passed_turn,
    path_turn,
    region_turn,
    sample_questions,
    sample_time_questions,
    sign_turn,
    when_turn,
    where_turn,
)

CRATE = SeenObject(1, 'crate', 'red', None, 0.0, (0.1, 0.5, 0.3, 0.8), 2.0)
BALL = SeenObject(2, 'ball', 'blue', None, 0.0, (0.6, 0.6, 0.7, 0.7), 3.0)
SIGN = SeenObject(3, 'sign', 'white', 4, 30.0, (0.4, 0.1, 0.5, 0.5), 2.5)


def _frame(*objects: SeenObject, time_s: float = 0.0, faint: tuple[SeenObject, ...] = ()) -> SceneFrame:
    return SceneFrame(0, 0, time_s, True, objects, faint)


def _view(*objects: SeenObject, shown_height_px: int = 168) -> View:
    return View((_frame(*objects),), (0.0,), shown_height_px)


def test_two_crates_have_no_single_colour() -> None:
    other = SeenObject(4, 'crate', 'green', None, 0.0, (0.7, 0.5, 0.9, 0.8), 2.0)
    assert colour_turn(random.Random(0), _view(CRATE, other)) is None
    turn = colour_turn(random.Random(0), _view(CRATE))
    assert turn is not None
    assert turn.answer == 'red'


def test_counts_are_of_what_was_asked() -> None:
    view = _view(CRATE, BALL, SIGN)
    for seed in range(30):
        turn = count_turn(random.Random(seed), view)
        what = turn.question.split()[2]
        things = [CRATE, BALL, SIGN]
        expected = {'objects': 3, **{plural: sum(t.kind == kind for t in things) for kind, plural in texts.PLURALS.items()},
                    **{colour: sum(t.colour == colour for t in things) for colour in texts.COLOURS}}
        assert turn.answer == str(expected[what])


def test_where_names_every_thing_asked_for_or_says_it_is_not_there() -> None:
    turns = [where_turn(random.Random(seed), _view(CRATE)) for seed in range(60)]
    answers = {turn.answer for turn in turns}
    boxes = {tuple(place.box for place in turn.places) for turn in turns if turn.answer != 'not in view.'}
    assert boxes == {(CRATE.box,)}
    assert {turn.places for turn in turns if turn.answer == 'not in view.'} == {()}
    assert 'not in view.' in answers
    assert f'a red crate{texts.box_text(CRATE.box)}.' in answers


def test_a_region_question_is_about_a_thing_or_about_nothing() -> None:
    answers = {turn.answer for seed in range(80) if (turn := region_turn(random.Random(seed), _view(CRATE, BALL)))}
    assert answers == {'a red crate', 'a blue ball', 'nothing'}


def test_a_digit_is_stated_only_where_it_can_be_read() -> None:
    def answers(shown_height_px: int, sign: SeenObject) -> set[str]:
        view = _view(sign, shown_height_px=shown_height_px)
        return {turn.answer for seed in range(5) if (turn := sign_turn(random.Random(seed), view))}

    small = SeenObject(3, 'sign', 'white', 4, 12.0, (0.4, 0.1, 0.5, 0.5), 2.5)
    assert answers(168, SIGN) == {'4'}
    assert answers(56, SIGN) == set()
    assert answers(168, small) == set()


def _clip(*frames: SceneFrame, events: tuple[Event, ...]) -> Clip:
    return Clip(1, frames, events)


def test_a_change_is_told_at_the_first_shown_frame_that_has_it() -> None:
    clip = _clip(_frame(CRATE), _frame(CRATE, BALL), _frame(CRATE, BALL), events=(Event(1, 'appeared', 2),))
    assert changes_of(clip, (0, 1, 2), (5.0, 6.0, 7.0)) == (('came', 2, 6.0),)
    assert changes_of(clip, (0, 2), (5.0, 7.0)) == (('came', 2, 7.0),)
    assert changes_of(clip, (1, 2), (6.0, 7.0)) == ()


def test_what_came_without_a_clear_moment_is_not_asked() -> None:
    clip = _clip(_frame(CRATE), _frame(CRATE, BALL), events=())
    assert changes_of(clip, (0, 1), (0.0, 1.0)) is None


def test_what_came_and_went_is_not_asked() -> None:
    clip = _clip(_frame(CRATE), _frame(CRATE, BALL), _frame(CRATE),
                 events=(Event(1, 'appeared', 2), Event(2, 'left', 2)))
    assert changes_of(clip, (0, 1, 2), (0.0, 1.0, 2.0)) is None


def _turns(ask: Asker, view: View) -> dict[str, str]:
    return {turn.question: turn.answer for seed in range(300) if (turn := ask(random.Random(seed), view))}


def test_change_questions_tell_what_came_went_moved_and_changed_its_colour() -> None:
    green = replace(CRATE, colour='green')
    view = View((_frame(CRATE, SIGN), _frame(green, BALL)), (3.0, 4.5), 168,
                changes=(('came', 2, 4.5), ('went', 3, 4.5), ('painted', 1, 4.5)))
    turns = _turns(change_turn, view)
    assert turns['What appeared?'] == f'a blue ball{texts.box_text(BALL.box)}.'
    assert turns['What left?'] == 'a white sign.'
    assert turns['What moved?'] == 'nothing.'
    assert turns['What changed colour?'] == f'a green crate{texts.box_text(CRATE.box)}.'
    assert change_turn(random.Random(0), replace(view, changes=None)) is None


def test_when_questions_are_answered_by_the_stamp_of_a_frame() -> None:
    view = View((_frame(CRATE, SIGN), _frame(CRATE, BALL), _frame(BALL)), (3.0, 4.5, 6.0), 168,
                changes=(('came', 2, 4.5), ('went', 3, 4.5), ('went', 1, 6.0)))
    turns = _turns(when_turn, view)
    assert turns['When did the blue ball appear?'] == '4.5s'
    assert turns['When did the white sign leave?'] == '4.5s'
    assert turns['When did you last see the red crate?'] == '4.5s'
    assert turns['When did you first see the red crate?'] == '3.0s'


def test_no_time_is_asked_of_what_could_be_mistaken_or_was_half_seen() -> None:
    twin = replace(CRATE, id=7)
    assert _turns(when_turn, View((_frame(CRATE), _frame(CRATE, twin)), (0.0, 1.0), 168)) == {}
    assert _turns(when_turn, View((_frame(CRATE), _frame(faint=(CRATE,))), (0.0, 1.0), 168)) == {}
    painted = replace(CRATE, colour='green')
    assert _turns(when_turn, View((_frame(CRATE), _frame(painted)), (0.0, 1.0), 168)) == {}


def test_of_two_things_the_one_seen_earlier_came_first() -> None:
    person = SeenObject(9, 'person', 'blue', None, 0.0, (0.6, 0.1, 0.7, 0.7), 3.0)
    turns = _turns(order_turn, View((_frame(CRATE), _frame(CRATE, person)), (0.0, 1.0), 168))
    assert turns == {'Which came first, the red crate or the person in blue?': 'red crate',
                     'Which came first, the person in blue or the red crate?': 'red crate'}
    assert _turns(order_turn, View((_frame(CRATE, BALL), _frame(CRATE, BALL)), (0.0, 1.0), 168)) == {}


def test_what_was_seen_and_is_gone_has_passed() -> None:
    turns = _turns(passed_turn, View((_frame(CRATE), _frame(CRATE, BALL), _frame(CRATE)), (0.0, 1.0, 2.0), 168))
    assert turns['Did a blue ball pass?'] == 'yes'
    assert turns['Did a red crate pass?'] == 'no'
    assert set(turns.values()) == {'yes', 'no'}


def test_time_questions_of_one_row_are_different() -> None:
    view = View((_frame(CRATE, SIGN), _frame(CRATE, BALL)), (3.0, 4.5), 168, changes=(('came', 2, 4.5), ('went', 3, 4.5)))
    for seed in range(20):
        turns = sample_time_questions(random.Random(seed), view, 4)
        assert len({turn.question for turn in turns}) == len(turns) == 4


def test_questions_of_one_row_are_different() -> None:
    for seed in range(20):
        turns = sample_questions(random.Random(seed), _view(CRATE, BALL, SIGN), 4)
        assert len({turn.skill for turn in turns}) == len(turns) == 4


def test_whether_the_path_is_clear_is_read_off_the_same_place_whatever_the_answer() -> None:
    clear = _view(replace(CRATE, path_gap_m=0.1))
    blocked = View((_frame(BALL), replace(_frame(replace(CRATE, path_gap_m=-0.2)), path_clear=False)), (0.0, 1.0), 168)
    for view, answer in ((clear, 'yes'), (blocked, 'no')):
        turn = path_turn(random.Random(0), view)
        assert turn.answer == answer
        assert turn.sources == (((len(view.frames) - 1, None),),), 'the end of the newest frame'


def test_what_changed_is_asked_so_much_more_often_without_changing_what_is_asked_otherwise() -> None:
    view = View((_frame(CRATE, SIGN), _frame(CRATE, BALL), _frame(BALL)), (3.0, 4.5, 6.0), 168,
                changes=(('came', 2, 4.5), ('went', 3, 4.5), ('went', 1, 6.0)))
    asked = {weight: [turn.skill for seed in range(300)
                      for turn in sample_time_questions(random.Random(seed), view, 1, change_weight=weight)]
             for weight in (1.0, 3.0)}
    assert 0.25 < asked[1.0].count('change') / 300 < 0.42
    assert 0.5 < asked[3.0].count('change') / 300 < 0.7


def test_every_answer_says_where_it_can_be_read_off() -> None:
    flipped = replace(_view(CRATE, BALL), flipped=True)
    assert caption_turn(random.Random(0), _view(CRATE, BALL)).sources == (((0, 1),), ((0, 2),))
    assert caption_turn(random.Random(0), flipped).sources == (((0, 2),), ((0, 1),)), 'the ball is now on the left'
    assert caption_turn(random.Random(0), _view()).sources == ()
    view = View((_frame(CRATE, SIGN), _frame(CRATE, BALL), _frame(BALL)), (3.0, 4.5, 6.0), 168,
                changes=(('came', 2, 4.5), ('went', 3, 4.5), ('went', 1, 6.0)))
    found = {turn.question: turn.sources for ask in (when_turn, change_turn, order_turn, passed_turn, where_turn, colour_turn)
             for seed in range(300) if (turn := ask(random.Random(seed), view))}
    assert found['When did the blue ball appear?'] == (((1, 2),),)
    assert found['When did the white sign leave?'] == (((1, None),),), 'the first frame without it'
    assert found['When did you last see the red crate?'] == (((1, 1),),)
    assert found['When did you first see the red crate?'] == (((0, 1),),)
    assert found['What appeared?'] == (((2, 2),),)
    assert found['What left?'] == (((1, 1), (2, None)), ((0, 3), (2, None))), 'where they were last, and where that is known'
    assert found['What moved?'] == (((2, None),),), 'nothing did'
    assert found['Did a red crate pass?'] == (((0, 1), (1, 1)),)
    assert found['Which came first, the red crate or the blue ball?'] == (((0, 1),),)
    assert found['Where is the blue ball?'] == found['What colour is the ball?'] == (((2, 2),),)
