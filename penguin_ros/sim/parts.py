"""What things, shelves and rooms are built of: boxes, cylinders, capsules and balls. Knows nothing of rendering.

A part is placed in world axes, so a renderer only copies numbers, and its outline in the picture can be computed
without rendering (silhouette.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from penguin_ros.sim.world import Room, Shelf, Thing

Rgb = tuple[float, float, float]

# Radius of a unit traffic cone at its foot and at its top, and where its band sits; size (radius, half height) scales it.
CONE_TOP = 0.15
CONE_BAND = (0.08, 0.42)                           # heights, -1 the foot and 1 the top


@dataclass(frozen=True)
class Part:
    """One solid. `size` as MuJoCo has it: half sides; (radius, half height); (radius, half length); (radius,)."""

    shape: str                                     # box, cylinder, capsule, sphere, cone, cone_band
    size: tuple[float, ...]
    centre: np.ndarray                             # [3] in world axes, metres
    axes: np.ndarray                               # [3, 3], columns are the part's own axes
    rgb: Rgb
    material: str = 'plain'
    role: str = 'body'                             # body; digit, the lit strokes of a sign; shadow, on the floor
    alpha: float = 1.0


class _Frame:
    """Places parts given in a thing's own axes (x ahead, y left, z up from the floor)."""

    def __init__(self, x: float, y: float, yaw: float) -> None:
        self.origin = np.array([x, y, 0.0])
        cos, sin = math.cos(yaw), math.sin(yaw)
        self.axes = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def part(self, shape: str, size: tuple[float, ...], at: tuple[float, float, float], rgb: Rgb, *,
             tilt_rad: float = 0.0, **rest: object) -> Part:
        """`tilt_rad` turns the part about the thing's own y axis (a leg swings forward)."""
        axes = self.axes
        if tilt_rad:
            cos, sin = math.cos(tilt_rad), math.sin(tilt_rad)
            axes = axes @ np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        return Part(shape, size, self.origin + self.axes @ np.array(at), axes, rgb, **rest)  # type: ignore[arg-type]


def _shaded(rgb: Rgb, factor: float) -> Rgb:
    return tuple(min(1.0, channel * factor) for channel in rgb)  # type: ignore[return-value]


def _contact_shadow(frame: _Frame, radius_m: float) -> list[Part]:
    """A soft dark disc where a thing meets the floor; real shadows cost ten times the picture."""
    return [frame.part('cylinder', (radius_m * spread, 0.001), (0.0, 0.0, 0.003 + 0.001 * layer), (0.02, 0.02, 0.02),
                       role='shadow', alpha=0.14) for layer, spread in enumerate((1.12, 1.0, 0.88))]


def _crate(frame: _Frame, thing: Thing) -> list[Part]:
    half_w, half_h = thing.width_m / 2, thing.height_m / 2
    beam_m = 0.035 * (thing.height_m / 0.6)
    edge_rgb = _shaded(thing.rgb, 0.72)
    parts = [frame.part('box', (half_w, half_w, half_h), (0, 0, half_h), thing.rgb, material='planks')]
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(frame.part('box', (beam_m, beam_m, half_h + 0.004), (sx * (half_w - beam_m * 0.8),
                                    sy * (half_w - beam_m * 0.8), half_h), edge_rgb))
    for z in (beam_m, thing.height_m - beam_m):
        parts.append(frame.part('box', (half_w + 0.006, half_w + 0.006, beam_m), (0, 0, z), edge_rgb))
    return parts


def _barrel(frame: _Frame, thing: Thing) -> list[Part]:
    radius_m, half_h = thing.width_m / 2, thing.height_m / 2
    ring_rgb = _shaded(thing.rgb, 0.7)
    parts = [frame.part('cylinder', (radius_m * 0.96, half_h), (0, 0, half_h), thing.rgb)]
    for share in (0.03, 0.35, 0.67, 0.97):
        parts.append(frame.part('cylinder', (radius_m, 0.018), (0, 0, thing.height_m * share), ring_rgb))
    parts.append(frame.part('cylinder', (radius_m * 0.82, 0.004), (0, 0, thing.height_m + 0.002), _shaded(thing.rgb, 0.8)))
    return parts


def _ball(frame: _Frame, thing: Thing) -> list[Part]:
    radius_m = thing.height_m / 2
    return [frame.part('sphere', (radius_m,), (0, 0, radius_m), thing.rgb, material='gloss')]


