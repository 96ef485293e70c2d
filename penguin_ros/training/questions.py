"""What is asked about a frame or a clip, and the right answers. Knows nothing of tokens or of how rows are laid out.

Every function returns None where the question has no clear answer for this frame (two crates: "the crate" is none).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from penguin_ros.training import texts
from penguin_ros.training.dataset import Clip, SceneFrame, SeenObject, shown_box
from penguin_ros.training.texts import Thing

READABLE_DIGIT_PX = 20      # in the camera's pixels: smaller digits are not stated
READABLE_SHOWN_PX = 12      # in the pixels of the frame as shown to the model
NATIVE_HEIGHT_PX = 240      # of the simulated camera
NATIVE_ASPECT = 4 / 3


Sources = tuple[tuple[int, int | None], ...]    # slots of a view's frames with ids of things in them


@dataclass(frozen=True)
class Turn:
    """One question with its answer."""

    skill: str
    question: str
    answer: str
    # Where each item of the answer (those of texts.py end at ";") can be read off: things, or with None the end of a frame.
    sources: tuple[Sources, ...] = ()
    places: tuple[Thing, ...] = ()      # where asked for: the things, boxes as they are and not as an answer can write them


@dataclass(frozen=True)
class View:
    """A clip's frames as shown to the model; the last is the newest, and questions are about it."""

    frames: tuple[SceneFrame, ...]
    times_s: tuple[float, ...]
    shown_height_px: int            # of the newest frame
    # ('came' | 'went' | 'moved' | 'painted', object id, time_s); None where what changed is not clear
    changes: tuple[tuple[str, int, float], ...] | None = None
    flipped: bool = False
    coordinates: texts.Coordinates = 'tokens'       # how boxes are written in questions and answers

    @property
    def newest(self) -> SceneFrame:
        return self.frames[-1]


def things_of(view: View) -> list[Thing]:
    """What the caption of the newest frame names."""
    return [thing for thing, _ in _seen_things(view)]


def _seen_things(view: View) -> list[tuple[Thing, Sources]]:
    """The things of the newest frame, left to right as shown, with where they are."""
    return _left_to_right([(_thing(view, seen), ((len(view.frames) - 1, seen.id),)) for seen in view.newest.objects])


def _left_to_right(things: Sequence[tuple[Thing, Sources]]) -> list[tuple[Thing, Sources]]:
    return sorted(things, key=lambda thing: texts.middle(thing[0]))


def _thing(view: View, seen: SeenObject) -> Thing:
    return Thing(seen.kind, seen.colour, seen.digit if is_readable(seen, view.shown_height_px) else None,
                 shown_box(seen, view.flipped))


def is_readable(seen: SeenObject, shown_height_px: int) -> bool:
    """Whether a sign's digit can be read in the camera's image and in a frame shown at that height."""
    shown_px = seen.digit_px * shown_height_px / NATIVE_HEIGHT_PX
    return seen.digit is not None and seen.digit_px >= READABLE_DIGIT_PX and shown_px >= READABLE_SHOWN_PX


def changes_of(clip: Clip, chosen: Sequence[int], times_s: Sequence[float]) -> tuple[tuple[str, int, float], ...] | None:
    """What changed over the chosen frames of a clip, at the stamp of the first chosen frame that shows it.

    None where a thing came or went without a clear moment (it faded in or out of sight), or more than once.
    """
    if not clip.events_tell:
        return None
    names = {'appeared': 'came', 'entered_view': 'came', 'left': 'went', 'left_view': 'went', 'moved': 'moved',
             'changed_colour': 'painted'}
    changes: dict[tuple[str, int], float] = {}
    for event in clip.events:
        if event.id is None or event.type not in names or not chosen[0] < event.frame <= chosen[-1]:
            continue
        slot = next(slot for slot, frame in enumerate(chosen) if frame >= event.frame)
        changes.setdefault((names[event.type], event.id), times_s[slot])
    first = {seen.id for seen in clip.frames[chosen[0]].objects}
    last = {seen.id for seen in clip.frames[chosen[-1]].objects}
    came = {id for name, id in changes if name == 'came'}
    went = {id for name, id in changes if name == 'went'}
    if came & went or last - first != came or first - last != went:
        return None
    return tuple((name, id, time_s) for (name, id), time_s in changes.items())


# -- about the newest frame ------------------------------------------------------------------------------------------

def caption_turn(rng: random.Random, view: View) -> Turn:
    instruction = texts.CAPTION_INSTRUCTION if rng.random() < 0.8 else rng.choice(texts.CAPTION_INSTRUCTIONS)
    things = _seen_things(view)
    return Turn('caption', instruction, texts.caption([thing for thing, _ in things], view.coordinates),
                tuple(source for _, source in things))


