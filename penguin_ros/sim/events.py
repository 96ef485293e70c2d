"""What happened between the frames of a clip or drive, read off the world and what the frames show.

Knows nothing of how worlds are drawn or rendered. Types: `appeared` and `left` (put into or taken out of the world
between two frames, in view), `moved` (stands elsewhere on the floor, in view both times), `changed_colour` (in view both
times), `entered_view` and
`left_view` (in the world both times; the robot, its own walk or something in front brought it into or out of sight),
`light_off` and `light_on` (id null). An event belongs to the first frame that shows its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from penguin_ros.sim.render import FrameTruth
from penguin_ros.sim.world import World

MOVED_M = 0.25                  # less than this is not called a move
UNSEEN_PX = 40                  # entering or leaving the view needs that little of the thing on the other side
LIGHT_STEP = 0.2                # relative change of brightness that counts


def events_of(world: World, truths: Sequence[FrameTruth], *, first_frame: int = 1) -> list[dict[str, Any]]:
    """Events as {'frame', 'type', 'id'}, in frame order; `frame` counts from 0 at the first of `truths`."""
    events: list[dict[str, Any]] = []
    for index in range(first_frame, len(truths)):
        before, now = truths[index - 1], truths[index]
        level_before, level_now = world.light.level_at(before.time_s), world.light.level_at(now.time_s)
        if abs(level_now / level_before - 1) > LIGHT_STEP:
            events.append({'frame': index, 'type': 'light_on' if level_now > level_before else 'light_off', 'id': None})
        listed_before, listed_now = ({one.id for one in truth.objects} for truth in (before, now))
        pixels_before, pixels_now = ({one.id: one.pixels for one in (*truth.objects, *truth.faint)}
                                     for truth in (before, now))
        for thing in world.things:
            was, is_now = thing.is_present(before.time_s), thing.is_present(now.time_s)
            kind = None
            if is_now and not was and thing.id in listed_now:
                kind = 'appeared'
            elif was and not is_now and thing.id in listed_before:
                kind = 'left'
            elif was and is_now:
                x, y, _ = thing.way.at(before.time_s)
                x_now, y_now, _ = thing.way.at(now.time_s)
                if thing.id in listed_before and thing.id in listed_now:
                    kind = 'moved' if math.hypot(x_now - x, y_now - y) >= MOVED_M else None
                elif thing.id in listed_now and pixels_before.get(thing.id, 0) < UNSEEN_PX:
                    kind = 'entered_view'
                elif thing.id in listed_before and pixels_now.get(thing.id, 0) < UNSEEN_PX:
                    kind = 'left_view'
            if kind:
                events.append({'frame': index, 'type': kind, 'id': thing.id})
            if (thing.id in listed_before and thing.id in listed_now
                    and thing.as_at(before.time_s).colour != thing.as_at(now.time_s).colour):
                events.append({'frame': index, 'type': 'changed_colour', 'id': thing.id})
    return events
