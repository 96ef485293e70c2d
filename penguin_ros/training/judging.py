"""Is an answer right? One rule for each skill. Knows nothing of who answered or of how figures are added up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penguin_ros.training import texts
from penguin_ros.training.questions import Turn
from penguin_ros.training.scores import RIGHT_IOU, box_iou

TIME_SKILLS = ('change', 'when', 'order', 'passed')     # together: time
_MOMENT = re.compile(r'(\d+(?:\.\d+)?)s')


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and what it adds to which figures (0 to 1)."""

    right: bool
    figures: dict[str, float]


def judge(turn: Turn, answer: str, times_s: Sequence[float] = ()) -> Verdict:
    """An answer against the right one; ``times_s`` are the stamps of the frames shown, for questions about moments."""
    if turn.skill == 'where':
        return _where(turn.places or texts.read_things(turn.answer), answer)
    if turn.skill in ('change', 'region'):
        right = _names(answer) == _names(turn.answer)
    else:
        right = answer == turn.answer
    name = turn.skill
    if name == 'sign':
        name = 'sign_absent' if turn.answer == texts.NO_SIGN else 'digit'
    figures = {name: float(right)}
    if name in TIME_SKILLS:
        figures['time'] = float(right)
    if name == 'when':
        figures['when_near'] = float(is_near(turn.answer, answer, times_s))
        # What was there at the start, or still is, can be told without finding the frame in which something happened.
        if turn.answer not in [texts.time_text(end_s) for end_s in (*times_s[:1], *times_s[-1:])]:
            figures['when_between'] = float(right)
    if name == 'change' and _names(turn.answer):
        figures['change_some'] = float(right)
    return Verdict(right, figures)


def _names(text: str) -> list[tuple[str, str]]:
    return sorted((thing.kind, thing.colour) for thing in texts.read_things(text))


def _where(true: Sequence[texts.Thing], answer: str) -> Verdict:
    named = texts.read_things(answer)
    if not true:
        return Verdict(not named, {'where_absent': float(not named)})
    best = [max((box_iou(one.box, other.box) for other in named if one.box and other.box), default=0.0) for one in true]
    return Verdict(min(best) >= RIGHT_IOU, {'where_iou': float(np.mean(best))})


def is_near(right_answer: str, answer: str, times_s: Sequence[float]) -> bool:
    """Whether a moment lies within one frame of the right one."""
    found, needed = _MOMENT.fullmatch(answer.strip()), _MOMENT.fullmatch(right_answer)
    if not found or not needed or not len(times_s):
        return False
    slot = int(np.abs(np.asarray(times_s) - float(needed[1])).argmin())
    before, after = times_s[max(slot - 1, 0)], times_s[min(slot + 1, len(times_s) - 1)]
    return before - 0.06 <= float(found[1]) <= after + 0.06     # answers have one decimal


def choices_of(turn: Turn) -> tuple[str, ...]:
    """The choices to offer with a question, one of them right; none where its answers cannot be listed."""
    if turn.skill == 'order':
        named = tuple(texts.noun(thing.kind, thing.colour) for thing in named_in(turn.question))
        return named if turn.answer in named else ()
    for choices in (('yes', 'no'), texts.COLOURS, tuple(str(number) for number in range(10))):
        if turn.answer in choices:
            return choices
    return ()


def named_in(question: str) -> list[texts.Thing]:
    """The things a question names, in its order."""
    found = [(place.start(), texts.Thing(kind, colour)) for kind in texts.KINDS for colour in texts.COLOURS
             for place in re.finditer(rf'\b{texts.noun(kind, colour)}\b', question)]
    return [thing for _, thing in sorted(found, key=lambda one: one[0])]
