"""Camera motion between small pictures: found where it is known, and said to be lost where there is none."""

import math

import cv2
import numpy as np
import pytest

from penguin_ros.core.motion import ViewTracker, displacement, warp_back

RNG = np.random.default_rng(4)
WIDE = cv2.GaussianBlur(RNG.integers(0, 256, (300, 500), dtype=np.uint8), (0, 0), 2.5)
WIDE = cv2.normalize(WIDE, None, 0, 255, cv2.NORM_MINMAX)
REFERENCE = np.ascontiguousarray(WIDE[100:190, 150:310])
CORNERS = np.array([[[0.0, 0.0]], [[160, 0]], [[0, 90]], [[160, 90]]])


def seen_through(motion: np.ndarray) -> np.ndarray:
    """What a camera sees whose pixels are ``motion`` times those of the reference."""
    shift = np.array([[1, 0, -150], [0, 1, -100], [0, 0, 1.0]])
    return cv2.warpPerspective(WIDE, motion @ shift, (160, 90), flags=cv2.INTER_CUBIC)


@pytest.mark.parametrize('motion', [
    [[1, 0, 6.3], [0, 1, -3.7], [0, 0, 1]],
    [[1.1, 0, -8], [0, 1.1, -4.5], [0, 0, 1]],
    [[math.cos(0.1), -math.sin(0.1), 5], [math.sin(0.1), math.cos(0.1), -6], [0, 0, 1]],
    [[1, 0, 45], [0, 1, 0], [0, 0, 1]],
], ids=['shift', 'zoom', 'roll', 'jump of a quarter'])
@pytest.mark.parametrize('gain', [1.0, 0.6])
def test_a_known_motion_is_found_to_a_fraction_of_a_pixel_in_any_light(motion: list, gain: float) -> None:
    expected = np.array(motion, dtype=float)
    found, trust = ViewTracker(REFERENCE).follow((seen_through(expected) * gain).astype(np.uint8))
    assert trust > 0.8
    error = cv2.perspectiveTransform(CORNERS, found) - cv2.perspectiveTransform(CORNERS, expected)
    assert np.abs(error).max() < 0.8
    assert displacement(found, 90, 160) == pytest.approx(displacement(expected, 90, 160), abs=0.005)


def test_there_is_no_drift_over_a_long_stand() -> None:
    tracker = ViewTracker(REFERENCE)
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0, 4, REFERENCE.shape)
        motion, _ = tracker.follow(np.clip(REFERENCE + noise, 0, 255).astype(np.uint8))
    assert displacement(motion, 90, 160) * 160 < 0.3


def test_another_place_is_said_to_be_lost_and_the_last_motion_stands() -> None:
    tracker = ViewTracker(REFERENCE)
    before, _ = tracker.follow(seen_through(np.array([[1, 0, 4.0], [0, 1, 0], [0, 0, 1]])))
    after, trust = tracker.follow(np.ascontiguousarray(WIDE[0:90, 330:490]))
    assert trust < 0.2
    assert np.array_equal(before, after)


def test_a_plain_picture_is_taken_to_stand_still() -> None:
    tracker = ViewTracker(np.full((90, 160), 120, np.uint8))
    motion, trust = tracker.follow(REFERENCE)
    assert tracker.plain
    assert (trust, motion.tolist()) == (0.0, np.eye(3).tolist())


def test_warping_back_lays_the_current_picture_over_the_reference() -> None:
    motion = np.array([[1, 0, 5.0], [0, 1, 3.0], [0, 0, 1]])
    back = warp_back(seen_through(motion), motion)
    assert np.abs(back[5:-5, 8:-8].astype(int) - REFERENCE[5:-5, 8:-8]).max() <= 2
