"""The outline a thing would have in the picture if nothing stood before it. Needs no renderer; knows no other thing.

Every part is convex, so its outline is the convex hull of its projected points, and the thing's is their union.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

from penguin_ros.sim.parts import CONE_TOP, Part
from penguin_ros.sim.world import Camera

NEAR_M = 0.05

_ANGLES = np.linspace(0, 2 * math.pi, 20, endpoint=False)
_RING = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
_TUBE = np.concatenate([np.column_stack([_RING, np.full(20, z)]) for z in (-1.0, 1.0)])
_CONE = np.concatenate([np.column_stack([_RING * radius, np.full(20, z)]) for radius, z in ((1.0, -1.0), (CONE_TOP, 1.0))])
_BALL = np.concatenate([np.column_stack([_RING * math.cos(lat), np.full(20, math.sin(lat))])
                        for lat in np.linspace(-1.4, 1.4, 9)])


def camera_axes(camera: Camera, pose: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Where the camera is [3], and its axes as columns [3, 3]: right, up, backward (MuJoCo's convention)."""
    x, y, yaw = pose
    cos, sin, down, level = math.cos(yaw), math.sin(yaw), math.sin(camera.pitch_rad), math.cos(camera.pitch_rad)
    forward = np.array([cos * level, sin * level, -down])
    right = np.array([sin, -cos, 0.0])
    up = np.cross(right, forward)
    roll_cos, roll_sin = math.cos(camera.roll_rad), math.sin(camera.roll_rad)
    right, up = roll_cos * right + roll_sin * up, roll_cos * up - roll_sin * right
    return np.array([x, y, camera.height_m]), np.stack([right, up, -forward], axis=1)


def surface_points(part: Part) -> np.ndarray:
    """Points [n, 3] in world axes whose hull is the part."""
    if part.shape == 'box':
        local = _CORNERS * part.size
    elif part.shape == 'sphere':
        local = _BALL * part.size[0]
    elif part.shape == 'cylinder':
        local = _TUBE * (part.size[0], part.size[0], part.size[1])
    elif part.shape in ('cone', 'cone_band'):      # the band lies within the cone's outline
        local = _CONE * (part.size[0], part.size[0], part.size[1])
    else:
        local = _BALL * part.size[0]
        local = np.concatenate([local + (0, 0, part.size[1]), local - (0, 0, part.size[1])])
    return part.centre + local @ part.axes.T


def silhouette(parts: Iterable[Part], camera: Camera, pose: tuple[float, float, float], *, scale: float = 1.0,
               margin_px: int = 0) -> np.ndarray:
    """Mask uint8 [height, width] (1 inside) of the parts' union, in a picture widened by `margin_px` on each side.

    `scale` shrinks the picture first, margin and all: a coarse mask is enough to judge hiding.
    """
    position, axes = camera_axes(camera, pose)
    width, height = round((camera.width_px + 2 * margin_px) * scale), round((camera.height_px + 2 * margin_px) * scale)
    focal = camera.focal_px * scale
    mask = np.zeros((height, width), np.uint8)
    for part in parts:
        local = (surface_points(part) - position) @ axes
        depth = -local[:, 2]
        if depth.max() <= NEAR_M:
            continue
        depth = np.maximum(depth, NEAR_M)
        pixel = np.stack([width / 2 + focal * local[:, 0] / depth, height / 2 - focal * local[:, 1] / depth], axis=1)
        hull = cv2.convexHull(np.clip(pixel, -8 * width, 8 * width).astype(np.float32))[:, 0]
        # OpenCV also fills every pixel its border touches: draw it half a pixel smaller
        inward = hull.mean(axis=0) - hull
        hull += inward * np.minimum(0.5 / np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 0.5), 1.0)
        fixed = np.round((hull - 0.5) * 16).astype(np.int32)     # 1/16 pixel, counted from pixel centres
        cv2.fillConvexPoly(mask, fixed, 1, lineType=cv2.LINE_8, shift=4)
    return mask
