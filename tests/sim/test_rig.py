"""Cameras on a robot: where they sit, what they see, and that their truth says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from penguin_ros.core.errors import ConfigError
from penguin_ros.sim.messages import camera_matrix
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.rig import Mount, near_view, sample_rig, seen_through
from penguin_ros.sim.shooting import Shooter
from penguin_ros.sim.world import Camera, Way
from tests.sim.conftest import small_world, thing

TURNING = Way(((0.0, 0.0, 0.0, 0.0), (2.0, 0.5, 0.2, 1.2)))


def rotation(quaternion: tuple[float, ...]) -> np.ndarray:
    x, y, z, w = quaternion
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def test_an_optical_frame_looks_along_z_with_x_to_the_right() -> None:
    level = Camera(height_m=0.6, pitch_rad=0.0)
    position, orientation = Mount('left', level, 0.1, 0.2, math.pi / 2).optical_pose((0.0, 0.0, 0.0))
    assert position == pytest.approx((0.1, 0.2, 0.6))
    right, down, ahead = rotation(orientation).T
    assert ahead == pytest.approx([0, 1, 0], abs=1e-9)
    assert right == pytest.approx([1, 0, 0], abs=1e-9)
    assert down == pytest.approx([0, 0, -1], abs=1e-9)


@pytest.mark.parametrize('name', ['front', 'left', 'right', 'rear'])
def test_a_carried_camera_keeps_its_place_on_a_turning_robot(name: str) -> None:
    (mount,) = sample_rig('unit test', 1, (name,))
    world = small_world(robot=TURNING)
    view = seen_through(world, mount)
    for time_s in np.linspace(-0.5, 2.5, 31):
        assert view.robot.at(time_s) == pytest.approx(mount.pose(world.robot.at(time_s)), abs=5e-5)


def test_each_camera_has_its_own_lens_and_the_same_one_every_time() -> None:
    rig = sample_rig('unit test', 1)
    assert len({mount.camera for mount in rig}) == 4
    assert sample_rig('unit test', 1, ('rear', 'left')) == (rig[3], rig[1])
    assert sample_rig('unit test', 2)[0].camera != rig[0].camera


@pytest.mark.parametrize('names', [('front', 'top'), ('left', 'left'), ()])
def test_unknown_cameras_are_refused_with_those_there_are(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match='Choose among front, left, right, rear'):
        sample_rig('unit test', 1, names)


def test_the_truth_of_every_camera_puts_things_where_its_pictures_show_them(renderer: Renderer) -> None:
    ball = thing(7, 'ball', 'red', 1.5, 1.8)       # radius 0.25 m
    world = small_world(ball, robot=TURNING)
    found = 0
    for mount in sample_rig('unit test', 3):
        shooter = Shooter(world, mount, rate_hz=2.0)
        for frame in range(5):
            picture, truth = shooter.shoot(renderer, frame, stamp_ns=5)
            assert (truth['camera'], truth['stamp_ns'], truth['light']) == (mount.name, 5, 1.0)
            assert truth['pose'] == pytest.approx(world.robot.at(frame / 2), abs=1e-4)
            position, orientation = truth['camera_pose']['position'], truth['camera_pose']['orientation']
            seen_at = camera_matrix(mount.camera) @ rotation(orientation).T @ (np.array([1.5, 1.8, 0.25]) - position)
            for one in truth['objects']:
                x_min, y_min, x_max, y_max = one['box']
                assert one['id'] == 7
                if x_min > 0 and x_max < 320:
                    assert seen_at[:2] / seen_at[2] == pytest.approx([(x_min + x_max) / 2, (y_min + y_max) / 2], abs=3)
                    red = picture[..., 0].astype(int) - picture[..., 1] > 15
                    assert red[y_min:y_max, x_min:x_max].sum() > 0.9 * red.sum() > 0
                    found += 1
    assert found >= 3


def test_leaving_out_what_is_far_outside_the_picture_changes_nothing(renderer: Renderer) -> None:
    things = [thing(number, kind, 'blue', 2.8 * math.cos(angle), 2.8 * math.sin(angle)) for number, (kind, angle) in enumerate(
        zip(['crate', 'person', 'ball', 'sign', 'barrel'] * 3, np.linspace(-math.pi, math.pi, 15, endpoint=False)), 1)]
    for mount in sample_rig('unit test', 4, ('front', 'rear')):
        view = seen_through(small_world(*things), mount)
        near = near_view(view, 0.0)
        assert 0 < len(near.things) < len(view.things)
        (picture, truth), (near_picture, near_truth) = renderer.frame(view, 0.0), renderer.frame(near, 0.0)
        assert truth == near_truth
        assert np.array_equal(picture, near_picture)
