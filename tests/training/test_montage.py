"""A montage shows whole scenes in runs, with its own stamps, and tells what came, went and changed within them."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from penguin_ros.training.curriculum import ClipDeck
from penguin_ros.training.dataset import Clip, Event, SceneFrame, SeenObject
from penguin_ros.training.montage import backwards, montage
from penguin_ros.training.questions import changes_of

CRATE = SeenObject(1, 'crate', 'red', None, 0.0, (0.1, 0.5, 0.3, 0.8), 2.0)
CONE = SeenObject(2, 'cone', 'white', None, 0.0, (0.4, 0.1, 0.5, 0.5), 2.5)
BALL = SeenObject(1, 'ball', 'blue', None, 0.0, (0.6, 0.6, 0.7, 0.7), 3.0)


def _clip(seed: int, *shown: tuple[SeenObject, ...], events: tuple[Event, ...] = ()) -> Clip:
    frames = (SceneFrame(seed, index, float(index), True, things, ()) for index, things in enumerate(shown))
    return Clip(seed, tuple(frames), events)


CRATES = _clip(1, (CRATE,), (CRATE,), (CRATE,), events=(Event(1, 'moved', 1), Event(2, 'light_on', None)))
BALLS = _clip(2, (BALL,))


def _scenes(clip: Clip) -> list[int]:
    return [frame.shard for frame in clip.frames]


@pytest.mark.parametrize('seed', range(8))
def test_scenes_follow_one_another_with_rising_stamps(seed: int) -> None:
    clip = montage([CRATES, BALLS], 5, random.Random(seed))
    assert len(clip.frames) == 5
    scenes, times_s = _scenes(clip), [frame.time_s for frame in clip.frames]
    assert scenes == sorted(scenes)
    assert set(scenes) == {1, 2}
    assert times_s[0] == 0.0
    assert all(later - earlier >= 0.099 for earlier, later in itertools.pairwise(times_s))
    crates = [frame.index for frame in clip.frames if frame.shard == 1]
    assert crates == sorted(crates), 'a scene goes forward'
    crate, ball = (next(one.id for frame in clip.frames for one in frame.objects if one.kind == kind)
                   for kind in ('crate', 'ball'))
    assert crate != ball, 'each had the same id in its own clip'


@pytest.mark.parametrize('seed', range(8))
def test_what_came_and_went_is_told_at_the_cut_and_what_moved_within_a_scene(seed: int) -> None:
    clip = montage([CRATES, BALLS], 4, random.Random(seed))
    cut = _scenes(clip).index(2)
    changes = changes_of(clip, range(4), [frame.time_s for frame in clip.frames])
    assert changes is not None
    found = {name: time_s for name, _, time_s in changes}
    assert found['went'] == found['came'] == clip.frames[cut].time_s
    shown = [frame.index for frame in clip.frames[:cut]]
    assert ('moved' in found) == (shown[0] < 1 <= shown[-1])


def test_where_things_of_two_scenes_look_alike_changes_are_not_told() -> None:
    alike = _clip(3, (replace(CRATE, id=7),))
    clip = montage([CRATES, alike], 3, random.Random(0))
    assert changes_of(clip, range(3), [0.0, 1.0, 2.0]) is None


def test_a_scene_may_come_back_and_then_nothing_is_told_of_its_things() -> None:
    clips = [montage([CRATES, BALLS, BALLS], 6, random.Random(seed)) for seed in range(60)]
    returning = [clip for clip in clips if len(list(itertools.groupby(_scenes(clip)))) > len(set(_scenes(clip)))]
    assert returning
    assert all(changes_of(clip, range(6), [frame.time_s for frame in clip.frames]) is None for clip in returning)


def test_the_deck_deals_montages_of_as_many_frames_as_asked() -> None:
    dealt = ClipDeck(random.Random(1)).montages([CRATES, BALLS], 20, frames=3)
    assert [len(clip.frames) for clip in dealt] == [3] * 20
    assert {1, 2} == {scene for clip in dealt for scene in _scenes(clip)}


def test_backwards_what_came_leaves_and_the_clip_is_itself_again_the_other_way_round() -> None:
    clip = _clip(0, (CRATE,), (CRATE, CONE), (CRATE, CONE), events=(Event(1, 'appeared', 2), Event(2, 'moved', 1)))
    back = backwards(clip)
    assert [frame.objects for frame in back.frames] == [frame.objects for frame in reversed(clip.frames)]
    assert [frame.time_s for frame in back.frames] == [0.0, 1.0, 2.0]
    assert back.events == (Event(1, 'moved', 1), Event(2, 'left', 2))
    assert changes_of(back, range(3), [0.0, 1.0, 2.0]) == (('moved', 1, 1.0), ('went', 2, 2.0))
    assert backwards(back) == clip
