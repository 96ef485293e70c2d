"""Drives of a robot with cameras all around: the same by seed, nothing run over, everything happens."""

from __future__ import annotations

import math

import pytest

from penguin_ros.sim.drive import sample_drive, sample_rig_drive, with_plain_look
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.rig import sample_rig, seen_through


def test_a_seed_gives_the_same_drive_every_time_and_its_own() -> None:
    drive = sample_rig_drive('unit test', 3, 30.0)
    assert sample_rig_drive('unit test', 3, 30.0) == drive
    others = [sample_rig_drive('unit test', 3, 30.0, number=1), sample_rig_drive('unit test', 4, 30.0),
              sample_rig_drive('another', 3, 30.0), sample_drive('unit test', 3, 30.0)]
    assert len({world.room for world in (drive, *others)}) == 5


@pytest.mark.parametrize('seed', [1, 2])
def test_a_rig_never_runs_anything_over(seed: int) -> None:
    world = sample_rig_drive('unit test', seed, 60.0)
    for tick in range(600):
        time_s = tick / 10
        x, y, _ = world.robot.at(time_s)
        for one in world.things_at(time_s):
            one_x, one_y, _ = one.way.at(time_s)
            assert math.hypot(one_x - x, one_y - y) > one.radius_m + 0.3, (time_s, one)


def test_everything_that_can_happen_does() -> None:
    world = sample_rig_drive('unit test', 5, 60.0)
    assert any(thing.present_s[0] > 0.0 for thing in world.things)
    assert any(thing.present_s[1] < 60.0 for thing in world.things)
    assert any(thing.repaint and 0.0 < thing.repaint.from_s < 60.0 for thing in world.things)
    assert any(len(thing.way.stops) > 1 and thing.kind == 'person' for thing in world.things)
    times_s, levels = zip(*world.light.levels)
    assert list(times_s) == sorted(times_s)
    assert len(levels) > 2
    assert all((level == 1.0) == (index % 2 == 0) for index, level in enumerate(levels))


def test_every_camera_gets_something_to_see() -> None:
    world = sample_rig_drive('unit test', 6, 60.0)
    for mount in sample_rig('unit test', 6):
        view = seen_through(world, mount)
        half_view = math.atan(mount.camera.width_px / 2 / mount.camera.focal_px)
        seen = 0
        for second in range(60):
            x, y, yaw = view.robot.at(second)
            bearings = [math.remainder(math.atan2(thing.way.at(second)[1] - y, thing.way.at(second)[0] - x) - yaw, 2 * math.pi)
                        for thing in view.things_at(second)]
            seen += any(abs(bearing) < half_view for bearing in bearings)
        assert seen > 20, mount.name


def test_a_drive_of_minutes_fits_the_stage(renderer: Renderer) -> None:
    world = with_plain_look(sample_rig_drive('unit test', 7, 180.0))       # contact shadows are parts, too
    renderer.frame(world, 90.0)
