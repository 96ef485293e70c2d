"""What exists in the simulated warehouse, and when. Pure data drawn from a seed; knows nothing of MuJoCo or pixels.

A `World` is a timeline: everything in it answers where it is at a time in seconds, so one description serves a single
picture, a clip of a few frames and a drive of minutes. Axes: x and y along the floor, z up, metres, yaw from x towards y.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace

import numpy as np

KINDS = ('crate', 'barrel', 'ball', 'cone', 'person', 'sign')
COLOURS = {
    'red': (0.82, 0.07, 0.07),
    'green': (0.08, 0.55, 0.14),
    'blue': (0.08, 0.20, 0.80),
    'yellow': (0.95, 0.78, 0.05),
    'purple': (0.48, 0.12, 0.66),
    'white': (0.93, 0.93, 0.93),
}
FLOORS = ('checker', 'concrete', 'tiles', 'boards', 'bare')

# "The path ahead is clear": nothing stands in the strip in front of the camera that the robot is about to drive over.
CORRIDOR_HALF_WIDTH_M = 0.5
CORRIDOR_LENGTH_M = 2.5


def rng_for(split: str, seed: int, purpose: str = 'world') -> np.random.Generator:
    """A generator that two splits never share: the split's name is hashed together with the seed."""
    digest = hashlib.sha256(f'penguin warehouse/{split}/{seed}/{purpose}'.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], 'big'))


@dataclass(frozen=True)
class Way:
    """Places over time, straight lines between them; before the first and after the last it stands still."""

    stops: tuple[tuple[float, float, float, float], ...]  # (time_s, x_m, y_m, yaw_rad), times rising

    def at(self, time_s: float) -> tuple[float, float, float]:
        """x_m, y_m, yaw_rad at a time."""
        before = self.stops[0]
        for stop in self.stops:
            if stop[0] >= time_s:
                span_s = stop[0] - before[0]
                share = (time_s - before[0]) / span_s if span_s > 0 else 1.0
                share = min(max(share, 0.0), 1.0)
                x, y, yaw = (a + share * (b - a) for a, b in zip(before[1:], stop[1:]))
                return x, y, yaw
            before = stop
        return before[1], before[2], before[3]

    def travelled_m(self, time_s: float) -> float:
        """Path length up to a time; a walking person's stride follows it."""
        total_m, before = 0.0, self.stops[0]
        for stop in self.stops[1:]:
            if before[0] >= time_s:
                break
            x, y, _ = self.at(min(stop[0], time_s))
            total_m += math.hypot(x - before[1], y - before[2])
            before = stop
        return total_m


def standing(x: float, y: float, yaw: float) -> Way:
    """A way that never leaves its place."""
    return Way(((0.0, x, y, yaw),))


@dataclass(frozen=True)
class Repaint:
    """Another colour from a time on."""

    from_s: float
    colour: str
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Thing:
    """One object that the ground truth names."""

    id: int
    kind: str
    colour: str
    rgb: tuple[float, float, float]
    height_m: float
    width_m: float
    way: Way
    digit: int | None = None                       # what a sign shows
    present_s: tuple[float, float] = (-math.inf, math.inf)  # in the world from (inclusive) until (exclusive)
    face: int = 0                                  # a free choice of look: skin, trousers, lettering
    repaint: Repaint | None = None

    def is_present(self, time_s: float) -> bool:
        return self.present_s[0] <= time_s < self.present_s[1]

    def as_at(self, time_s: float) -> Thing:
        """The thing in the colour it has at a time."""
        if self.repaint is None or time_s < self.repaint.from_s:
            return self
        return replace(self, colour=self.repaint.colour, rgb=self.repaint.rgb)

    @property
    def radius_m(self) -> float:
        """Of the circle on the floor that holds its footprint."""
        return self.width_m * (0.66 if self.kind == 'crate' else 0.5)


@dataclass(frozen=True)
class Shelf:
    """A rack of grey and brown goods: never named by the truth, there to be told apart from things."""

    x: float
    y: float
    yaw: float
    length_m: float
    depth_m: float
    height_m: float
    seed: int


