"""How good what a policy said was: F1 and boxes against the truth of each image, changes told, missed and late.

Knows nothing of policies. Judged is the caption in force at each image, since that is what a subscriber acts on; a
caption that stands too long loses here. The captions alone, each against its own image, are scored beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penguin_ros.bench.policies import Said
from penguin_ros.training.scores import CaptionScore, box_iou, mean_iou, score_caption, set_f1
from penguin_ros.training.texts import Thing, read_things

PATIENCE_S = 3.0            # a change not told within this time is missed
SAME_PLACE_IOU = 0.3        # a thing that moved is told when its box is that near the true one
_CAME, _WENT, _MOVED = ('appeared', 'entered_view'), ('left', 'left_view'), ('moved',)


@dataclass(frozen=True)
class Moment:
    """One image of one camera, and what was in force once it had been looked at."""

    stamp_ns: int
    truth: Mapping[str, Any]
    said: Said
    height_px: int
    width_px: int

    @property
    def named(self) -> list[Thing]:
        """What the caption in force names, boxes as fractions of the image."""
        things = []
        for phrase in self.said.phrases:
            region = phrase.region
            box = None if region is None else (region.x_min / self.width_px, region.y_min / self.height_px,
                                               region.x_max / self.width_px, region.y_max / self.height_px)
            things += [Thing(thing.kind, thing.colour, thing.digit, box) for thing in read_things(phrase.text)]
        return things

    @property
    def true(self) -> dict[int, Thing]:
        """What there is to see, by id."""
        things = {}
        for entry in self.truth['objects']:
            x_min, y_min, x_max, y_max = entry['box']
            things[entry['id']] = Thing(entry['kind'], entry['colour'], entry['digit'], (
                x_min / self.width_px, y_min / self.height_px, x_max / self.width_px, y_max / self.height_px))
        return things


def caption_scores(moments: Sequence[Moment]) -> dict[str, float]:
    """F1 and IoU of what was in force at every image, and of the captions at their own images."""
    def scores(some: Sequence[Moment]) -> list[CaptionScore]:
        return [score_caption(moment.named, list(moment.true.values())) for moment in some]

    in_force, written = scores(moments), scores([moment for moment in moments if moment.said.is_new])
    return {'f1': set_f1(in_force), 'iou': mean_iou(in_force), 'f1_written': set_f1(written), 'iou_written': mean_iou(written)}


@dataclass
class Changes:
    """What became of the changes the truth notes."""

    total: int = 0
    missed: int = 0
    delays_s: list[float] | None = None

    @property
    def missed_share(self) -> float:
        return self.missed / self.total if self.total else 0.0

    @property
    def mean_delay_s(self) -> float:
        return float(np.mean(self.delays_s)) if self.delays_s else 0.0


def told_changes(moments: Sequence[Moment]) -> Changes:
    """Follow each change of one camera: told by the first caption in force that has the new state right.

    A change that is undone, or overtaken by another of the same thing, before ``PATIENCE_S`` is followed until then only.
    Something that was there before under the same name (a second red crate) must be counted right as well.
    """
    changes = Changes(delays_s=[])
    for index, moment in enumerate(moments):
        for event in moment.truth['events']:
            if event['id'] is None or event['type'] not in (*_CAME, *_WENT, *_MOVED):
                continue
            thing = _thing_of(moments, index, event['id'])
            if thing is None:
                continue
            changes.total += 1
            delay_s = _delay_s(moments, index, event, thing)
            if delay_s is None:
                changes.missed += 1
            else:
                assert changes.delays_s is not None
                changes.delays_s.append(delay_s)
    return changes


def _thing_of(moments: Sequence[Moment], index: int, id: int) -> Thing | None:
    """The thing of an event: as this image shows it, or the last one that did."""
    for moment in reversed(moments[:index + 1]):
        if id in moment.true:
            return moment.true[id]
    return None


def _delay_s(moments: Sequence[Moment], index: int, event: Mapping[str, Any], thing: Thing) -> float | None:
    begun_ns = moments[index].stamp_ns
    for later in moments[index:]:
        delay_s = (later.stamp_ns - begun_ns) / 1e9
        overtaken = later is not moments[index] and any(other['id'] == event['id'] for other in later.truth['events'])
        if delay_s > PATIENCE_S or overtaken:
            return None
        if _is_told(later, event, thing):
            return delay_s
    return None


def _is_told(moment: Moment, event: Mapping[str, Any], thing: Thing) -> bool:
    label = thing.kind, thing.colour
    named = [one for one in moment.named if (one.kind, one.colour) == label]
    true = [one for one in moment.true.values() if (one.kind, one.colour) == label]
    if event['type'] in _WENT:
        return len(named) <= len(true)
    if event['type'] in _CAME:
        return bool(named) and len(named) >= len(true)
    now = moment.true.get(event['id'])
    return now is not None and any(one.box and now.box and box_iou(one.box, now.box) >= SAME_PLACE_IOU for one in named)
