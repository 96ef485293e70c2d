"""How the camera moved between two small pictures, as a homography. Knows nothing of what changed in them (keyframe.py).

Corners of a reference picture are looked for in the current one, which is first warped by the best guess so that only a
small rest is left to find: no drift, however long the reference stands. The homography is fitted by reweighted least
squares, so that equal input gives equal output; nothing is drawn at random.
"""

from __future__ import annotations

import cv2
import numpy as np

_CORNERS = 80
_FEWEST_CORNERS = 8                 # below this a picture is called plain, and the camera taken to stand still
_SMALLEST_SIDE_PX = 24              # the tracker's coarsest level would be a few pixels
_WINDOW_PX = 11
_LEVELS = 3
_INLIER_PX = 1.5
_SCALE_FLOOR_PX = 0.4               # residuals below this are rounding, not outliers
_FIT_ROUNDS = 6
_FIT_SETTLED = 1e-5                 # picture widths; a five-hundredth of a pixel
_TRUSTED = 0.5                      # share of corners that must agree

# How strongly each of the eight numbers is held to "no motion", in units of one corner: little for the affine part, more
# for the perspective, which a few corners on one side cannot tell from noise.
_HOLD = np.array([1e-3] * 6 + [0.3, 0.3])
_NO_MOTION = np.array([1.0, 0, 0, 0, 1, 0, 0, 0])


class ViewTracker:
    """Follows one reference picture through the pictures after it. Constant memory; start a new one per reference."""

    def __init__(self, grey: np.ndarray) -> None:
        self._reference = self._last = grey
        self._motion = self._motion_before = np.eye(3)
        mean, deviation = cv2.meanStdDev(grey)
        self._brightness, self._contrast = float(mean[0, 0]), float(deviation[0, 0])
        trackable = min(grey.shape) >= _SMALLEST_SIDE_PX
        corners = cv2.goodFeaturesToTrack(grey, _CORNERS, 0.01, 5) if trackable else None
        self._corners = np.empty((0, 2), np.float32) if corners is None else corners[:, 0]

    @property
    def plain(self) -> bool:
        """The reference has too little texture to be followed."""
        return len(self._corners) < _FEWEST_CORNERS

    def follow(self, grey: np.ndarray) -> tuple[np.ndarray, float]:
        """The homography from reference to current pixels, and the share of corners that agree with it, 0 to 1.

        Where too few agree the view is lost: the last motion is returned, and the share says so.
        """
        if self.plain:
            return np.eye(3), 0.0
        steady = self._motion @ np.linalg.inv(self._motion_before) @ self._motion
        motion, trust = self._refine(grey, steady)
        if trust < _TRUSTED:
            motion, trust = max(((motion, trust), self._refine(grey, self._jump(grey) @ self._motion)), key=lambda m: m[1])
        if trust < _TRUSTED:
            motion = self._motion
        self._last, self._motion_before, self._motion = grey, self._motion, motion
        return motion, trust

    def _jump(self, grey: np.ndarray) -> np.ndarray:
        """The shift from the last picture to this one, however large, from the phase of their spectra."""
        window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F)
        (dx, dy), _ = cv2.phaseCorrelate(self._last.astype(np.float32), grey.astype(np.float32), window)
        return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]])

    def _in_reference_light(self, seen: np.ndarray) -> np.ndarray:
        """The picture with the mean and contrast of the reference: the tracker compares grey levels."""
        mean, deviation = cv2.meanStdDev(seen)
        scale = self._contrast / max(float(deviation[0, 0]), 1.0)
        shift = self._brightness - scale * float(mean[0, 0])
        return cv2.LUT(seen, np.clip(np.arange(256) * scale + shift, 0, 255).astype(np.uint8))

    def _refine(self, grey: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, float]:
        height, width = grey.shape
        seen = self._in_reference_light(warp_back(grey, guess, border=cv2.BORDER_REPLICATE))
        start = self._corners[:, None]
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            self._reference, seen, start, start.copy(), winSize=(_WINDOW_PX, _WINDOW_PX), maxLevel=_LEVELS,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW)
        there = cv2.perspectiveTransform(found.astype(np.float64), guess)[:, 0]
        inside = (status[:, 0] > 0) & np.all((there >= 0) & (there < (width, height)), axis=1)
        if inside.sum() < _FEWEST_CORNERS:
            return guess, 0.0
        # Coordinates in picture widths from the centre: all eight numbers are then of a size.
        to_unit = np.array([[1 / width, 0, -0.5], [0, 1 / width, -0.5 * height / width], [0, 0, 1]])
        rest, trust = _fit_homography(_unit(self._corners[inside], width, height),
                                      _unit(found[:, 0][inside], width, height), 1 / width)
        motion = guess @ np.linalg.inv(to_unit) @ rest @ to_unit
        return (motion / motion[2, 2], trust) if _is_a_view(to_unit @ motion @ np.linalg.inv(to_unit)) else (guess, 0.0)


def warp_back(picture: np.ndarray, motion: np.ndarray, *, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """The current picture laid over the reference; what the current one does not show is black (or replicated)."""
    size = picture.shape[1::-1]
    return cv2.warpPerspective(picture, motion, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border)


def displacement(motion: np.ndarray, height: int, width: int) -> float:
    """How far the four corners of the picture moved on average, in picture widths."""
    corners = np.array([[[0, 0]], [[width, 0]], [[0, height]], [[width, height]]], np.float64)
    return float(np.linalg.norm(cv2.perspectiveTransform(corners, motion) - corners, axis=2).mean() / width)


def _is_a_view(motion: np.ndarray) -> bool:
    """Whether a homography (in picture widths) can be a camera's motion between two usable pictures: no mirror image, no
    picture folded over its horizon, no more than a fourfold zoom."""
    if not np.isfinite(motion).all() or abs(motion[2, 2]) < 1e-3:
        return False
    h = motion / motion[2, 2]
    return bool(1 / 16 < np.linalg.det(h[:2, :2]) < 16 and np.abs(h[2, :2]).max() < 1)


def _unit(points: np.ndarray, width: int, height: int) -> np.ndarray:
    return (points.astype(np.float64) - (width / 2, height / 2)) / width


def _fit_homography(source: np.ndarray, target: np.ndarray, pixel: float) -> tuple[np.ndarray, float]:
    """The homography from source to target points [N, 2], outliers weighted down, and the share of inliers."""
    (x, y), (u, v) = source.T, target.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    equations = np.concatenate([np.stack([x, y, one, zero, zero, zero, -x * u, -y * u], axis=1),
                                np.stack([zero, zero, zero, x, y, one, -x * v, -y * v], axis=1)])
    values = np.concatenate([u, v])
    flow = target - source
    error = np.linalg.norm(flow - np.median(flow, axis=0), axis=1)
    h = _NO_MOTION
    for _ in range(_FIT_ROUNDS):
        scale = max(3.7 * np.median(error), _SCALE_FLOOR_PX * pixel)
        weight = np.tile((1 + (error / scale) ** 2) ** -2, 2)
        weighted = equations * weight[:, None]
        last = h
        h = np.linalg.solve(equations.T @ weighted + np.diag(_HOLD), weighted.T @ values + _HOLD * _NO_MOTION)
        depth = h[6] * x + h[7] * y + 1
        error = np.hypot((h[0] * x + h[1] * y + h[2]) / depth - u, (h[3] * x + h[4] * y + h[5]) / depth - v)
        if np.abs(h - last).max() < _FIT_SETTLED:
            break
    return np.append(h, 1.0).reshape(3, 3), float(np.mean(error < _INLIER_PX * pixel))
