"""Worlds by seed, ways over time, and what counts as a clear path."""

from __future__ import annotations

import math

import pytest

from penguin_ros.sim.clip import clip_length, sample_clip
from penguin_ros.sim.drive import sample_drive
from penguin_ros.sim.world import KINDS, Way, is_path_clear
from tests.sim.conftest import small_world, thing


def test_a_seed_gives_the_same_world_every_time() -> None:
    assert sample_clip('train', 11) == sample_clip('train', 11)
    assert sample_drive('demo', 3, 20.0) == sample_drive('demo', 3, 20.0)


def test_splits_never_share_a_world() -> None:
    worlds = {split: [sample_clip(split, seed)[0] for seed in range(30)] for split in ('train', 'valid', 'test', 'demo')}
    looks = [(world.room, world.robot, world.camera) for group in worlds.values() for world in group]
    assert len(set(looks)) == len(looks)


def test_every_sixth_clip_has_three_to_six_frames() -> None:
    lengths = [clip_length('train', seed) for seed in range(120)]
    assert all(length == 1 for seed, length in enumerate(lengths) if seed % 6 != 5)
    assert {length for seed, length in enumerate(lengths) if seed % 6 == 5} == {3, 4, 5, 6}


def test_clips_of_video_splits_are_long_and_things_in_them_change_their_colour() -> None:
    clips = [sample_clip('train-video', seed) for seed in range(60)]
    assert {len(times_s) for _, times_s in clips} == set(range(6, 13))
    painted = [one for world, _ in clips for one in world.things if one.repaint]
    assert len(painted) > 5
    for one in painted:
        assert one.as_at(one.repaint.from_s).colour == one.repaint.colour != one.colour
        assert one.as_at(one.repaint.from_s - 0.01) is one


def test_things_have_ids_of_their_own_and_only_signs_have_digits() -> None:
    for seed in range(60):
        world, _ = sample_clip('train', seed)
        assert len({one.id for one in world.things}) == len(world.things) <= 9
        assert all((one.digit is not None) == (one.kind == 'sign') and one.kind in KINDS for one in world.things)


def test_a_way_is_straight_between_its_stops_and_still_outside_them() -> None:
    way = Way(((1.0, 0.0, 0.0, 0.0), (3.0, 4.0, 0.0, 1.0), (4.0, 4.0, 2.0, 1.0)))
    assert way.at(0.0) == (0.0, 0.0, 0.0)
    assert way.at(2.0) == pytest.approx((2.0, 0.0, 0.5))
    assert way.at(9.0) == (4.0, 2.0, 1.0)
    assert way.travelled_m(3.5) == pytest.approx(5.0)


@pytest.mark.parametrize('x, y, clear', [
    (1.5, 0.0, False), (1.5, 0.7, False), (1.5, 0.85, True), (2.7, 0.0, False), (2.9, 0.0, True), (-0.5, 0.0, True)])
def test_the_path_is_clear_when_nothing_reaches_into_the_strip_ahead(x: float, y: float, clear: bool) -> None:
    world = small_world(thing(1, 'ball', 'red', x, y))
    assert is_path_clear(world, 0.0) is clear


def test_a_wall_just_ahead_blocks_the_path() -> None:
    facing_wall = small_world(robot=Way(((0.0, 0.0, 4.5, math.pi / 2),)))
    assert not is_path_clear(facing_wall, 0.0)


def test_a_drive_never_runs_anything_over() -> None:
    world = sample_drive('demo', 5, 40.0)
    for tick in range(0, 400):
        time_s = tick / 10
        x, y, _ = world.robot.at(time_s)
        for one in world.things_at(time_s):
            one_x, one_y, _ = one.way.at(time_s)
            assert math.hypot(one_x - x, one_y - y) > one.radius_m + 0.3
        assert world.room.x_min + 1 < x < world.room.x_max - 1
        assert world.room.y_min + 1 < y < world.room.y_max - 1
