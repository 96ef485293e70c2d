"""Draws the worlds a model learns from: one picture or a few, with things worth naming in view and things happening.

Knows nothing of rendering: whether a thing will be well seen is judged from outlines alone (silhouette.py).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from penguin_ros.sim.parts import parts_of_thing
from penguin_ros.sim.silhouette import silhouette
from penguin_ros.sim.world import (
    COLOURS,
    KINDS,
    Camera,
    Repaint,
    Room,
    Shelf,
    Thing,
    Way,
    World,
    make_thing,
    rng_for,
    sample_camera,
    sample_look,
    sample_room,
    sample_shade,
    sample_shelf,
    standing,
)

MAX_FRAMES = 6
VIDEO_SUFFIX = '-video'                            # splits of that name hold longer clips in which more happens
MAX_VIDEO_FRAMES = 12
_COUNT_SHARES = (0.07, 0.20, 0.29, 0.25, 0.19)     # of scenes with 0, 1, .. 4 things; mean 2.29
_COARSE = 0.5                                      # scale of the masks that judge hiding
_MIN_PIXELS = 240                                  # a little above what the truth asks for, to stay clear of its edge
_MIN_FRACTION = 0.45

Pose = tuple[float, float, float]


def clip_length(split: str, seed: int) -> int:
    """Frames in the clip of a seed: every sixth is a clip of 3 to 6, the others are pictures; 6 to 12 in video splits."""
    if split.endswith(VIDEO_SUFFIX):
        return int(rng_for(split, seed, 'length').integers(6, MAX_VIDEO_FRAMES + 1))
    return int(rng_for(split, seed, 'length').integers(3, MAX_FRAMES + 1)) if seed % 6 == 5 else 1


def sample_clip(split: str, seed: int) -> tuple[World, list[float]]:
    """The world of a seed and the times in seconds of its frames; the same on every call and machine."""
    rng = rng_for(split, seed)
    step_s = float(rng.choice([0.5, 1.0, 2.0], p=[0.2, 0.6, 0.2]))
    times_s = [index * step_s for index in range(clip_length(split, seed))]
    world = _empty_world(rng, split, seed)
    world = _furnish(rng, world)
    if split.endswith(VIDEO_SUFFIX):
        world = _let_happen(rng, world, times_s, _VIDEO_COUNTS, _VIDEO_HAPPENINGS)
    elif len(times_s) > 1:
        world = _let_happen(rng, world, times_s, _CLIP_COUNTS, _CLIP_HAPPENINGS)
    return world, times_s


def _empty_world(rng: np.random.Generator, split: str, seed: int) -> World:
    camera = sample_camera(rng)
    light, sensor = sample_look(rng)
    reach_m = rng.uniform(3.2, 9.0, 4)
    room = sample_room(rng, -float(reach_m[0]), float(reach_m[1]), -float(reach_m[2]), float(reach_m[3]))
    yaw = float(rng.uniform(-math.pi, math.pi))
    world = World(split, seed, room, (), (), light, camera, standing(0.0, 0.0, yaw), sensor)
    return replace(world, shelves=_sample_shelves(rng, room))


def _sample_shelves(rng: np.random.Generator, room: Room) -> tuple[Shelf, ...]:
    """Racks along the walls, off the robot's place."""
    shelves: list[Shelf] = []
    for _ in range(int(rng.integers(0, 5))):
        side = int(rng.integers(4))
        off_m = float(rng.uniform(0.3, 1.0))
        if side < 2:
            x = room.x_min + off_m if side == 0 else room.x_max - off_m
            y, yaw = float(rng.uniform(room.y_min + 1.2, room.y_max - 1.2)), math.pi / 2
        else:
            y = room.y_min + off_m if side == 2 else room.y_max - off_m
            x, yaw = float(rng.uniform(room.x_min + 1.2, room.x_max - 1.2)), 0.0
        if math.hypot(x, y) > 2.6 and all(math.hypot(x - other.x, y - other.y) > 2.9 for other in shelves):
            shelves.append(sample_shelf(rng, x, y, yaw))
    return tuple(shelves)


def _furnish(rng: np.random.Generator, world: World) -> World:
    """Put in the things of the first picture; sometimes one more that may be too far or too hidden to count."""
    for _ in range(int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))):
        world = with_thing_in_view(rng, world, 0.0)
    if rng.random() < 0.25:
        world = with_thing_in_view(rng, world, 0.0, well_seen=False)
    return world