def region_turn(rng: random.Random, view: View) -> Turn | None:
    things = _seen_things(view)
    if things and rng.random() < 0.85:
        thing, source = rng.choice(things)
        question = rng.choice(texts.REGION_QUESTIONS) if rng.random() < 0.5 else texts.REGION_QUESTION
        return Turn('region', question.format(box=_drawn_box(rng, view, thing)), texts.phrase(thing), (source,))
    box = _empty_box(rng, view)
    return box and Turn('region', texts.REGION_QUESTION.format(box=texts.box_text(box, view.coordinates)), texts.NOTHING)


def region_colour_turn(rng: random.Random, view: View) -> Turn | None:
    things = _seen_things(view)
    if not things:
        return None
    thing, source = rng.choice(things)
    question = rng.choice(texts.REGION_COLOUR_QUESTIONS).format(box=_drawn_box(rng, view, thing))
    return Turn('region_colour', question, thing.colour, (source,))


def _drawn_box(rng: random.Random, view: View, thing: Thing) -> str:
    """A thing's box as an operator would draw it: each edge off by up to a tenth of the side."""
    box = thing.box
    assert box is not None
    width, height = box[2] - box[0], box[3] - box[1]
    x0, x1 = (min(max(x + rng.uniform(-0.1, 0.1) * width, 0.0), 1.0) for x in (box[0], box[2]))
    y0, y1 = (min(max(y + rng.uniform(-0.1, 0.1) * height, 0.0), 1.0) for y in (box[1], box[3]))
    return texts.box_text((x0, y0, x1, y1), view.coordinates)


def _empty_box(rng: random.Random, view: View) -> tuple[float, float, float, float] | None:
    taken = [_thing(view, seen).box for seen in (*view.newest.objects, *view.newest.faint)]
    for _ in range(10):
        width, height = rng.uniform(0.08, 0.3), rng.uniform(0.12, 0.4)
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        if all(box is None or x > box[2] or x + width < box[0] or y > box[3] or y + height < box[1] for box in taken):
            return x, y, x + width, y + height
    return None


def where_turn(rng: random.Random, view: View) -> Turn:
    things = things_of(view)
    kind, colour = _asked(rng, things, absent=0.15)
    found = [(thing, source) for thing, source in _seen_things(view) if (thing.kind, thing.colour) == (kind, colour)]
    question = rng.choice(texts.WHERE_QUESTIONS).format(noun=texts.noun(kind, colour))
    if not found:
        return Turn('where', question, f'{texts.NOT_IN_VIEW}.')
    return Turn('where', question, f'{texts.located([thing for thing, _ in found], view.coordinates)}.',
                tuple(source for _, source in found), tuple(thing for thing, _ in found))


def presence_turn(rng: random.Random, view: View) -> Turn:
    things = things_of(view)
    kind, colour = _asked(rng, things, absent=0.5)
    found = [place for thing, source in _seen_things(view) if (thing.kind, thing.colour) == (kind, colour) for place in source]
    question = rng.choice(texts.PRESENCE_QUESTIONS).format(noun=texts.noun(kind, colour))
    return Turn('presence', question, 'yes', (tuple(found),)) if found else Turn('presence', question, 'no')


def _asked(rng: random.Random, things: Sequence[Thing], *, absent: float) -> tuple[str, str]:
    """Kind and colour to ask for; those that are absent share one of the two with something present, if they can."""
    if things and rng.random() > absent:
        thing = rng.choice(things)
        return thing.kind, thing.colour
    kind, colour = rng.choice(texts.KINDS), rng.choice(texts.COLOURS)
    if things and rng.random() < 0.6:
        near = rng.choice(things)
        kind, colour = (near.kind, colour) if rng.random() < 0.5 else (kind, near.colour)
    return kind, colour


def colour_turn(rng: random.Random, view: View) -> Turn | None:
    things = _seen_things(view)
    kinds = [thing.kind for thing, _ in things]
    single = [(thing, source) for thing, source in things if kinds.count(thing.kind) == 1]
    if not single:
        return None
    thing, source = rng.choice(single)
    return Turn('colour', rng.choice(texts.COLOUR_QUESTIONS).format(kind=thing.kind), thing.colour, (source,))