@dataclass(frozen=True)
class Room:
    """Four walls and a floor, with their looks."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    wall_height_m: float
    wall_rgb: tuple[float, float, float]
    base_rgb: tuple[float, float, float]
    floor: str
    floor_rgb: tuple[float, float, float]
    lanes_y: tuple[float, ...]                     # painted lines along x


@dataclass(frozen=True)
class Light:
    """One lamp direction and the fill light; `levels` steps the brightness over time."""

    direction: tuple[float, float, float]
    lamp: tuple[float, float, float]
    fill: float
    levels: tuple[tuple[float, float], ...] = ((-math.inf, 1.0),)  # (from time_s, brightness)
    casts_shadow: bool = False

    def level_at(self, time_s: float) -> float:
        return [level for from_s, level in self.levels if from_s <= time_s][-1]


@dataclass(frozen=True)
class Camera:
    """How the camera sits on the robot and what its lens shows."""

    height_m: float = 0.7
    pitch_rad: float = math.radians(8.0)           # down
    roll_rad: float = 0.0
    fovy_rad: float = math.radians(60.0)
    width_px: int = 320
    height_px: int = 240

    @property
    def focal_px(self) -> float:
        return self.height_px / 2 / math.tan(self.fovy_rad / 2)


@dataclass(frozen=True)
class Sensor:
    """What the picture loses between lens and file."""

    exposure: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 2.0                             # standard deviation in grey levels
    blur_px: float = 0.0
    vignette: float = 0.0                          # how much darker the corners are, 0 to 1
    smooth_edges: bool = False                     # several samples per pixel


@dataclass(frozen=True)
class World:
    """Everything one recording shows, from its first to its last second."""

    split: str
    seed: int
    room: Room
    shelves: tuple[Shelf, ...]
    things: tuple[Thing, ...]
    light: Light
    camera: Camera
    robot: Way
    sensor: Sensor = field(default_factory=Sensor)

    def things_at(self, time_s: float) -> list[Thing]:
        """What is in the world at a time, in the colours it then has."""
        return [thing.as_at(time_s) for thing in self.things if thing.is_present(time_s)]


def _axes(yaw: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])


def path_gap_m(world: World, thing: Thing, time_s: float) -> float:
    """From the circle around a thing's footprint to the strip ahead of the camera; negative where it reaches into it."""
    x, y, yaw = world.robot.at(time_s)
    offset = np.array(thing.way.at(time_s)[:2]) - (x, y)
    ahead_m, aside_m = (float(offset @ axis) for axis in _axes(yaw))
    gap_ahead_m = max(-ahead_m, ahead_m - CORRIDOR_LENGTH_M, 0.0)
    gap_aside_m = max(abs(aside_m) - CORRIDOR_HALF_WIDTH_M, 0.0)
    return math.hypot(gap_ahead_m, gap_aside_m) - thing.radius_m


def is_path_clear(world: World, time_s: float) -> bool:
    """Whether the strip ahead of the camera is free: 2.5 m long, 0.5 m to either side, seen from the camera's floor point.

    A thing blocks it when the circle around its footprint reaches into the strip, a shelf when its rectangle does, a
    wall when the strip passes through it.
    """
    if any(path_gap_m(world, thing, time_s) < 0 for thing in world.things_at(time_s)):
        return False
    x, y, yaw = world.robot.at(time_s)
    forward, left = _axes(yaw)
    grid = np.stack(np.meshgrid(np.linspace(0, CORRIDOR_LENGTH_M, 26),
                                np.linspace(-CORRIDOR_HALF_WIDTH_M, CORRIDOR_HALF_WIDTH_M, 11)), axis=-1).reshape(-1, 2)
    strip = np.array([x, y]) + grid[:, :1] * forward + grid[:, 1:] * left
    room = world.room
    if (strip[:, 0].min() < room.x_min or strip[:, 0].max() > room.x_max
            or strip[:, 1].min() < room.y_min or strip[:, 1].max() > room.y_max):
        return False
    for shelf in world.shelves:
        cos, sin = math.cos(shelf.yaw), math.sin(shelf.yaw)
        offset = strip - (shelf.x, shelf.y)
        along, across = offset @ (cos, sin), offset @ (-sin, cos)
        if np.any((np.abs(along) < shelf.length_m / 2) & (np.abs(across) < shelf.depth_m / 2)):
            return False
    return True