def sample_identity(rng: np.random.Generator, world: World) -> tuple[str, str]:
    """A kind and colour, rarely one the world already has."""
    taken = {(thing.kind, thing.colour) for thing in world.things}
    while True:
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(list(COLOURS)))
        if (kind, colour) not in taken or rng.random() < 0.1:
            return kind, colour


def with_thing_in_view(rng: np.random.Generator, world: World, time_s: float,
                        present_s: tuple[float, float] = (-math.inf, math.inf), *, kind: str | None = None,
                       well_seen: bool = True) -> World:
    """The world with one more thing that the camera sees well at a time; unchanged if no place is found."""
    new_kind, colour = sample_identity(rng, world)
    id = 1 + max((thing.id for thing in world.things), default=0)
    thing = make_thing(rng, id, kind or new_kind, colour, standing(0, 0, 0), present_s=present_s)
    spot = spot_in_view(rng, world, thing, time_s, well_seen=well_seen)
    return world if spot is None else replace(world, things=(*world.things, replace(thing, way=standing(*spot))))


def spot_in_view(rng: np.random.Generator, world: World, thing: Thing, time_s: float, *, well_seen: bool = True) -> Pose | None:
    """Where a thing is well seen (if asked) and hides no other too much, or None after some attempts."""
    x, y, yaw = pose = world.robot.at(time_s)
    half_view = math.atan(world.camera.width_px / 2 / world.camera.focal_px)
    nearest_m = {'person': 1.6, 'sign': 1.4}.get(thing.kind, 1.1)
    farthest_m = {'sign': 4.0, 'ball': 5.0, 'cone': 5.0}.get(thing.kind, 6.0)
    if not well_seen:
        nearest_m, farthest_m = 3.0, 9.0
    others = [other for other in world.things_at(time_s) if other.id != thing.id]
    other_masks = [(_distance_m(other, pose, time_s), _mask(other, world.camera, pose, time_s)) for other in others]
    seen_before = _well_seen(other_masks)
    for _ in range(30):
        distance_m = float(rng.uniform(nearest_m, farthest_m))
        bearing = float(rng.uniform(-half_view, half_view)) * 0.97
        spot_x, spot_y = x + distance_m * math.cos(yaw + bearing), y + distance_m * math.sin(yaw + bearing)
        facing = yaw + bearing + math.pi + float(rng.uniform(-0.6, 0.6)) if thing.kind == 'sign' else \
            float(rng.uniform(-math.pi, math.pi))
        placed = replace(thing, way=standing(spot_x, spot_y, facing))
        if not is_free(world, placed, spot_x, spot_y, time_s):
            continue
        seen_with = _well_seen([*other_masks, (distance_m, _mask(placed, world.camera, pose, time_s))])
        if seen_with[-1] >= well_seen and seen_with[:-1] == seen_before:
            return spot_x, spot_y, facing
    return None


def is_free(world: World, thing: Thing, x: float, y: float, time_s: float) -> bool:
    """Whether a thing can stand at a place: inside the room, off the shelves, the robot and all other things."""
    room, gap_m = world.room, thing.radius_m + 0.15
    if not (room.x_min + gap_m < x < room.x_max - gap_m and room.y_min + gap_m < y < room.y_max - gap_m):
        return False
    for shelf in world.shelves:
        along = (x - shelf.x) * math.cos(shelf.yaw) + (y - shelf.y) * math.sin(shelf.yaw)
        across = -(x - shelf.x) * math.sin(shelf.yaw) + (y - shelf.y) * math.cos(shelf.yaw)
        if abs(along) < shelf.length_m / 2 + gap_m and abs(across) < shelf.depth_m / 2 + gap_m:
            return False
    robot_x, robot_y, _ = world.robot.at(time_s)
    if math.hypot(x - robot_x, y - robot_y) < thing.radius_m + 0.6:
        return False
    for other in world.things:
        if other.id != thing.id:
            other_x, other_y, _ = other.way.at(time_s)
            if math.hypot(x - other_x, y - other_y) < gap_m + other.radius_m:
                return False
    return True


def _distance_m(thing: Thing, pose: Pose, time_s: float) -> float:
    x, y, _ = thing.way.at(time_s)
    return math.hypot(x - pose[0], y - pose[1])


