"""What is asked about a frame or a clip, and the right answers. Knows nothing of tokens or of how rows are laid out.

Every function returns None where the question has no clear answer for this frame (two crates: "the crate" is none).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from penguin_ros.training import texts
from penguin_ros.training.dataset import Clip, SceneFrame, SeenObject
from penguin_ros.training.texts import Thing

READABLE_DIGIT_PX = 20      # in the camera's pixels: smaller digits are not stated
READABLE_SHOWN_PX = 12      # in the pixels of the frame as shown to the model


@dataclass(frozen=True)
class Turn:
    """One question with its answer."""

    skill: str
    question: str
    answer: str


@dataclass(frozen=True)
class View:
    """A clip's frames as shown to the model; the last is the newest, and questions are about it."""

    frames: tuple[SceneFrame, ...]
    times_s: tuple[float, ...]
    shown_height_px: int            # of the newest frame
    native_height_px: int = 240
    changes: tuple[tuple[str, int, float], ...] = ()    # ('came' | 'went' | 'moved', object id, time_s)
    flipped: bool = False

    @property
    def newest(self) -> SceneFrame:
        return self.frames[-1]


def things_of(view: View) -> list[Thing]:
    """What the caption of the newest frame names."""
    return [_thing(view, seen) for seen in view.newest.objects]


def _thing(view: View, seen: SeenObject) -> Thing:
    box = seen.box
    if view.flipped:
        box = (1.0 - box[2], box[1], 1.0 - box[0], box[3])
    return Thing(seen.kind, seen.colour, seen.digit if _is_readable(view, seen) else None, box)


def _is_readable(view: View, seen: SeenObject) -> bool:
    shown_px = seen.digit_px * view.shown_height_px / view.native_height_px
    return seen.digit is not None and seen.digit_px >= READABLE_DIGIT_PX and shown_px >= READABLE_SHOWN_PX


def changes_of(clip: Clip, chosen: Sequence[int], times_s: Sequence[float]) -> tuple[tuple[str, int, float], ...] | None:
    """What changed over the chosen frames of a clip, at the stamp of the first chosen frame that shows it.

    None where a thing came or went without a clear moment (it faded in or out of sight), or more than once.
    """
    names = {'appeared': 'came', 'entered_view': 'came', 'left': 'went', 'left_view': 'went', 'moved': 'moved'}
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
    return Turn('caption', instruction, texts.caption(things_of(view)))


def region_turn(rng: random.Random, view: View) -> Turn | None:
    things = things_of(view)
    if things and rng.random() < 0.85:
        thing = rng.choice(things)
        question = rng.choice(texts.REGION_QUESTIONS) if rng.random() < 0.5 else texts.REGION_QUESTION
        return Turn('region', question.format(box=texts.box_text(_jittered(rng, thing.box))), texts.phrase(thing))
    box = _empty_box(rng, view)
    return box and Turn('region', texts.REGION_QUESTION.format(box=texts.box_text(box)), texts.NOTHING)


def region_colour_turn(rng: random.Random, view: View) -> Turn | None:
    things = things_of(view)
    if not things:
        return None
    thing = rng.choice(things)
    question = rng.choice(texts.REGION_COLOUR_QUESTIONS).format(box=texts.box_text(_jittered(rng, thing.box)))
    return Turn('region_colour', question, thing.colour)


def _jittered(rng: random.Random, box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float]:
    """A box as an operator would draw it: each edge off by up to a tenth of the side."""
    assert box is not None
    width, height = box[2] - box[0], box[3] - box[1]
    x0, x1 = (min(max(x + rng.uniform(-0.1, 0.1) * width, 0.0), 1.0) for x in (box[0], box[2]))
    y0, y1 = (min(max(y + rng.uniform(-0.1, 0.1) * height, 0.0), 1.0) for y in (box[1], box[3]))
    return x0, y0, x1, y1


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
    found = [thing for thing in things if (thing.kind, thing.colour) == (kind, colour)]
    question = rng.choice(texts.WHERE_QUESTIONS).format(noun=texts.noun(kind, colour))
    return Turn('where', question, f'{texts.located(found)}.' if found else f'{texts.NOT_IN_VIEW}.')