def make_thing(rng: np.random.Generator, id: int, kind: str, colour: str, way: Way, *,
               present_s: tuple[float, float] = (-math.inf, math.inf)) -> Thing:
    """A thing with its own size and shade of the colour."""
    low_high = {'crate': (0.38, 0.75), 'barrel': (0.65, 1.0), 'ball': (0.32, 0.62), 'cone': (0.5, 0.85),
                'person': (1.55, 1.9), 'sign': (0.9, 1.2)}[kind]
    height_m = float(rng.uniform(*low_high))
    width_m = {'crate': height_m * float(rng.uniform(0.85, 1.3)), 'barrel': height_m * float(rng.uniform(0.58, 0.7)),
               'ball': height_m, 'cone': height_m * 0.62, 'person': 0.55, 'sign': float(rng.uniform(0.52, 0.68))}[kind]
    return Thing(id, kind, colour, sample_shade(rng, colour), height_m, width_m, way,
                 digit=int(rng.integers(10)) if kind == 'sign' else None, face=int(rng.integers(1 << 16)), present_s=present_s)


def sample_shade(rng: np.random.Generator, colour: str) -> tuple[float, float, float]:
    """One thing's own shade of a named colour."""
    shade = float(rng.uniform(0.82, 1.1)) if colour != 'white' else float(rng.uniform(0.95, 1.05))
    red, green, blue = (float(np.clip(channel * shade + rng.uniform(-0.03, 0.03), 0.0, 1.0)) for channel in COLOURS[colour])
    return red, green, blue


def sample_look(rng: np.random.Generator) -> tuple[Light, Sensor]:
    """Light and sensor: mostly plain, sometimes dim, tinted, noisy or soft."""
    casts_shadow = bool(rng.random() < 0.12)
    # a lamp low enough to throw the walls' shadows over the floor would be no warehouse lamp
    azimuth, steepness = rng.uniform(-math.pi, math.pi), rng.uniform(0.95, 1.4) if casts_shadow else rng.uniform(0.4, 1.2)
    lamp = rng.uniform(0.35, 0.75) * (1 + rng.uniform(-0.08, 0.08, 3))
    light = Light(direction=(math.cos(azimuth) * math.cos(steepness), math.sin(azimuth) * math.cos(steepness),
                             -math.sin(steepness)),
                  lamp=(float(lamp[0]), float(lamp[1]), float(lamp[2])), fill=float(rng.uniform(0.35, 0.6)),
                  casts_shadow=casts_shadow)
    balance = 1 + rng.uniform(-0.06, 0.06, 3)
    sensor = Sensor(exposure=float(np.exp(np.clip(rng.normal(0.08, 0.13), -0.25, 0.3))),
                    white_balance=(float(balance[0]), float(balance[1]), float(balance[2])),
                    noise=float(rng.choice([1.0, 2.5, 5.0, 9.0], p=[0.3, 0.4, 0.22, 0.08])),
                    blur_px=float(rng.choice([0.0, 0.5, 0.8, 1.2], p=[0.35, 0.35, 0.2, 0.1])),
                    vignette=float(rng.uniform(0.0, 0.25)), smooth_edges=bool(rng.random() < 0.3))
    return light, sensor


def sample_camera(rng: np.random.Generator) -> Camera:
    return Camera(height_m=float(rng.uniform(0.45, 0.95)), pitch_rad=math.radians(rng.uniform(2, 14)),
                  roll_rad=math.radians(rng.normal(0, 0.7)), fovy_rad=math.radians(rng.uniform(57, 63)))


def sample_room(rng: np.random.Generator, x_min: float, x_max: float, y_min: float, y_max: float) -> Room:
    grey = rng.uniform(0.38, 0.7)
    wall = np.clip(grey + rng.uniform(-0.06, 0.06, 3), 0, 1)
    floor = np.clip(rng.uniform(0.35, 0.85) + rng.uniform(-0.05, 0.05, 3), 0, 1)
    lanes = tuple(float(y) for y in rng.uniform(y_min + 1, y_max - 1, int(rng.integers(0, 4))))
    return Room(x_min, x_max, y_min, y_max, float(rng.uniform(2.6, 4.5)),
                (float(wall[0]), float(wall[1]), float(wall[2])),
                tuple(float(channel * 0.55) for channel in wall),  # type: ignore[arg-type]
                str(rng.choice(FLOORS, p=[0.3, 0.25, 0.2, 0.1, 0.15])),
                (float(floor[0]), float(floor[1]), float(floor[2])), lanes)


def sample_shelf(rng: np.random.Generator, x: float, y: float, yaw: float) -> Shelf:
    return Shelf(x, y, yaw, float(rng.uniform(1.4, 2.8)), float(rng.uniform(0.4, 0.6)), float(rng.uniform(1.3, 2.3)),
                 int(rng.integers(1 << 31)))
