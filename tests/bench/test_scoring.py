import pytest

from penguin_ros.bench.policies import Said
from penguin_ros.bench.scoring import Moment, caption_scores, told_changes
from penguin_ros.core.frame import Region
from penguin_ros.core.scene import GroundedPhrase

SECOND = 1_000_000_000
CRATE = {'id': 1, 'kind': 'crate', 'colour': 'red', 'digit': None, 'box': [10, 10, 60, 60]}
BALL = {'id': 2, 'kind': 'ball', 'colour': 'blue', 'digit': None, 'box': [100, 20, 140, 60]}


def said(*entries, is_new: bool = True) -> Said:
    phrases = tuple(GroundedPhrase(f'a {entry["colour"]} {entry["kind"]}', 0, 0, Region(*entry['box']), 1.0)
                    for entry in entries)
    return Said('', phrases, is_new=is_new, whole=True)


def moment(second: float, true, named, *events, is_new: bool = True) -> Moment:
    truth = {'objects': list(true), 'events': [{'type': kind, 'id': id} for kind, id in events]}
    return Moment(round(second * SECOND), truth, said(*named, is_new=is_new), 240, 320)


def test_a_caption_that_stands_too_long_loses_in_force_but_not_as_written() -> None:
    scores = caption_scores([moment(0, [CRATE], [CRATE]), moment(1, [CRATE, BALL], [CRATE], is_new=False)])
    assert scores['f1_written'] == 1.0
    assert scores['f1'] == pytest.approx(2 * 2 / (2 + 3))
    assert scores['iou'] == pytest.approx(1.0)


def test_what_appears_is_told_once_a_caption_names_it() -> None:
    changes = told_changes([moment(0, [CRATE], [CRATE]), moment(1, [CRATE, BALL], [CRATE], ('appeared', 2)),
                            moment(2, [CRATE, BALL], [CRATE, BALL])])
    assert (changes.total, changes.missed, changes.delays_s) == (1, 0, [1.0])


def test_what_is_never_told_or_told_too_late_is_missed() -> None:
    never = [moment(0, [BALL], [BALL]), *(moment(n, [], [BALL], *([('left', 2)] if n == 1 else [])) for n in range(1, 5))]
    assert told_changes(never).missed == 1
    late = [*never, moment(4.5, [], [])]
    assert told_changes(late).missed == 1
    assert told_changes([*never[:3], moment(2.5, [], [])]).missed == 0


def test_a_change_overtaken_by_another_of_the_same_thing_is_followed_no_further() -> None:
    changes = told_changes([moment(0, [], []), moment(1, [BALL], [], ('entered_view', 2)), moment(2, [], [], ('left_view', 2)),
                            moment(3, [BALL], [BALL])])
    assert (changes.total, changes.missed) == (2, 1), 'that it left was right all along'


def test_a_second_thing_of_one_name_must_be_counted() -> None:
    other = {**CRATE, 'id': 3, 'box': [200, 10, 260, 60]}
    changes = told_changes([moment(0, [CRATE], [CRATE]), moment(1, [CRATE, other], [CRATE], ('appeared', 3)),
                            moment(2, [CRATE, other], [CRATE, other])])
    assert changes.delays_s == [1.0]


def test_a_move_is_told_by_the_new_place() -> None:
    moved = {**CRATE, 'box': [150, 10, 200, 60]}
    changes = told_changes([moment(0, [CRATE], [CRATE]), moment(1, [moved], [CRATE], ('moved', 1)),
                            moment(2, [moved], [moved])])
    assert changes.delays_s == [1.0]
