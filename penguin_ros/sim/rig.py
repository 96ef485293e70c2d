"""Cameras on a robot: where each sits, with which lens, and what it sees of a world. Knows nothing of pixels or messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from penguin_ros.core.errors import ConfigError
from penguin_ros.sim.silhouette import camera_axes
from penguin_ros.sim.world import Camera, Thing, Way, World, rng_for, sample_camera

# Where a camera of that name sits: ahead and left of the robot's middle in metres, and where it looks.
PLACES = {'front': (0.22, 0.0, 0.0), 'left': (0.04, 0.17, math.pi / 2), 'right': (0.04, -0.17, -math.pi / 2),
          'rear': (-0.22, 0.0, math.pi)}
SHUTTER_S = 0.02
_SMALL_TURN_RAD = 0.02          # a way in steps of that much keeps an offset camera within 0.02 mm of its true path
_REACH_M = 1.2                  # a thing farther than this out of the picture does not show
_SHADOW_REACH_M = 3.5           # nor does its shadow, farther than this

Pose = tuple[float, float, float]


@dataclass(frozen=True)
class Mount:
    """One camera on the robot; its height, pitch and roll are the `Camera`'s."""

    name: str
    camera: Camera
    x_m: float = 0.0            # ahead of the robot's middle
    y_m: float = 0.0            # to its left
    yaw_rad: float = 0.0        # left of straight ahead
    shutter_s: float = SHUTTER_S

    @property
    def frame_id(self) -> str:
        return f'{self.name}_optical_frame'

    def pose(self, robot: Pose) -> Pose:
        """The camera's floor point and direction when the robot is at a place."""
        x, y, yaw = robot
        cos, sin = math.cos(yaw), math.sin(yaw)
        return x + cos * self.x_m - sin * self.y_m, y + sin * self.x_m + cos * self.y_m, yaw + self.yaw_rad

    def optical_pose(self, robot: Pose) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Position x, y, z and orientation x, y, z, w of the optical frame (x right, y down, z ahead), robot's place given.

        With the robot at (0, 0, 0) this is the transform from base_link.
        """
        position, axes = camera_axes(self.camera, self.pose(robot))
        return tuple(float(value) for value in position), _quaternion(axes * (1.0, -1.0, -1.0))


def sample_rig(split: str, seed: int, names: Sequence[str] = tuple(PLACES)) -> tuple[Mount, ...]:
    """The cameras of a seed's robot: each name has its place, each camera its own height, tilt and lens."""
    unknown = [name for name in names if name not in PLACES]
    if unknown or not names or len(set(names)) < len(names):
        raise ConfigError(f'cameras {", ".join(names) or "(none)"} are not known or not told apart. '
                          f'Choose among {", ".join(PLACES)}, each once.')
    return tuple(Mount(name, sample_camera(rng_for(split, seed, f'camera {name}')), *PLACES[name]) for name in names)


def seen_through(world: World, mount: Mount) -> World:
    """The same world with this camera as its only one: what stands there as `robot` is the camera's own way."""
    return replace(world, camera=mount.camera, robot=_carried(world.robot, mount))


def near_view(view: World, time_s: float) -> World:
    """The world without what stands far outside the picture: the same picture, sooner."""
    return replace(view, things=tuple(thing for thing in view.things if _may_show(view, thing, time_s)))


def _may_show(view: World, thing: Thing, time_s: float) -> bool:
    x, y, yaw = view.robot.at(time_s)
    thing_x, thing_y, _ = thing.way.at(time_s)
    ahead = (thing_x - x) * math.cos(yaw) + (thing_y - y) * math.sin(yaw)
    aside = abs((thing_y - y) * math.cos(yaw) - (thing_x - x) * math.sin(yaw))
    half_view = view.camera.width_px / 2 / view.camera.focal_px
    reach_m = _SHADOW_REACH_M if view.light.casts_shadow else _REACH_M
    return ahead > -reach_m and aside < half_view * max(ahead, 0.0) + reach_m


def _carried(way: Way, mount: Mount) -> Way:
    """The way of a camera that the robot carries along."""
    stops = []
    for before, after in zip(way.stops, way.stops[1:]):
        steps = max(1, math.ceil(abs(after[3] - before[3]) / _SMALL_TURN_RAD))
        for step in range(steps):
            time_s, x, y, yaw = (a + step / steps * (b - a) for a, b in zip(before, after))
            stops.append((time_s, *mount.pose((x, y, yaw))))
    last_s, x, y, yaw = way.stops[-1]
    return Way((*stops, (last_s, *mount.pose((x, y, yaw)))))


def _quaternion(axes: np.ndarray) -> tuple[float, ...]:
    """x, y, z, w of the rotation whose columns are given; w is never negative."""
    # the largest eigenvector of this symmetric matrix is the quaternion, for every rotation (no special cases)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = axes
    votes = np.array([[xx - yy - zz, 0, 0, 0], [yx + xy, yy - xx - zz, 0, 0], [zx + xz, zy + yz, zz - xx - yy, 0],
                      [zy - yz, xz - zx, yx - xy, xx + yy + zz]])
    quaternion = np.linalg.eigh(votes)[1][:, -1]   # eigh reads the lower half only
    return tuple(float(value) for value in (quaternion if quaternion[3] >= 0 else -quaternion))
