"""Pictures and their truth: boxes, fractions, digits, and sameness by seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from penguin_ros.sim.clip import sample_clip
from penguin_ros.sim.parts import parts_of_thing
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.silhouette import silhouette
from penguin_ros.sim.world import KINDS, Camera, Sensor, Way, standing
from tests.sim.conftest import small_world, thing


def test_the_same_seed_gives_the_same_pixels_and_truth(renderer: Renderer) -> None:
    world, _ = sample_clip('train', 3)
    first, first_truth = renderer.frame(world, 0.0)
    renderer.frame(small_world(thing(1, 'ball', 'red', 2.0, 0.0)), 0.0)     # whatever was shown between
    again, again_truth = renderer.frame(world, 0.0)
    assert np.array_equal(first, again)
    assert first_truth == again_truth


def test_a_box_fits_the_pixels_that_show_the_thing(renderer: Renderer) -> None:
    picture, truth = renderer.frame(small_world(thing(1, 'ball', 'red', 2.5, 0.4)), 0.0)
    red = picture[..., 0].astype(int) - picture[..., 1] > 15                # the hall is grey
    rows, columns = np.nonzero(red)
    box = truth.objects[0].box
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert max(abs(a - b) for a, b in zip(box, found)) <= 1
    assert abs(truth.objects[0].pixels - red.sum()) <= 0.05 * red.sum()


def test_every_kind_is_wholly_seen_when_it_stands_alone(renderer: Renderer) -> None:
    for kind in KINDS:
        alone = thing(1, kind, 'blue', 3.5, 0.3)
        _, truth = renderer.frame(small_world(alone), 0.0)
        seen = truth.objects[0]
        assert (seen.kind, seen.colour) == (kind, 'blue')
        assert seen.fraction > 0.9, kind
        outline = silhouette([part for part in parts_of_thing(alone, 0.0) if part.role == 'body'], Camera(), (0, 0, 0))
        rows, columns = np.nonzero(outline)
        expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert max(abs(a - b) for a, b in zip(seen.box, expected)) <= 2, kind


def test_objects_are_listed_left_to_right_with_distance_and_bearing(renderer: Renderer) -> None:
    _, truth = renderer.frame(small_world(thing(1, 'ball', 'red', 3.0, -1.0), thing(2, 'crate', 'blue', 3.0, 1.0)), 0.0)
    assert [seen.id for seen in truth.objects] == [2, 1]
    assert math.isclose(truth.objects[0].distance_m, math.hypot(3, 1), rel_tol=1e-9)
    assert math.isclose(truth.objects[0].bearing_rad, math.atan2(1, 3), rel_tol=1e-9)


def test_truth_says_how_far_a_thing_is_off_the_path(renderer: Renderer) -> None:
    beside, inside = thing(1, 'ball', 'red', 2.0, -1.0), thing(2, 'crate', 'blue', 2.0, 0.3)
    _, truth = renderer.frame(small_world(beside, inside), 0.0)
    gap_m = {seen['id']: seen['path_gap_m'] for seen in truth.as_dict()['objects']}
    assert gap_m == pytest.approx({1: 0.5 - beside.radius_m, 2: -inside.radius_m}, abs=1e-3)
    assert not truth.path_clear


def test_a_thing_mostly_hidden_is_faint_and_not_an_object(renderer: Renderer) -> None:
    _, truth = renderer.frame(small_world(thing(1, 'barrel', 'blue', 2.0, 0.0), thing(2, 'ball', 'red', 3.5, 0.35)), 0.0)
    assert [seen.id for seen in truth.objects] == [1]
    assert [seen.id for seen in truth.faint] == [2]
    assert truth.faint[0].fraction < 0.35


def test_a_digit_is_readable_only_when_nothing_covers_it(renderer: Renderer) -> None:
    sign = thing(1, 'sign', 'white', 2.5, 0.0)
    _, open_view = renderer.frame(small_world(sign), 0.0)
    _, covered = renderer.frame(small_world(sign, thing(2, 'person', 'red', 1.6, 0.1)), 0.0)
    expected_px = Camera().focal_px * 0.8 * sign.width_m / 2.5
    assert abs(open_view.objects[0].digit_px - expected_px) < 4
    assert all(seen.digit_px == 0.0 for seen in (*covered.objects, *covered.faint) if seen.kind == 'sign')


def test_both_faces_of_a_sign_show_its_digit(renderer: Renderer) -> None:
    front = small_world(thing(1, 'sign', 'white', 2.5, 0.0))
    back = small_world(thing(1, 'sign', 'white', 2.5, 0.0, way=standing(2.5, 0.0, 0.0)))
    seen_front, seen_back = (renderer.frame(world, 0.0)[0] for world in (front, back))
    board = (slice(70, 110), slice(140, 180))
    assert np.abs(seen_front[board].astype(int) - seen_back[board]).mean() < 12      # a mirrored 5 would be a 2


def test_an_open_shutter_smears_sideways_and_only_while_the_robot_turns(renderer: Renderer) -> None:
    sign = thing(1, 'sign', 'white', 2.5, 0.0)
    turning = small_world(sign, robot=Way(((-1.0, 0.0, 0.0, -0.75), (1.0, 0.0, 0.0, 0.75))))
    (sharp, truth), (smeared, smeared_truth) = (renderer.frame(turning, 0.0, shutter_s=shutter_s) for shutter_s in (0.0, 0.03))
    assert truth == smeared_truth
    board = (slice(70, 110), slice(130, 190))
    sharp_steps, smeared_steps = ([np.abs(np.diff(picture[board].astype(int), axis=axis)).max() for axis in (0, 1)]
                                  for picture in (sharp, smeared))
    assert smeared_steps[1] < 0.6 * sharp_steps[1]          # edges of the digit: upright ones go soft, level ones stay
    assert smeared_steps[0] > 0.8 * sharp_steps[0]
    assert np.array_equal(smeared, renderer.frame(turning, 0.0, shutter_s=0.03)[0])
    at_rest = small_world(sign)
    assert np.array_equal(renderer.frame(at_rest, 0.0, shutter_s=0.03)[0], renderer.frame(at_rest, 0.0)[0])


def test_cameras_of_one_robot_do_not_share_their_noise(renderer: Renderer) -> None:
    world = small_world(sensor=Sensor(noise=5.0))
    left, again, right = (renderer.frame(world, 0.0, grain=grain)[0].astype(int) for grain in ('left', 'left', 'right'))
    assert np.array_equal(left, again)
    assert np.abs(left - right).mean() > 2


def test_cameras_of_different_size_are_rendered_by_one_renderer(renderer: Renderer) -> None:
    small = Camera(width_px=160, height_px=96)
    picture, truth = renderer.frame(small_world(thing(1, 'ball', 'red', 2.0, 0.0), camera=small), 0.0)
    assert picture.shape == (96, 160, 3)
    assert abs(truth.objects[0].box[0] + truth.objects[0].box[2] - 160) <= 2
