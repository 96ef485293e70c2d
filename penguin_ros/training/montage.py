"""Clips cut together from several scenes, so that much comes and goes at any frame. Knows nothing of rows or texts.

In most recorded clips a thing is there from the first frame to the last, so the stamp of one of the two ends is a good guess at
any "when", and a model that guesses has little to gain from looking. In a montage every frame is as likely an answer as any
other, and most things can be told apart by their looks alone: it teaches to find the frame first, and recorded clips
what it means to come and go. Those can also be shown backwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from penguin_ros.training.dataset import Clip, Event, SceneFrame

MOST_SCENES = 6
_COMES_BACK = 0.3               # of montages: their scenes may be seen again after another
_SHORTEST_STEP_S, _LONGEST_STEP_S = 0.2, 20.0
_SCENE_IDS = 10_000             # more than things in one scene


def montage(scenes: Sequence[Clip], frames: int, rng: random.Random) -> Clip:
    """A clip of ``frames`` frames (at least as many as scenes) that cuts from scene to scene, with its own stamps and events.

    A scene's frames keep their order and are shown again where it has too few. Things of different scenes are different things;
    where two of them look alike, what changed is not told.
    """
    order = _order(len(scenes), frames, rng)
    slots_of = {scene: [slot for slot, shown in enumerate(order) if shown == scene] for scene in set(order)}
    shown: list[SceneFrame | None] = [None] * frames
    events: list[Event] = []
    times_s = _times(frames, rng)
    for scene, slots in slots_of.items():
        clip, first_id = scenes[scene], scene * _SCENE_IDS
        chosen = sorted(rng.choices(range(len(clip.frames)), k=len(slots)) if len(clip.frames) < len(slots)
                        else rng.sample(range(len(clip.frames)), len(slots)))
        for slot, index in zip(slots, chosen):
            shown[slot] = _renumbered(clip.frames[index], first_id, times_s[slot])
        for event in clip.events:
            if event.type in ('moved', 'changed_colour') and event.id is not None and chosen[0] < event.frame <= chosen[-1]:
                slot = next(slot for slot, index in zip(slots, chosen) if index >= event.frame)
                events.append(replace(event, frame=slot, id=event.id + first_id))
    told = [frame for frame in shown if frame is not None]
    worn = [{(one.kind, one.colour) for frame in scenes[scene].frames for one in (*frame.objects, *frame.faint)}
            for scene in slots_of]
    is_clear = sum(map(len, worn)) == len(set().union(*worn))
    return Clip(scenes[0].seed, tuple(told), tuple(events + _comings_and_goings(told)), events_tell=is_clear)


def _order(scenes: int, frames: int, rng: random.Random) -> list[int]:
    """Which scene each frame shows: all of them, in runs."""
    cuts = sorted(rng.sample(range(1, frames), scenes - 1))
    runs = [end - start for start, end in zip((0, *cuts), (*cuts, frames))]
    names = list(range(scenes))
    if scenes > 2 and rng.random() < _COMES_BACK:
        names = [rng.randrange(scenes) for _ in names]
    return [name for name, length in zip(names, runs) for _ in range(length)]


def _times(frames: int, rng: random.Random) -> list[float]:
    """Stamps from 0 on, in steps of fractions of a second to many seconds, even ones or not."""
    step_s = math.exp(rng.uniform(math.log(_SHORTEST_STEP_S), math.log(_LONGEST_STEP_S)))
    is_even = rng.random() < 0.5
    times_s = [0.0]
    for _ in range(frames - 1):
        times_s.append(round(times_s[-1] + max(step_s * (1.0 if is_even else rng.uniform(0.5, 1.5)), 0.1), 1))
    return times_s


def _renumbered(frame: SceneFrame, first_id: int, time_s: float) -> SceneFrame:
    objects, faint = (tuple(replace(one, id=one.id + first_id) for one in things) for things in (frame.objects, frame.faint))
    return replace(frame, time_s=time_s, objects=objects, faint=faint, pose=None)     # scenes share no floor


def _comings_and_goings(frames: Sequence[SceneFrame]) -> list[Event]:
    events = []
    for slot in range(1, len(frames)):
        before, now = ({one.id for one in frame.objects} for frame in frames[slot - 1:slot + 1])
        events += [Event(slot, 'entered_view', id) for id in sorted(now - before)]
        events += [Event(slot, 'left_view', id) for id in sorted(before - now)]
    return events


_BACKWARDS = {'appeared': 'left', 'left': 'appeared', 'entered_view': 'left_view', 'left_view': 'entered_view',
              'light_on': 'light_off', 'light_off': 'light_on'}


def backwards(clip: Clip) -> Clip:
    """A clip's frames from the last to the first, at rising stamps: what came leaves, what moved moves back."""
    count, end_s = len(clip.frames), clip.frames[-1].time_s
    frames = tuple(replace(frame, time_s=round(end_s - frame.time_s, 3)) for frame in reversed(clip.frames))
    events = tuple(replace(event, frame=count - event.frame, type=_BACKWARDS.get(event.type, event.type))
                   for event in reversed(clip.events))
    return replace(clip, frames=frames, events=events)