def count_turn(rng: random.Random, view: View) -> Turn:
    things = things_of(view)
    choice = rng.random()
    if choice < 0.5:
        what, count = 'objects', len(things)
    elif choice < 0.8:
        kind = rng.choice(things).kind if things and rng.random() < 0.75 else rng.choice(texts.KINDS)
        what, count = texts.PLURALS[kind], sum(thing.kind == kind for thing in things)
    else:
        colour = rng.choice(things).colour if things and rng.random() < 0.75 else rng.choice(texts.COLOURS)
        what, count = f'{colour} objects', sum(thing.colour == colour for thing in things)
    return Turn('count', rng.choice(texts.COUNT_QUESTIONS).format(things=what), str(count))


def path_turn(rng: random.Random, view: View) -> Turn:
    """Read off the end of the frame either way: which place to look at must not depend on the answer looked for."""
    answer = 'yes' if view.newest.path_clear else 'no'
    return Turn('path', rng.choice(texts.PATH_QUESTIONS), answer, (((len(view.frames) - 1, None),),))


def sign_turn(rng: random.Random, view: View) -> Turn | None:
    signs = [seen for seen in (*view.newest.objects, *view.newest.faint) if seen.kind == 'sign']
    if not signs:
        return Turn('sign', rng.choice(texts.SIGN_QUESTIONS), texts.NO_SIGN)
    if len(signs) > 1 or not is_readable(signs[0], view.shown_height_px) or signs[0] not in view.newest.objects:
        return None
    return Turn('sign', rng.choice(texts.SIGN_QUESTIONS), str(signs[0].digit), (((len(view.frames) - 1, signs[0].id),),))


# -- about the whole view --------------------------------------------------------------------------------------------

_CHANGE_QUESTIONS = {'came': texts.APPEARED_QUESTIONS, 'went': texts.LEFT_QUESTIONS, 'moved': texts.MOVED_QUESTIONS,
                     'painted': texts.PAINTED_QUESTIONS}


def change_turn(rng: random.Random, view: View) -> Turn | None:
    """What came, went, moved or changed its colour since the first frame shown."""
    if len(view.frames) < 2 or view.changes is None:
        return None
    happened = sorted({what for what, _, _ in view.changes})
    what = rng.choice(happened) if happened and rng.random() < 0.6 else rng.choice(sorted(_CHANGE_QUESTIONS))
    changed = {id for name, id, _ in view.changes if name == what}
    in_view = {one.id for one in view.newest.objects}
    end = (len(view.frames) - 1, None)      # the newest frame's, where memory.py asks what went and how many changed
    found = _left_to_right([(_thing(view, one), ((slot, one.id), end) if what == 'went' else ((slot, one.id),))
                            for slot, one in _latest_looks(view).values()
                            if one.id in changed and (one.id in in_view or what == 'went')])
    things = [replace(thing, digit=None, box=None) if what == 'went' else thing for thing, _ in found]
    return Turn('change', rng.choice(_CHANGE_QUESTIONS[what]), f'{texts.located(things, view.coordinates) or texts.NOTHING}.',
                tuple(source for _, source in found) or ((end,),))


def when_turn(rng: random.Random, view: View) -> Turn | None:
    """When something appeared, left, was first or last seen; the answer is the stamp of a frame."""
    askable = []
    for what, id, time_s in view.changes or ():
        questions = {'came': texts.WHEN_APPEARED_QUESTIONS, 'went': texts.WHEN_LEFT_QUESTIONS}.get(what)
        if questions and id in _unmistakable(view):
            slot = view.times_s.index(time_s)
            askable.append((questions, id, time_s, (slot, id if what == 'came' else None)))
    if not askable or rng.random() < 0.5:
        wanted = rng.random() < 0.6     # things that came or went teach more than those that are there all the time
        askable = []
        for id, slots in _unmistakable(view).items():
            if bool(slots[0] > 0 or slots[-1] < len(view.frames) - 1) == wanted:
                askable += [(texts.FIRST_SEEN_QUESTIONS, id, view.times_s[slots[0]], (slots[0], id)),
                            (texts.LAST_SEEN_QUESTIONS, id, view.times_s[slots[-1]], (slots[-1], id))]
    if not askable or len(view.frames) < 2:
        return None
    questions, id, time_s, source = rng.choice(askable)
    return Turn('when', rng.choice(questions).format(noun=_noun(view, id)), texts.time_text(time_s), ((source,),))


def order_turn(rng: random.Random, view: View) -> Turn | None:
    """Which of two things was seen first."""
    first_slot = {id: slots[0] for id, slots in _unmistakable(view).items()}
    later = [id for id in first_slot if first_slot[id] > 0]
    if not later:
        return None
    second = rng.choice(later)
    earlier = [id for id in first_slot if first_slot[id] < first_slot[second]]
    if not earlier:
        return None
    first = rng.choice(earlier)
    one, other = rng.sample([first, second], 2)
    question = rng.choice(texts.ORDER_QUESTIONS).format(noun=_noun(view, one), other=_noun(view, other))
    return Turn('order', question, _noun(view, first), (((first_slot[first], first),),))


