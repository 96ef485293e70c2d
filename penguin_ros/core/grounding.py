"""Which phrases and boxes a text names, and what is refused as malformed. Knows nothing of engines or of tracks.

The box format of the published checkpoints is not documented (reference/penguin_vl.md 4): integers 0 to 1000, origin top
left, in some wrapper. So the reader is lenient about the wrapper and strict about the values: a box is four whole numbers
from 0 to 1000 that span an area; anything else is counted as malformed and leaves no box behind.

Wrappers read: `<box>..</box>` with any separators and with a token per number (the nano model: `<box><5><15>..</box>`),
`<|box_start|>..<|box_end|>`, `[x1, y1, x2, y2]`, `(x1,y1),(x2,y2)`, `<ref>phrase</ref>` before a box, and a JSON list of
objects with `bbox_2d` (or `bbox`, `box`) and `label`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penguin_ros.core.confidence import LogOddsScale
from penguin_ros.core.frame import Region
from penguin_ros.core.grid import PERMILLE, px_from_permille
from penguin_ros.core.scene import GroundedPhrase

_NUMBER = r'-?\d+(?:\.\d+)?'
_MARKUP = re.compile(
    r'\s*(?:'
    r'<box>(?P<tagged>.*?)(?:</box>|(?=<box>)|$)'
    r'|<\|box_start\|>(?P<qwen>.*?)(?:<\|box_end\|>|$)'
    rf'|\[\s*(?P<bracketed>{_NUMBER}(?:\s*,\s*{_NUMBER})+)\s*\]'
    rf'|(?P<pairs>\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*,?\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\))'
    r')', re.DOTALL)
_NAMED = re.compile(r'<(?:ref|\|object_ref_start\|)>(.*?)<(?:/ref|\|object_ref_end\|)>', re.DOTALL)
_PHRASE_STARTS_AFTER = re.compile(r'[;,.:\n]\s*|\s(?:and|at|with)\s')
_JSON_BOX_KEYS = ('bbox_2d', 'bbox', 'box')
_JSON_LABEL_KEYS = ('label', 'phrase', 'name')
_UNSCALED = LogOddsScale()


@dataclass(frozen=True)
class Grounded:
    """A text without markup, and what it names."""

    text: str
    phrases: tuple[GroundedPhrase, ...]
    malformed: int          # boxes that were refused


def ground(raw: str, *, ends: Sequence[int], probabilities: Sequence[float], height_px: int, width_px: int,
           scale: LogOddsScale = _UNSCALED) -> Grounded:
    """Read a decoded text: phrases tied to boxes in pixels of the original image.

    ``ends[i]`` is the number of characters of ``raw`` that stand once token i is written (Words.text_with_ends) and
    ``probabilities[i]`` its probability; a phrase's confidence is the mean over the tokens of its words and its box, put
    on ``scale``.
    """
    listed = _json_items(raw)
    if listed is not None:
        return _ground_json(raw, listed, ends, probabilities, height_px, width_px, scale)
    text = ''
    phrases: list[GroundedPhrase] = []
    malformed = 0
    consumed = 0
    last_box_end = 0
    for found in _MARKUP.finditer(raw):
        if _is_plain_list(found, raw):
            continue
        text += _without_names(raw[consumed:found.start()])
        consumed = found.end()
        region = _region(found, height_px, width_px)
        if region is None:
            malformed += 1
            continue
        begin, end = _phrase_span(text, last_box_end)
        last_box_end = end
        if begin == end:            # a second box right behind the first: the same words name both
            begin, end = (phrases[-1].begin, phrases[-1].end) if phrases else (begin, end)
        raw_begin = raw.rfind(text[begin:end], 0, found.start()) if end > begin else found.start()
        phrases.append(GroundedPhrase(
            text=text[begin:end], begin=begin, end=end, region=region,
            confidence=scale(_mean_probability(max(raw_begin, 0), found.end(), ends, probabilities))))
    text += _without_names(raw[consumed:])
    return Grounded(text=text, phrases=tuple(phrases), malformed=malformed)


def _is_plain_list(found: re.Match[str], raw: str) -> bool:
    """Square brackets that hold other than four numbers are text, as in "rows [1, 2]"; in tags they are a malformed box."""
    return found['bracketed'] is not None and len(re.findall(_NUMBER, found['bracketed'])) != 4


def _region(found: re.Match[str], height_px: int, width_px: int) -> Region | None:
    inside = found['tagged'] or found['qwen'] or found['bracketed'] or found['pairs'] or ''
    return _checked_region(re.findall(_NUMBER, inside), height_px, width_px)


def _checked_region(numbers: Sequence[object], height_px: int, width_px: int) -> Region | None:
    """A region in pixels, or None where the numbers are no box: not four, not whole, outside 0..1000, or without area."""
    try:
        values = [float(str(number)) for number in numbers]
    except ValueError:
        return None
    if len(values) != 4 or any(not value.is_integer() or not 0 <= value <= PERMILLE for value in values):
        return None
    region = px_from_permille((values[0], values[1], values[2], values[3]), width_px=width_px, height_px=height_px)
    return region if region.width_px > 0 and region.height_px > 0 else None


def _without_names(text: str) -> str:
    return _NAMED.sub(r'\1', text)


def _phrase_span(text: str, last_box_end: int) -> tuple[int, int]:
    """The words a box right behind ``text`` belongs to: what stands since the last box and the last mark or joining word."""
    end = len(text.rstrip())
    begin = last_box_end
    for mark in _PHRASE_STARTS_AFTER.finditer(text, last_box_end, end):
        if mark.end() < end:
            begin = mark.end()
    while begin < end and text[begin] in ' ;,.:\n':
        begin += 1
    return begin, max(begin, end)


def _mean_probability(raw_begin: int, raw_end: int, ends: Sequence[int], probabilities: Sequence[float]) -> float:
    """Mean over the tokens that wrote any of these characters of the raw text."""
    starts = [0, *ends[:-1]]
    own = [probability for start, end, probability in zip(starts, ends, probabilities)
           if end > raw_begin and start < raw_end]
    return float(np.mean(own)) if own else 0.0


def _json_items(raw: str) -> list[dict[str, object]] | None:
    """The objects of a JSON answer, in a code fence or not; None when the text is no such thing."""
    start, stop = raw.find('['), raw.rfind(']')
    if start < 0 or not re.match(r'\s*(```(json)?\s*)?$', raw[:start]):
        return None
    try:
        items = json.loads(raw[start:stop + 1])
    except ValueError:
        return None
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return None
    return items


def _ground_json(raw: str, items: Sequence[dict[str, object]], ends: Sequence[int], probabilities: Sequence[float],
                 height_px: int, width_px: int, scale: LogOddsScale) -> Grounded:
    text = ''
    phrases: list[GroundedPhrase] = []
    malformed = 0
    searched = 0
    for item in items:
        label = str(next((item[key] for key in _JSON_LABEL_KEYS if key in item), '')).strip()
        numbers = next((item[key] for key in _JSON_BOX_KEYS if key in item), None)
        region = _checked_region(numbers, height_px, width_px) if isinstance(numbers, list) else None
        malformed += numbers is not None and region is None
        if not label:
            continue
        begin = len(text) + (2 if text else 0)
        text += ('; ' if text else '') + label
        if region is None:
            continue
        raw_begin = max(raw.find(label, searched), searched)
        searched = max(raw.find('}', raw_begin), raw_begin)
        phrases.append(GroundedPhrase(text=label, begin=begin, end=begin + len(label), region=region,
                                      confidence=scale(_mean_probability(raw_begin, searched, ends, probabilities))))
    return Grounded(text=text, phrases=tuple(phrases), malformed=malformed)