def _mask(thing: Thing, camera: Camera, pose: Pose, time_s: float) -> tuple[np.ndarray, int]:
    """A coarse outline in the picture, and the pixels of the whole outline in the same scale."""
    parts = [part for part in parts_of_thing(thing, time_s) if part.role == 'body']
    margin = round(camera.width_px * 0.5 * _COARSE)
    wide = silhouette(parts, camera, pose, scale=_COARSE, margin_px=camera.width_px // 2)
    return wide[margin:-margin, margin:-margin], int(np.count_nonzero(wide))


def _well_seen(masks: list[tuple[float, tuple[np.ndarray, int]]]) -> list[bool]:
    """For each (distance, outline), whether enough of it is in the picture and not behind a nearer one."""
    seen = [False] * len(masks)
    hidden: np.ndarray | None = None
    for index in sorted(range(len(masks)), key=lambda index: masks[index][0]):
        mask, whole = masks[index][1]
        pixels = int(np.count_nonzero(mask if hidden is None else mask & ~hidden))
        seen[index] = pixels >= _MIN_PIXELS * _COARSE ** 2 and pixels >= _MIN_FRACTION * whole
        hidden = mask if hidden is None else hidden | mask
    return seen


# Shares of clips with 0, 1, .. happenings, and what they are.
_CLIP_COUNTS = (0.1, 0.35, 0.37, 0.18)
_CLIP_HAPPENINGS = {'appear': 0.31, 'leave': 0.27, 'move': 0.2, 'walk': 0.15, 'light': 0.07}
_VIDEO_COUNTS = (0.05, 0.2, 0.3, 0.25, 0.2)
_VIDEO_HAPPENINGS = {'appear': 0.33, 'leave': 0.26, 'move': 0.13, 'walk': 0.11, 'light': 0.05, 'paint': 0.12}


def _let_happen(rng: np.random.Generator, world: World, times_s: list[float], counts: tuple[float, ...],
                happenings: dict[str, float]) -> World:
    """Let the robot drive or stand, and let things happen between the frames."""
    world = replace(world, robot=_sample_robot_way(rng, world, times_s))
    for _ in range(int(rng.integers(0, 3))):
        world = _with_thing_beside_view(rng, world)
    for _ in range(int(rng.choice(len(counts), p=list(counts)))):
        frame = int(rng.integers(1, len(times_s)))
        happening = str(rng.choice(list(happenings), p=list(happenings.values())))
        world = _HAPPENINGS[happening](rng, world, times_s, frame)
    return world


def _sample_robot_way(rng: np.random.Generator, world: World, times_s: list[float]) -> Way:
    """Standing in half of the clips, else a slow arc that comes no nearer than 0.9 m to anything in front."""
    x, y, yaw = world.robot.at(0.0)
    if rng.random() < 0.5:
        return standing(x, y, yaw)
    duration_s = times_s[-1]
    nearest_m = min((_distance_m(thing, (x, y, yaw), 0.0) for thing in world.things), default=3.0)
    drive_m = float(rng.uniform(0.0, min(1.3, max(nearest_m - 0.9, 0.0), 0.5 * duration_s)))
    turn_rad = float(rng.uniform(-1, 1)) * min(0.7, 0.2 * duration_s) * float(rng.random() < 0.75)
    stops = []
    for time_s in times_s:
        stops.append((time_s, x, y, yaw))
        share = (times_s[1] - times_s[0]) / duration_s
        x, y = x + drive_m * share * math.cos(yaw), y + drive_m * share * math.sin(yaw)
        yaw += turn_rad * share
    return Way(tuple(stops))


def _with_thing_beside_view(rng: np.random.Generator, world: World) -> World:
    """A thing the camera does not see at first; turning may bring it into view."""
    kind, colour = sample_identity(rng, world)
    id = 1 + max((thing.id for thing in world.things), default=0)
    x, y, yaw = world.robot.at(0.0)
    for _ in range(10):
        bearing, distance_m = float(rng.choice([-1, 1]) * rng.uniform(0.8, 1.5)), float(rng.uniform(1.5, 4.5))
        spot = (x + distance_m * math.cos(yaw + bearing), y + distance_m * math.sin(yaw + bearing))
        thing = make_thing(rng, id, kind, colour, standing(*spot, yaw + bearing + math.pi + float(rng.uniform(-0.6, 0.6))))
        if is_free(world, thing, *spot, 0.0):
            return replace(world, things=(*world.things, thing))
    return world


def _appear(rng: np.random.Generator, world: World, times_s: list[float], frame: int) -> World:
    from_s = times_s[frame] - 0.3 * (times_s[frame] - times_s[frame - 1])
    return with_thing_in_view(rng, world, times_s[frame], (from_s, math.inf))


def untouched(world: World) -> list[Thing]:
    """Things that nothing has happened to yet."""
    return [thing for thing in world.things
            if thing.present_s == (-math.inf, math.inf) and len(thing.way.stops) == 1 and thing.repaint is None]


def replaced(world: World, thing: Thing) -> World:
    return replace(world, things=tuple(thing if other.id == thing.id else other for other in world.things))


def _leave(rng: np.random.Generator, world: World, times_s: list[float], frame: int) -> World:
    free = untouched(world)
    if not free:
        return world
    until_s = times_s[frame] - 0.3 * (times_s[frame] - times_s[frame - 1])
    return replaced(world, replace(free[int(rng.integers(len(free)))], present_s=(-math.inf, until_s)))


def _move(rng: np.random.Generator, world: World, times_s: list[float], frame: int) -> World:
    """Somebody put it elsewhere between two frames."""
    free = untouched(world)
    if not free:
        return world
    thing = free[int(rng.integers(len(free)))]
    spot = spot_in_view(rng, world, thing, times_s[frame])
    if spot is None:
        return world
    before_s, now_s = times_s[frame - 1], times_s[frame]
    stops = ((before_s + 0.3 * (now_s - before_s), *thing.way.stops[0][1:]), (now_s - 0.3 * (now_s - before_s), *spot))
    return replaced(world, replace(thing, way=Way(stops)))


def _walk(rng: np.random.Generator, world: World, times_s: list[float], frame: int) -> World:
    """A person, one already there or one more, walks for the rest of the clip, maybe out of view."""
    people = [thing for thing in untouched(world) if thing.kind == 'person']
    if not people:
        world = with_thing_in_view(rng, world, 0.0, kind='person')
        people = [thing for thing in untouched(world) if thing.kind == 'person']
    if not people:
        return world
    person = people[int(rng.integers(len(people)))]
    from_s, until_s = times_s[frame - 1], times_s[-1]
    x, y, _ = person.way.at(0.0)
    for _ in range(10):
        heading, walk_m = float(rng.uniform(-math.pi, math.pi)), float(rng.uniform(0.5, 1.2)) * (until_s - from_s)
        end = (x + walk_m * math.cos(heading), y + walk_m * math.sin(heading))
        steps = [(x + share * (end[0] - x), y + share * (end[1] - y)) for share in (0.25, 0.5, 0.75, 1.0)]
        if all(is_free(world, person, *step, from_s) for step in steps):
            stops = ((from_s - 0.01, x, y, heading), (until_s, *end, heading))
            return replaced(world, replace(person, way=Way(stops)))
    return world


def _light(rng: np.random.Generator, world: World, times_s: list[float], frame: int) -> World:
    levels = world.light.levels
    if len(levels) > 1:
        return world
    low, high = float(rng.uniform(0.35, 0.55)), 1.0
    first, second = (high, low) if rng.random() < 0.5 else (low, high)
    from_s = times_s[frame] - 0.3 * (times_s[frame] - times_s[frame - 1])
    return replace(world, light=replace(world.light, levels=((-math.inf, first), (from_s, second))))


def _paint(rng: np.random.Generator, world: World, times_s: list[float], frame: int) -> World:
    free = untouched(world)
    if not free:
        return world
    thing = free[int(rng.integers(len(free)))]
    from_s = times_s[frame] - 0.3 * (times_s[frame] - times_s[frame - 1])
    return replaced(world, repainted(rng, thing, from_s))


def repainted(rng: np.random.Generator, thing: Thing, from_s: float) -> Thing:
    """The thing, of another colour from a time on."""
    colour = str(rng.choice([colour for colour in COLOURS if colour != thing.colour]))
    return replace(thing, repaint=Repaint(from_s, colour, sample_shade(rng, colour)))


_HAPPENINGS = {'appear': _appear, 'leave': _leave, 'move': _move, 'walk': _walk, 'light': _light, 'paint': _paint}