def passed_turn(rng: random.Random, view: View) -> Turn | None:
    """Whether something was in view earlier and is gone."""
    if len(view.frames) < 2:
        return None
    present = {(one.kind, one.colour) for one in (*view.newest.objects, *view.newest.faint)}
    earlier = {(one.kind, one.colour) for frame in view.frames[:-1] for one in frame.objects}
    faint = {(one.kind, one.colour) for frame in view.frames for one in frame.faint}
    gone = sorted(earlier - present)
    if gone and rng.random() < 0.55:
        kind, colour = rng.choice(gone)
    else:
        kind, colour = _asked(rng, [Thing(*label) for label in sorted(earlier | present)], absent=0.6)
        if (kind, colour) in gone or (kind, colour) in faint - earlier:
            return None
    question = rng.choice(texts.PASSED_QUESTIONS).format(noun=texts.noun(kind, colour))
    if (kind, colour) not in gone:
        return Turn('passed', question, 'no')
    places = tuple((slot, one.id) for slot, frame in enumerate(view.frames) for one in frame.objects
                   if (one.kind, one.colour) == (kind, colour))
    return Turn('passed', question, 'yes', (places,))


def _latest_looks(view: View) -> dict[int, tuple[int, SeenObject]]:
    """By id: the last slot that shows a thing, and how."""
    return {one.id: (slot, one) for slot, frame in enumerate(view.frames) for one in frame.objects}


def _noun(view: View, id: int) -> str:
    _, look = _latest_looks(view)[id]
    return texts.noun(look.kind, look.colour)


def _unmistakable(view: View) -> dict[int, list[int]]:
    """Things one can ask about by kind and colour, with the frames that show them.

    Alone of their looks in all frames, never repainted, and never only half seen while not listed.
    """
    slots: dict[int, list[int]] = {}
    looks: dict[int, set[tuple[str, str]]] = {}
    faint = {one.id for frame in view.frames for one in frame.faint}
    for slot, frame in enumerate(view.frames):
        for one in (*frame.objects, *frame.faint):
            looks.setdefault(one.id, set()).add((one.kind, one.colour))
        for one in frame.objects:
            slots.setdefault(one.id, []).append(slot)
    worn = [look for every in looks.values() for look in every]
    return {id: found for id, found in slots.items()
            if id not in faint and len(looks[id]) == 1 and worn.count(next(iter(looks[id]))) == 1}


Asker = Callable[[random.Random, View], 'Turn | None']

QUESTIONS: tuple[tuple[Asker, float], ...] = (
    (region_turn, 1.0), (region_colour_turn, 0.5), (where_turn, 1.2), (presence_turn, 0.5), (colour_turn, 0.8),
    (count_turn, 0.8), (path_turn, 0.7), (sign_turn, 0.5))


TIME_QUESTIONS: tuple[tuple[Asker, float], ...] = (
    (change_turn, 1.0), (when_turn, 1.0), (order_turn, 0.5), (passed_turn, 0.5))


def sample_questions(rng: random.Random, view: View, count: int) -> list[Turn]:
    """``count`` questions about the newest frame, of different kinds as far as possible."""
    turns: list[Turn] = []
    askers, weights = [asker for asker, _ in QUESTIONS], [weight for _, weight in QUESTIONS]
    for _ in range(4 * count):
        if len(turns) >= count or not askers:
            break
        index = rng.choices(range(len(askers)), weights)[0]
        turn = askers.pop(index)(rng, view)
        weights.pop(index)
        # Most frames hold no sign; asking for one each time would teach only to say so.
        if turn and not (turn.answer == texts.NO_SIGN and rng.random() < 0.8):
            turns.append(turn)
    return turns


def sample_time_questions(rng: random.Random, view: View, count: int, *, change_weight: float = 1.0) -> list[Turn]:
    """Up to ``count`` different questions about what happened over the whole view; what changed is asked so much more often."""
    turns: dict[str, Turn] = {}
    askers = [asker for asker, _ in TIME_QUESTIONS]
    weights = [weight * (change_weight if asker is change_turn else 1.0) for asker, weight in TIME_QUESTIONS]
    for _ in range(4 * count):
        if len(turns) >= count:
            break
        turn = rng.choices(askers, weights)[0](rng, view)
        if turn:
            turns.setdefault(turn.question, turn)
    return list(turns.values())
