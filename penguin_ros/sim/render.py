"""Pictures of a world with their exact ground truth. Knows nothing of how worlds are drawn or files written.

A thing counts as visible when it fills at least 0.25 % of the picture (192 pixels of 320x240) and at least 35 % of its
outline is seen; the outline is that of the whole thing, including what lies outside the picture or behind others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from penguin_ros.sim.parts import Part, parts_of_thing
from penguin_ros.sim.silhouette import camera_axes, silhouette
from penguin_ros.sim.stage import Stage
from penguin_ros.sim.world import Sensor, Thing, World, is_path_clear, path_gap_m, rng_for

MIN_VISIBLE_SHARE = 0.0025      # of the picture's pixels
MIN_VISIBLE_FRACTION = 0.35     # of the thing's whole outline
MIN_DIGIT_FRACTION = 0.85       # of its strokes, for a digit to count as readable


@dataclass(frozen=True)
class SeenThing:
    """One thing in one picture."""

    id: int
    kind: str
    colour: str
    digit: int | None
    digit_px: float                                # height of the digit in the picture; 0 when part of it is hidden
    box: tuple[int, int, int, int]                 # pixels that show it: x_min, y_min, x_max, y_max, half open
    pixels: int
    fraction: float                                # of its whole outline
    distance_m: float                              # along the floor, from the camera
    bearing_rad: float                             # left is positive
    path_gap_m: float                              # to the strip the robot is about to drive over; negative in it

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {'id': self.id, 'kind': self.kind, 'colour': self.colour, 'digit': self.digit,
                                 'box': list(self.box), 'pixels': self.pixels, 'fraction': round(self.fraction, 3),
                                 'distance_m': round(self.distance_m, 3), 'bearing_rad': round(self.bearing_rad, 4),
                                 'path_gap_m': round(self.path_gap_m, 3)}
        if self.digit is not None:
            found['digit_px'] = round(self.digit_px, 1)
        return found


@dataclass(frozen=True)
class FrameTruth:
    """What one picture shows. `objects` are visible by the rule, left to right; `faint` are seen but do not count."""

    time_s: float
    pose: tuple[float, float, float]               # the robot's x_m, y_m, yaw_rad
    path_clear: bool
    objects: tuple[SeenThing, ...]
    faint: tuple[SeenThing, ...]

    def as_dict(self) -> dict[str, Any]:
        return {'time_s': round(self.time_s, 3), 'pose': [round(value, 4) for value in self.pose],
                'path_clear': self.path_clear, 'objects': [seen.as_dict() for seen in self.objects],
                'faint': [seen.as_dict() for seen in self.faint]}


class Renderer:
    """Turns a world at a time into a picture and its truth. Not for use from several threads."""

    def __init__(self) -> None:
        self._stages: dict[tuple[int, int, bool], Stage] = {}
        noise_rng = np.random.default_rng(5)
        self._noise = noise_rng.standard_normal(1 << 21, dtype=np.float32)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for stage in self._stages.values():
            stage.close()
        self._stages.clear()

    def frame(self, world: World, time_s: float, *, shutter_s: float = 0.0, grain: str = '') -> tuple[np.ndarray, FrameTruth]:
        """RGB uint8 [height, width, 3] as the sensor gives it, and what it shows.

        An open shutter smears the picture while the robot turns; the truth is that of its middle. `grain` names the
        sensor: those of one robot do not share their noise.
        """
        camera, smooth = world.camera, world.sensor.smooth_edges
        key = (camera.width_px, camera.height_px, smooth)
        if key not in self._stages:
            self._stages[key] = Stage(camera, smooth_edges=smooth)
        stage = self._stages[key]
        things = world.things_at(time_s)
        built = [parts_of_thing(thing, time_s) for thing in things]
        owned = [(_owner(slot, part), part) for slot, parts in enumerate(built) for part in parts]
        owners = stage.place(world, owned, time_s)
        picture = stage.picture()
        seen_owner = np.append(owners, 0)[stage.geom_ids()]    # -1 reads the appended 0
        truth = _truth(world, time_s, things, built, seen_owner)
        if shutter_s > 0:
            picture = _smeared(picture, world, time_s, shutter_s)
        return self._sense(picture, world, time_s, grain), truth

    def _sense(self, picture: np.ndarray, world: World, time_s: float, grain: str) -> np.ndarray:
        """Blur, exposure, white balance, vignette and noise; the noise is the world's own at this time."""
        sensor = world.sensor
        if sensor.blur_px > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), sensor.blur_px)
        light = picture.astype(np.float32)
        light *= np.float32(sensor.exposure) * np.array(sensor.white_balance, np.float32)
        light *= _vignette(picture.shape[0], picture.shape[1], sensor)
        purpose = f'noise at {time_s:.3f}' + (f' of {grain}' if grain else '')
        start = int(rng_for(world.split, world.seed, purpose).integers(self._noise.size - light.size))
        light += np.float32(sensor.noise) * self._noise[start:start + light.size].reshape(light.shape)
        return cv2.convertScaleAbs(np.maximum(light, 0.0))