def presence_turn(rng: random.Random, view: View) -> Turn:
    things = things_of(view)
    kind, colour = _asked(rng, things, absent=0.5)
    found = any((thing.kind, thing.colour) == (kind, colour) for thing in things)
    question = rng.choice(texts.PRESENCE_QUESTIONS).format(noun=texts.noun(kind, colour))
    return Turn('presence', question, 'yes' if found else 'no')


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
    kinds = [thing.kind for thing in things_of(view)]
    single = [thing for thing in things_of(view) if kinds.count(thing.kind) == 1]
    if not single:
        return None
    thing = rng.choice(single)
    return Turn('colour', rng.choice(texts.COLOUR_QUESTIONS).format(kind=thing.kind), thing.colour)


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
    return Turn('path', rng.choice(texts.PATH_QUESTIONS), 'yes' if view.newest.path_clear else 'no')


def sign_turn(rng: random.Random, view: View) -> Turn | None:
    signs = [seen for seen in (*view.newest.objects, *view.newest.faint) if seen.kind == 'sign']
    if not signs:
        return Turn('sign', rng.choice(texts.SIGN_QUESTIONS), texts.NO_SIGN)
    if len(signs) > 1 or not _is_readable(view, signs[0]) or signs[0] not in view.newest.objects:
        return None
    return Turn('sign', rng.choice(texts.SIGN_QUESTIONS), str(signs[0].digit))


# -- about the whole view --------------------------------------------------------------------------------------------

def change_turn(rng: random.Random, view: View) -> Turn | None:
    """What came, went or moved since the first frame shown, or when."""
    if len(view.frames) < 2:
        return None
    name = rng.choice(('came', 'came', 'went', 'went', 'moved'))
    changed = {id: time_s for what, id, time_s in view.changes if what == name}
    when = {'came': texts.WHEN_APPEARED_QUESTIONS, 'went': texts.WHEN_LEFT_QUESTIONS}.get(name)
    seen = {one.id: one for frame in view.frames for one in frame.objects}  # the newest look of each
    if when and changed and rng.random() < 0.5:
        id = rng.choice(sorted(changed))
        same = [one for one in seen.values() if (one.kind, one.colour) == (seen[id].kind, seen[id].colour)]
        if len(same) > 1:
            return None
        noun = texts.noun(seen[id].kind, seen[id].colour)
        return Turn('when', rng.choice(when).format(noun=noun), texts.time_text(changed[id]))
    if name == 'moved':
        changed = {id: time_s for id, time_s in changed.items() if any(one.id == id for one in view.newest.objects)}
    things = [_thing(view, seen[id]) for id in changed]
    if name == 'went':
        things = [replace(thing, digit=None, box=None) for thing in sorted(things, key=lambda thing: thing.box or ())]
    question = rng.choice({'came': texts.APPEARED_QUESTIONS, 'went': texts.LEFT_QUESTIONS,
                           'moved': texts.MOVED_QUESTIONS}[name])
    return Turn('change', question, f'{texts.located(things) or texts.NOTHING}.')


Asker = Callable[[random.Random, View], 'Turn | None']

QUESTIONS: tuple[tuple[Asker, float], ...] = (
    (region_turn, 1.0), (region_colour_turn, 0.5), (where_turn, 1.2), (presence_turn, 0.5), (colour_turn, 0.8),
    (count_turn, 0.8), (path_turn, 0.7), (sign_turn, 0.5))


def sample_questions(rng: random.Random, view: View, count: int, *, changes: bool = False) -> list[Turn]:
    """``count`` questions about a view, of different kinds as far as possible; one or two about changes if asked for."""
    turns: list[Turn] = []
    if changes:
        turns += {turn.question: turn for turn in (change_turn(rng, view), change_turn(rng, view)) if turn}.values()
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
    return turns[:count]