def _cone(frame: _Frame, thing: Thing) -> list[Part]:
    base_m = 0.03
    half_h = (thing.height_m - base_m) / 2
    band_rgb = (0.9, 0.9, 0.9) if thing.colour != 'white' else (0.55, 0.55, 0.55)
    at, size = (0.0, 0.0, base_m + half_h), (thing.width_m * 0.42, half_h)
    return [frame.part('box', (thing.width_m / 2, thing.width_m / 2, base_m / 2), (0, 0, base_m / 2), thing.rgb),
            frame.part('cone', size, at, thing.rgb), frame.part('cone_band', size, at, band_rgb)]


_SKINS: tuple[Rgb, ...] = ((0.87, 0.68, 0.55), (0.72, 0.50, 0.36), (0.45, 0.29, 0.20), (0.93, 0.77, 0.65))
_HAIRS: tuple[Rgb, ...] = ((0.08, 0.06, 0.05), (0.25, 0.15, 0.08), (0.35, 0.33, 0.32))
_TROUSERS: tuple[Rgb, ...] = ((0.13, 0.13, 0.16), (0.22, 0.22, 0.22), (0.20, 0.17, 0.13))


def _person(frame: _Frame, thing: Thing, stride_rad: float) -> list[Part]:
    """The colour is the shirt's; legs and arms swing with the stride."""
    h = thing.height_m
    skin, hair = _SKINS[thing.face % 4], _HAIRS[thing.face // 4 % 3]
    trousers = _TROUSERS[thing.face // 12 % 3]
    swing = 0.45 * math.sin(stride_rad)
    leg_m, arm_m = 0.45 * h, 0.27 * h
    hip = 0.02 * h + leg_m * math.cos(swing)       # both feet stay on the floor: a long stride lowers the body
    drop = 0.02 * h + leg_m - hip
    shoulder = 0.78 * h - drop
    parts = []
    for side in (-1, 1):
        leg, arm = side * swing, -side * swing * 0.9
        parts.append(frame.part('capsule', (0.045 * h, leg_m / 2 - 0.03 * h), (-math.sin(leg) * leg_m / 2, side * 0.055 * h,
                                hip - math.cos(leg) * leg_m / 2 + 0.02 * h), trousers, tilt_rad=leg))
        parts.append(frame.part('box', (0.07 * h, 0.032 * h, 0.02 * h), (0.025 * h - math.sin(leg) * leg_m, side * 0.055 * h,
                                0.02 * h), (0.07, 0.06, 0.06)))
        parts.append(frame.part('capsule', (0.03 * h, arm_m / 2), (-math.sin(arm) * arm_m / 2, side * 0.145 * h,
                                shoulder - math.cos(arm) * arm_m / 2), thing.rgb, tilt_rad=arm))
        parts.append(frame.part('sphere', (0.03 * h,), (-math.sin(arm) * arm_m * 1.12, side * 0.145 * h,
                                shoulder - math.cos(arm) * arm_m * 1.12), skin))
    for offset in (-0.05, 0.0, 0.05):
        parts.append(frame.part('capsule', (0.075 * h, 0.125 * h), (0, offset * h, 0.64 * h - drop), thing.rgb))
    parts.append(frame.part('cylinder', (0.033 * h, 0.03 * h), (0, 0, 0.86 * h - drop), skin))
    parts.append(frame.part('sphere', (0.062 * h,), (0.004 * h, 0, 0.93 * h - drop), skin))
    parts.append(frame.part('sphere', (0.061 * h,), (-0.012 * h, 0, 0.945 * h - drop), hair))
    return parts


# Strokes of a seven-segment digit: a top, b and c right, d bottom, e and f left, g middle.
_STROKES = ('abcdef', 'bc', 'abged', 'abgcd', 'fgbc', 'afgcd', 'afgedc', 'abc', 'abcdefg', 'abcdfg')


def _sign(frame: _Frame, thing: Thing) -> list[Part]:
    """A square board on a post; both faces show the digit the right way round."""
    half_w = thing.width_m / 2
    board_z = thing.height_m - half_w
    steel = (0.35, 0.36, 0.38)
    parts = [frame.part('box', (0.16, 0.16, 0.02), (0, 0, 0.02), steel),
             frame.part('cylinder', (0.03, (board_z - half_w) / 2), (0, 0, (board_z - half_w) / 2), steel),
             frame.part('box', (0.02, half_w, half_w), (0, 0, board_z), thing.rgb)]
    luminance = 0.3 * thing.rgb[0] + 0.6 * thing.rgb[1] + 0.1 * thing.rgb[2]
    ink = (0.03, 0.03, 0.03) if luminance > 0.5 else (0.97, 0.97, 0.97)
    digit_h, digit_w, pen = thing.width_m * 0.80, thing.width_m * 0.44, thing.width_m * 0.055
    upright = (pen, digit_h / 4)                   # half sizes along (y, z)
    level = (digit_w / 2, pen)
    strokes = {'a': (0.0, digit_h / 2 - pen, level), 'd': (0.0, -digit_h / 2 + pen, level), 'g': (0.0, 0.0, level),
               'b': (-1.0, digit_h / 4, upright), 'c': (-1.0, -digit_h / 4, upright),
               'f': (1.0, digit_h / 4, upright), 'e': (1.0, -digit_h / 4, upright)}
    for front in (1, -1):                          # seen from +x, left in the picture is -y: mirrored for the back
        for name in _STROKES[thing.digit or 0]:
            right, z, (half_y, half_z) = strokes[name]
            y = -right * (digit_w / 2 - pen) * front
            parts.append(frame.part('box', (0.004, half_y, half_z), (front * 0.022, y, board_z + z), ink, role='digit'))
    return parts


def parts_of_thing(thing: Thing, time_s: float) -> list[Part]:
    """The parts of a thing where it is at a time."""
    x, y, yaw = thing.way.at(time_s)
    frame = _Frame(x, y, yaw)
    if thing.kind == 'person':
        parts = _person(frame, thing, stride_rad=thing.way.travelled_m(time_s) / 0.75 * math.pi + thing.face % 7 * 0.1)
    else:
        parts = {'crate': _crate, 'barrel': _barrel, 'ball': _ball, 'cone': _cone, 'sign': _sign}[thing.kind](frame, thing)
    shadow_m = {'person': 0.3, 'sign': 0.26, 'ball': thing.width_m * 0.36}.get(thing.kind, thing.radius_m * 1.12)
    return [*_contact_shadow(frame, shadow_m), *parts]


def parts_of_shelf(shelf: Shelf) -> list[Part]:
    """A steel rack with boxes in grey and brown."""
    rng = np.random.default_rng(shelf.seed)
    frame = _Frame(shelf.x, shelf.y, shelf.yaw)
    grey = float(rng.uniform(0.25, 0.45))
    steel = (grey * 0.95, grey, grey * 1.08)
    half_l, half_d = shelf.length_m / 2, shelf.depth_m / 2
    parts = [frame.part('box', (0.025, 0.025, shelf.height_m / 2), (sx * half_l, sy * half_d, shelf.height_m / 2), steel)
             for sx in (-1, 1) for sy in (-1, 1)]
    for level in (0.12, 0.5, 0.88):
        z = shelf.height_m * level
        parts.append(frame.part('box', (half_l, half_d, 0.02), (0, 0, z), steel))
        along_m = -half_l + 0.08
        while True:
            width_m = float(rng.uniform(0.22, 0.5))
            if along_m + width_m > half_l - 0.05:
                break
            if rng.random() < 0.75:
                height_m = float(rng.uniform(0.15, 0.3)) * shelf.height_m
                tone = rng.uniform(0.7, 1.15) * (np.array([0.55, 0.40, 0.26]) if rng.random() < 0.7
                                                 else np.array([0.42, 0.42, 0.43]))
                parts.append(frame.part('box', (width_m / 2 - 0.015, half_d * 0.8, height_m / 2),
                                        (along_m + width_m / 2, 0, z + 0.02 + height_m / 2),
                                        (float(tone[0]), float(tone[1]), float(tone[2])), material='carton'))
            along_m += width_m
    return parts


def parts_of_room(room: Room) -> list[Part]:
    """Walls with a darker base, and the lane lines on the floor (the floor itself is the renderer's one plane)."""
    mid_x, mid_y = (room.x_min + room.x_max) / 2, (room.y_min + room.y_max) / 2
    half_x, half_y = (room.x_max - room.x_min) / 2, (room.y_max - room.y_min) / 2
    frame, high = _Frame(mid_x, mid_y, 0.0), room.wall_height_m
    parts = []
    for sign in (-1, 1):
        parts.append(frame.part('box', (0.1, half_y + 0.2, high / 2), (sign * (half_x + 0.1), 0, high / 2), room.wall_rgb,
                                material='wall'))
        parts.append(frame.part('box', (half_x + 0.2, 0.1, high / 2), (0, sign * (half_y + 0.1), high / 2),
                                _shaded(room.wall_rgb, 0.94), material='wall'))
        parts.append(frame.part('box', (0.11, half_y, 0.09), (sign * (half_x + 0.1), 0, 0.09), room.base_rgb))
        parts.append(frame.part('box', (half_x, 0.11, 0.09), (0, sign * (half_y + 0.1), 0.09), room.base_rgb))
    for y in room.lanes_y:
        parts.append(frame.part('box', (half_x, 0.05, 0.001), (0, y - mid_y, 0.001), (0.78, 0.74, 0.55)))
    return parts