def _smeared(picture: np.ndarray, world: World, time_s: float, shutter_s: float) -> np.ndarray:
    """The mean of what passes the sensor while the camera turns. Driving and walking smear a pixel or two: left out."""
    turn_rad = world.robot.at(time_s + shutter_s / 2)[2] - world.robot.at(time_s - shutter_s / 2)[2]
    smear_px = abs(turn_rad) * world.camera.focal_px
    if smear_px < 0.25:
        return picture
    camera, flip = world.camera, np.diag([1.0, -1.0, -1.0])        # from MuJoCo's camera axes to right, down, ahead
    lens = np.array([[camera.focal_px, 0, (camera.width_px - 1) / 2], [0, camera.focal_px, (camera.height_px - 1) / 2],
                     [0, 0, 1]])
    _, axes = camera_axes(camera, (0.0, 0.0, 0.0))
    mean = np.zeros(picture.shape, np.float32)
    steps = math.ceil(smear_px) + 1
    for share in np.linspace(-0.5, 0.5, steps):
        _, turned = camera_axes(camera, (0.0, 0.0, float(share) * turn_rad))
        moved = lens @ flip @ turned.T @ axes @ flip @ np.linalg.inv(lens)
        mean += cv2.warpPerspective(picture, moved, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return cv2.convertScaleAbs(mean / steps)


_DIGIT_OWNER = 1000             # owners above this are the strokes of the sign in slot owner - 1001


def _owner(slot: int, part: Part) -> int:
    if part.role == 'shadow':
        return 0
    return slot + 1 + (_DIGIT_OWNER if part.role == 'digit' else 0)


def _vignette(height: int, width: int, sensor: Sensor) -> np.ndarray:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return (1.0 - np.float32(sensor.vignette) * 0.5 * (x * x + y * y))[..., None]


def _truth(world: World, time_s: float, things: list[Thing], built: list[list[Part]],
           seen_owner: np.ndarray) -> FrameTruth:
    pose = world.robot.at(time_s)
    body_owner = np.where(seen_owner > _DIGIT_OWNER, seen_owner - _DIGIT_OWNER, seen_owner)
    seen: list[SeenThing] = []
    for slot, (thing, parts) in enumerate(zip(things, built)):
        mask = body_owner == slot + 1
        pixels = int(np.count_nonzero(mask))
        if pixels == 0:
            continue
        x_min, y_min, width, height = cv2.boundingRect(mask.view(np.uint8))
        body = [part for part in parts if part.role == 'body']
        whole = int(np.count_nonzero(silhouette(body, world.camera, pose, margin_px=world.camera.width_px)))
        x, y, _ = thing.way.at(time_s)
        bearing_rad = math.atan2(y - pose[1], x - pose[0]) - pose[2]
        seen.append(SeenThing(
            thing.id, thing.kind, thing.colour, thing.digit,
            _readable_digit_px(world, pose, parts, seen_owner == slot + 1 + _DIGIT_OWNER) if thing.digit is not None else 0.0,
            (x_min, y_min, x_min + width, y_min + height), pixels, min(1.0, pixels / max(whole, pixels, 1)),
            math.hypot(x - pose[0], y - pose[1]), math.atan2(math.sin(bearing_rad), math.cos(bearing_rad)),
            path_gap_m(world, thing, time_s)))
    seen.sort(key=lambda one: (one.box[0] + one.box[2], one.id))
    least = MIN_VISIBLE_SHARE * seen_owner.size
    counts = [one.pixels >= least and one.fraction >= MIN_VISIBLE_FRACTION for one in seen]
    return FrameTruth(time_s, pose, is_path_clear(world, time_s),
                      tuple(one for one, counted in zip(seen, counts) if counted),
                      tuple(one for one, counted in zip(seen, counts) if not counted))


def _readable_digit_px(world: World, pose: tuple[float, float, float], parts: list[Part], strokes: np.ndarray) -> float:
    """Height of a sign's digit in the picture, 0 if less than 85 % of its strokes are seen."""
    position, _ = camera_axes(world.camera, pose)
    front = [part for part in parts if part.role == 'digit' and _faces(part, parts, position)]
    whole = silhouette(front, world.camera, pose, margin_px=world.camera.width_px // 2)
    expected = int(np.count_nonzero(whole))
    if expected == 0 or np.count_nonzero(strokes) < MIN_DIGIT_FRACTION * expected:
        return 0.0
    return float(cv2.boundingRect(strokes.view(np.uint8))[3])


def _faces(part: Part, parts: list[Part], camera_position: np.ndarray) -> bool:
    """Whether a stroke is on the side of its board that the camera sees."""
    board = next(other for other in parts if other.shape == 'box' and other.role == 'body' and other.size[0] == 0.02)
    return float((part.centre - board.centre)[:2] @ (camera_position - board.centre)[:2]) > 0
