"""What is said to have happened agrees with what the frames show."""

from __future__ import annotations

import math
from dataclasses import replace

from penguin_ros.sim.dataset import render_clip
from penguin_ros.sim.events import events_of
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.world import Light, Repaint, Way
from tests.sim.conftest import small_world, thing


def test_coming_going_moving_and_light_are_told_apart(renderer: Renderer) -> None:
    world = small_world(
        thing(1, 'ball', 'red', 3.0, 1.0, present_s=(0.5, math.inf)),
        thing(2, 'crate', 'blue', 3.0, 0.0, present_s=(-math.inf, 1.5)),
        thing(3, 'barrel', 'white', 3.0, -1.0, way=Way(((1.2, 3.0, -1.0, 0.0), (1.8, 3.5, -1.2, 0.0)))),
        thing(4, 'person', 'red', 4.0, 3.5, way=Way(((2.0, 4.0, 6.0, 0.0), (3.0, 4.0, 1.8, 0.0)))))
    world = replace(world, light=replace(world.light, levels=((-math.inf, 1.0), (2.5, 0.4))))
    truths = [renderer.frame(world, float(time_s))[1] for time_s in range(4)]
    assert [(event['frame'], event['type'], event['id']) for event in events_of(world, truths)] == [
        (1, 'appeared', 1), (2, 'left', 2), (2, 'moved', 3), (3, 'light_off', None), (3, 'entered_view', 4)]


def test_a_new_coat_of_paint_is_told_and_shown(renderer: Renderer) -> None:
    crate = replace(thing(1, 'crate', 'red', 3.0, 0.0), repaint=Repaint(0.5, 'blue', (0.05, 0.1, 0.8)))
    world = small_world(crate)
    (before, first), (after, second) = (renderer.frame(world, time_s) for time_s in (0.0, 1.0))
    assert events_of(world, [first, second]) == [{'frame': 1, 'type': 'changed_colour', 'id': 1}]
    assert [truth.objects[0].colour for truth in (first, second)] == ['red', 'blue']
    x0, y0, x1, y1 = second.objects[0].box
    reds, blues = (picture[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0) for picture in (before, after))
    assert reds[0] > 2 * reds[2]
    assert blues[2] > 2 * blues[0]


def test_a_turning_robot_makes_things_enter_and_leave_the_view(renderer: Renderer) -> None:
    world = small_world(thing(1, 'ball', 'red', 3.0, 0.5), thing(2, 'crate', 'blue', 0.0, 3.0),
                        robot=Way(((0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, math.pi / 2))))
    truths = [renderer.frame(world, time_s)[1] for time_s in (0.0, 1.0)]
    found = {(event['type'], event['id']) for event in events_of(world, truths)}
    assert found == {('left_view', 1), ('entered_view', 2)}


def test_the_light_level_holds_from_its_time_on() -> None:
    light = Light((0, 0, -1), (1, 1, 1), 0.5, levels=((-math.inf, 1.0), (2.0, 0.5)))
    assert [light.level_at(time_s) for time_s in (0.0, 1.99, 2.0, 50.0)] == [1.0, 1.0, 0.5, 0.5]


def test_events_of_sampled_clips_agree_with_the_objects_listed(renderer: Renderer) -> None:
    types = set()
    for seed in range(5, 72, 6):
        clip, _ = render_clip(renderer, 'unit test', seed)
        listed = [{seen['id'] for seen in frame['objects']} for frame in clip['frames']]
        for event in clip['events']:
            before, now = listed[event['frame'] - 1], listed[event['frame']]
            types.add(event['type'])
            if event['type'] in ('appeared', 'entered_view'):
                assert event['id'] in now - before
            elif event['type'] in ('left', 'left_view'):
                assert event['id'] in before - now
            elif event['type'] == 'moved':
                assert event['id'] in before & now
    assert {'appeared', 'left'} <= types
