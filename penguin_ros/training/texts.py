"""What the nano model is taught to say: captions with boxes, questions and their answers. Knows nothing of tokens or pixels.

This file is the one place of the grammar:

    caption  := "nothing." | item ("; " item)* "."            items left to right, by the middle of their boxes
    item     := phrase box
    phrase   := "a " COLOUR " " KIND | "a person in " COLOUR | "a " COLOUR " sign saying " DIGIT
    box      := "<box>" x_min y_min x_max y_max "</box>"      each coordinate one token "<5>", "<15>", ... "<995>"
              | "<box>" x_min "," y_min "," x_max "," y_max "</box>"      in digits, "000" to "1000"

A coordinate token names the centre of one of 100 equal bins on the 0..1000 scale of reference/penguin_vl.md 4. A model learns
tokens or digits, never both; the nano model learns tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

KINDS = ('crate', 'barrel', 'ball', 'cone', 'person', 'sign')
COLOURS = ('red', 'green', 'blue', 'yellow', 'purple', 'white')
PLURALS = {'crate': 'crates', 'barrel': 'barrels', 'ball': 'balls', 'cone': 'cones', 'person': 'people', 'sign': 'signs'}

COORDINATE_BINS = 100
COORDINATE_TOKENS = tuple(f'<{10 * b + 5}>' for b in range(COORDINATE_BINS))
Coordinates = Literal['tokens', 'digits']

CAPTION_INSTRUCTION = 'Describe the scene with boxes.'
REGION_QUESTION = 'What is in {box}?'
REGION_PREFIX = 'In {box}: '   # in front of a question about one region
CAPTION_INSTRUCTIONS = (CAPTION_INSTRUCTION, 'List the objects with boxes.', 'What do you see? Give boxes.')
REGION_QUESTIONS = (REGION_QUESTION, 'What is inside {box}?', 'Describe the region {box}.', REGION_PREFIX + 'What is it?')
REGION_COLOUR_QUESTIONS = (REGION_PREFIX + 'What colour is it?', REGION_PREFIX + 'What color is it?')
WHERE_QUESTIONS = ('Where is the {noun}?', 'Find the {noun}.', 'Locate the {noun}.')
PRESENCE_QUESTIONS = ('Is there a {noun}?', 'Do you see a {noun}?')
COLOUR_QUESTIONS = ('What colour is the {kind}?', 'What color is the {kind}?')
COUNT_QUESTIONS = ('How many {things} are there?', 'How many {things} do you see?')
PATH_QUESTIONS = ('Is the path clear?', 'Is the path ahead clear?', 'Can I drive forward?')
SIGN_QUESTIONS = ('What does the sign say?', 'Which digit is on the sign?')
APPEARED_QUESTIONS = ('What appeared?', 'What is new?')
LEFT_QUESTIONS = ('What left?', 'What is gone?')
MOVED_QUESTIONS = ('What moved?',)
PAINTED_QUESTIONS = ('What changed colour?', 'What changed color?')
WHEN_APPEARED_QUESTIONS = ('When did the {noun} appear?',)
WHEN_LEFT_QUESTIONS = ('When did the {noun} leave?',)
FIRST_SEEN_QUESTIONS = ('When did you first see the {noun}?',)
LAST_SEEN_QUESTIONS = ('When did you last see the {noun}?',)
ORDER_QUESTIONS = ('Which came first, the {noun} or the {other}?',)
PASSED_QUESTIONS = ('Did a {noun} pass?', 'Did a {noun} pass by?')

NOTHING = 'nothing'
NOT_IN_VIEW = 'not in view'
NO_SIGN = 'no sign'


@dataclass(frozen=True)
class Thing:
    """One object as a text names it; ``box`` is x_min, y_min, x_max, y_max as fractions of the image, or None."""

    kind: str
    colour: str
    digit: int | None = None
    box: tuple[float, float, float, float] | None = None


def coordinate_token(fraction: float) -> str:
    """The token of a place between 0 (left, top) and 1 (right, bottom)."""
    return COORDINATE_TOKENS[min(max(int(fraction * COORDINATE_BINS), 0), COORDINATE_BINS - 1)]


def box_text(box: Sequence[float], coordinates: Coordinates = 'tokens') -> str:
    """A box given as fractions of the image, written as the model writes it."""
    if coordinates == 'digits':
        return '<box>' + ','.join(f'{round(1000 * min(max(edge, 0.0), 1.0)):03d}' for edge in box) + '</box>'
    return '<box>' + ''.join(coordinate_token(edge) for edge in box) + '</box>'


def time_text(time_s: float) -> str:
    """A moment as the prompt's stamps have it: ``12.0s``."""
    return f'{round(time_s, 1)}s'


def noun(kind: str, colour: str) -> str:
    """``red crate``, ``person in blue``."""
    return f'person in {colour}' if kind == 'person' else f'{colour} {kind}'


def phrase(thing: Thing) -> str:
    """``a red crate``, ``a person in blue``, ``a white sign saying 7``."""
    saying = f' saying {thing.digit}' if thing.digit is not None else ''
    return f'a {noun(thing.kind, thing.colour)}{saying}'


def middle(thing: Thing) -> float:
    """What things are ordered by: twice the middle of the box, 0 without one."""
    return thing.box[0] + thing.box[2] if thing.box else 0.0


def located(things: Sequence[Thing], coordinates: Coordinates = 'tokens') -> str:
    """Phrases with their boxes, left to right by the middle of the box, without a closing full stop."""
    ordered = sorted(things, key=middle)
    return '; '.join(phrase(thing) + (box_text(thing.box, coordinates) if thing.box else '') for thing in ordered)


def caption(things: Sequence[Thing], coordinates: Coordinates = 'tokens') -> str:
    """The grounded caption of one frame."""
    return f'{located(things, coordinates) or NOTHING}.'


_ITEM = re.compile(
    r'a (?:(?P<colour>\w+) (?P<kind>\w+?)|person in (?P<shirt>\w+))(?: saying (?P<digit>\d))?'
    r'(?:<box>(?P<box><\d+><\d+><\d+><\d+>|\d+,\d+,\d+,\d+)</box>)?(?=[;.]|$)')


def read_things(text: str) -> list[Thing]:
    """The things a caption or answer names; what does not follow the grammar is left out."""
    things = []
    for found in _ITEM.finditer(text):
        kind, colour = ('person', found['shirt']) if found['shirt'] else (found['kind'], found['colour'])
        if kind not in KINDS or colour not in COLOURS:
            continue
        box = None
        if found['box'] is not None:
            x_min, y_min, x_max, y_max = (int(edge) / 1000 for edge in re.findall(r'\d+', found['box']))
            box = (x_min, y_min, x_max, y_max)
        things.append(Thing(kind, colour, int(found['digit']) if found['digit'] else None, box))
    return things


def vocabulary_texts() -> list[str]:
    """Every wording at least once, for learning the tokenizer's merges and for checking that it stays compact."""
    fixed = [*CAPTION_INSTRUCTIONS, *PATH_QUESTIONS, *SIGN_QUESTIONS, *APPEARED_QUESTIONS, *LEFT_QUESTIONS,
             *MOVED_QUESTIONS, *PAINTED_QUESTIONS, f'{NOTHING}.', NOTHING, NOT_IN_VIEW, NO_SIGN, 'yes', 'no', 'objects',
             'Time 1.0s:', 'user\n', 'assistant\n', '\n\n', 'system\n', 'stream\n']
    open_questions = [*REGION_QUESTIONS, *REGION_COLOUR_QUESTIONS, *WHERE_QUESTIONS, *PRESENCE_QUESTIONS,
                      *WHEN_APPEARED_QUESTIONS, *WHEN_LEFT_QUESTIONS, *FIRST_SEEN_QUESTIONS, *LAST_SEEN_QUESTIONS,
                      *ORDER_QUESTIONS, *PASSED_QUESTIONS, *COLOUR_QUESTIONS, *COUNT_QUESTIONS]
    texts = list(fixed)
    for kind in KINDS:
        for colour in COLOURS:
            name = noun(kind, colour)
            texts += [f'{phrase(Thing(kind, colour))}; {phrase(Thing(kind, colour, 7))}.', name, kind, colour]
            texts += [question.format(box='', noun=name, other=name, kind=kind, things=f'{colour} {PLURALS[kind]}')
                      for question in open_questions]
    return texts
