"""Drives of seconds to minutes: the robot stands, turns and drives through a hall while people and objects come and go.

Knows nothing of rendering or files. A drive is a `World` like any other, with a longer robot way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from penguin_ros.sim.clip import (
    Pose,
    is_free,
    repainted,
    replaced,
    sample_identity,
    spot_in_view,
    untouched,
    with_thing_in_view,
)
from penguin_ros.sim.rig import sample_rig, seen_through
from penguin_ros.sim.world import (
    Room,
    Sensor,
    Shelf,
    Thing,
    Way,
    World,
    make_thing,
    rng_for,
    sample_camera,
    sample_look,
    sample_room,
    sample_shelf,
)

_TURN_RAD_PER_S = 0.5
_DRIVE_M_PER_S = 0.5
_WALK_M_PER_S = 0.9
_WALL_GAP_M = 1.5               # the robot's middle keeps that far from walls
_VIEW_AHEAD_M = 3.4             # it never comes to rest nearer than this to the wall it looks at
_STEPS_PER_MOVE = 10


@dataclass(frozen=True)
class _Stand:
    """A time span in which the robot does not move."""

    from_s: float
    until_s: float


def sample_drive(split: str, seed: int, seconds: float) -> World:
    """A hall, a robot's way through it for so many seconds, and what happens meanwhile; the same for the same arguments."""
    rng = rng_for(split, seed, 'drive')
    world, stands = _empty_hall(rng, split, seed, seconds)
    for stand in stands:
        world = _furnish_view(rng, world, stand.from_s, wanted=int(rng.integers(1, 4)))
    for index, stand in enumerate(stands):
        world = _something_happens(rng, world, stand, happening=index)
    return world


def sample_rig_drive(split: str, seed: int, seconds: float, *, number: int = 0) -> World:
    """A drive for a robot with cameras all around (rig.py): things and happenings on every side, paint and light too.

    The world is the same whichever of the cameras are then looked through. `number` tells apart the drives that one robot
    makes after another.
    """
    rng = rng_for(split, seed, f'rig drive {number}')
    world, stands = _empty_hall(rng, split, seed, seconds)
    eyes = [seen_through(world, mount) for mount in sample_rig(split, seed)]
    for stand in stands:
        for eye in eyes:
            wanted = int(rng.integers(1, 3) if eye is eyes[0] else rng.integers(0, 2))
            furnished = _furnish_view(rng, _looking_as(eye, world), stand.from_s, wanted)
            world = replace(world, things=furnished.things)
    kinds = [_appears, _walks_by, _leaves, _moves, _changes_colour, _light_goes_off]
    deck = [kinds[index] for index in rng.permutation(len(kinds))]
    for stand in stands:
        for eye in (eyes[0], eyes[int(rng.integers(1, len(eyes)))]):
            time_s = stand.from_s + float(rng.uniform(0.3, 0.7)) * (stand.until_s - stand.from_s)
            for kind in list(deck):
                changed = kind(rng, _looking_as(eye, world), time_s)
                new = [thing for thing in changed.things if thing not in world.things]
                if (changed.light == world.light and changed.things == world.things) \
                        or any(_meets_robot(world.robot, thing) for thing in new):
                    continue
                world = replace(world, things=changed.things, light=changed.light)
                deck.remove(kind)                  # what has just happened waits until all else has had its turn
                deck.append(kind)
                break
    return world


def with_plain_look(world: World) -> World:
    """Without shadows and smoothed edges, which take two thirds of the time of a picture."""
    return replace(world, light=replace(world.light, casts_shadow=False), sensor=replace(world.sensor, smooth_edges=False))


def _looking_as(eye: World, world: World) -> World:
    return replace(world, camera=eye.camera, robot=eye.robot)


def _empty_hall(rng: np.random.Generator, split: str, seed: int, seconds: float) -> tuple[World, list[_Stand]]:
    """Hall, light, camera and the robot's way, with nothing in it yet but shelves."""
    half_x, half_y = float(rng.uniform(6.5, 8.5)), float(rng.uniform(4.5, 6.0))
    room = sample_room(rng, -half_x, half_x, -half_y, half_y)
    shelves = _shelves_along_walls(rng, room)
    light, sensor = sample_look(rng)
    # a drive is looked at by people: it can afford shadows and smooth edges
    light = replace(light, casts_shadow=True, direction=_slanting(light.direction), fill=0.5)
    sensor = Sensor(exposure=1.12, white_balance=sensor.white_balance, noise=1.5, blur_px=0.4,
                    vignette=sensor.vignette, smooth_edges=True)
    robot, stands = _plan(rng, room, shelves, seconds)
    return World(split, seed, room, shelves, (), light, sample_camera(rng), robot, sensor), stands


def _slanting(direction: tuple[float, float, float]) -> tuple[float, float, float]:
    """The same lamp azimuth, at a height that throws short shadows and still lights upright faces."""
    azimuth = math.atan2(direction[1], direction[0])
    return 0.6 * math.cos(azimuth), 0.6 * math.sin(azimuth), -0.8


def _shelves_along_walls(rng: np.random.Generator, room: Room) -> tuple[Shelf, ...]:
    shelves = []
    for y in (room.y_min + 0.5, room.y_max - 0.5):
        x = room.x_min + 1.6
        while x < room.x_max - 1.6:
            if rng.random() < 0.6:
                shelves.append(sample_shelf(rng, x, y, 0.0))
            x += 3.1
    return tuple(shelves)


def _plan(rng: np.random.Generator, room: Room, shelves: tuple[Shelf, ...], seconds: float) -> tuple[Way, list[_Stand]]:
    """Stand, turn, drive, and again, until the time is over."""
    pose: Pose = (room.x_min + 2.2, float(rng.uniform(-1.0, 1.0)), float(rng.uniform(-0.25, 0.25)))
    time_s = 0.0
    stops = [(time_s, *pose)]
    stands: list[_Stand] = []
    while time_s < seconds:
        stand_s = float(rng.uniform(5.0, 7.0))
        stands.append(_Stand(time_s, time_s + stand_s))
        time_s += stand_s
        stops.append((time_s, *pose))
        turn_rad, drive_m = _next_move(rng, room, shelves, pose)
        for turned, driven in ((turn_rad, 0.0), (0.0, drive_m)):
            move_s = abs(turned) / _TURN_RAD_PER_S + driven / _DRIVE_M_PER_S
            start_s, start = time_s, pose
            for step in range(1, _STEPS_PER_MOVE + 1):
                share = step / _STEPS_PER_MOVE
                eased = share * share * (3 - 2 * share)
                x, y, yaw = start
                pose = (x + eased * driven * math.cos(yaw), y + eased * driven * math.sin(yaw), yaw + eased * turned)
                time_s = start_s + share * move_s
                stops.append((time_s, *pose))
    return Way(tuple(stops)), [stand for stand in stands if stand.until_s <= seconds or stand.from_s < seconds - 2.0]


def _next_move(rng: np.random.Generator, room: Room, shelves: tuple[Shelf, ...], pose: Pose) -> tuple[float, float]:
    """A turn and a straight drive that end with room ahead; a plain turn to the hall's middle when there is none."""
    x, y, yaw = pose
    for _ in range(60):
        turn_rad = float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.9))
        drive_m = float(rng.uniform(0.8, 2.2))
        cos, sin = math.cos(yaw + turn_rad), math.sin(yaw + turn_rad)
        along = [(x + share * drive_m * cos, y + share * drive_m * sin) for share in (0.25, 0.5, 0.75, 1.0)]
        end_x, end_y = along[-1]
        ahead = (end_x + _VIEW_AHEAD_M * cos, end_y + _VIEW_AHEAD_M * sin)
        if (all(_inside(room, *place, _WALL_GAP_M) for place in along) and _inside(room, *ahead, 0.0)
                and all(_off_shelf(shelf, *place) for shelf in shelves for place in along)):
            return turn_rad, drive_m
    to_middle = math.atan2(-y, -x) - yaw
    return math.atan2(math.sin(to_middle), math.cos(to_middle)), 0.0


def _inside(room: Room, x: float, y: float, gap_m: float) -> bool:
    return room.x_min + gap_m < x < room.x_max - gap_m and room.y_min + gap_m < y < room.y_max - gap_m


def _off_shelf(shelf: Shelf, x: float, y: float) -> bool:
    return abs(x - shelf.x) > shelf.length_m / 2 + 0.6 or abs(y - shelf.y) > shelf.depth_m / 2 + 0.6


def _well_away_from_robot(world: World, thing: Thing) -> bool:
    """Whether a standing thing is never run over."""
    x, y, _ = thing.way.stops[-1][1:]
    return all(math.hypot(x - stop[1], y - stop[2]) > thing.radius_m + 0.6 for stop in world.robot.stops)


def _seen_from(world: World, time_s: float) -> list[Thing]:
    """Things in front of the camera, near enough to be named (hiding not considered)."""
    x, y, yaw = world.robot.at(time_s)
    found = []
    for thing in world.things_at(time_s):
        thing_x, thing_y, _ = thing.way.at(time_s)
        bearing = math.atan2(thing_y - y, thing_x - x) - yaw
        if abs(math.atan2(math.sin(bearing), math.cos(bearing))) < 0.55 and math.hypot(thing_x - x, thing_y - y) < 8.0:
            found.append(thing)
    return found


def _meets_robot(robot: Way, thing: Thing) -> bool:
    """Whether a thing on its way comes so near that the robot touches it."""
    from_s = max(thing.present_s[0], thing.way.stops[0][0] - 10.0)
    for time_s in np.arange(from_s, min(thing.present_s[1], thing.way.stops[-1][0]), 0.1):
        (x, y, _), (robot_x, robot_y, _) = thing.way.at(float(time_s)), robot.at(float(time_s))
        if math.hypot(x - robot_x, y - robot_y) < thing.radius_m + 0.35:
            return True
    return False


def _furnish_view(rng: np.random.Generator, world: World, time_s: float, wanted: int) -> World:
    """Fill up what the robot sees at a time to so many things."""
    for _ in range(8):
        if len(_seen_from(world, time_s)) >= wanted:
            break
        larger = with_thing_in_view(rng, world, time_s)
        if larger is not world and _well_away_from_robot(larger, larger.things[-1]):
            world = larger
    return world


def _something_happens(rng: np.random.Generator, world: World, stand: _Stand, happening: int) -> World:
    """In the middle of a stand something appears, leaves, moves or a person walks by, each in its turn."""
    time_s = stand.from_s + float(rng.uniform(0.45, 0.6)) * (stand.until_s - stand.from_s)
    kinds = [_appears, _walks_by, _leaves, _moves]
    for attempt in range(len(kinds)):
        changed = kinds[(happening + attempt) % len(kinds)](rng, world, time_s)
        if changed is not world:
            return changed
    return world


def _appears(rng: np.random.Generator, world: World, time_s: float) -> World:
    if len(_seen_from(world, time_s)) > 3:
        return world
    for _ in range(4):
        larger = with_thing_in_view(rng, world, time_s, (time_s, math.inf))
        if larger is not world and _well_away_from_robot(larger, larger.things[-1]):
            return larger
    return world


def _calm_and_seen(world: World, time_s: float) -> list[Thing]:
    calm = {thing.id for thing in untouched(world)}
    return [thing for thing in _seen_from(world, time_s) if thing.id in calm]


def _leaves(rng: np.random.Generator, world: World, time_s: float) -> World:
    seen = _calm_and_seen(world, time_s)
    if not seen:
        return world
    return replaced(world, replace(seen[int(rng.integers(len(seen)))], present_s=(-math.inf, time_s)))


def _moves(rng: np.random.Generator, world: World, time_s: float) -> World:
    """Slides within a second to another place in view."""
    for thing in _calm_and_seen(world, time_s):
        spot = spot_in_view(rng, world, thing, time_s)
        if spot is None:
            continue
        moved = replace(thing, way=Way(((time_s, *thing.way.stops[0][1:]), (time_s + 1.0, *spot))))
        if _well_away_from_robot(world, moved):
            return replaced(world, moved)
    return world


def _changes_colour(rng: np.random.Generator, world: World, time_s: float) -> World:
    seen = _calm_and_seen(world, time_s)
    return replaced(world, repainted(rng, seen[int(rng.integers(len(seen)))], time_s)) if seen else world


def _light_goes_off(rng: np.random.Generator, world: World, time_s: float) -> World:
    """For some seconds only a part of the lamps is on."""
    levels, low = world.light.levels, float(rng.uniform(0.35, 0.55))
    if time_s < levels[-1][0] + 3.0:
        return world
    off_and_on = ((time_s, low), (time_s + float(rng.uniform(4.0, 9.0)), 1.0))
    return replace(world, light=replace(world.light, levels=(*levels, *off_and_on)))


def _walks_by(rng: np.random.Generator, world: World, time_s: float) -> World:
    """A person comes in from one side, crosses the view and goes out on the other."""
    x, y, yaw = world.robot.at(time_s)
    _, colour = sample_identity(rng, world)
    for _ in range(20):
        side = float(rng.choice([-1, 1]))
        from_bearing, to_bearing = side * float(rng.uniform(0.75, 0.9)), -side * float(rng.uniform(0.75, 0.9))
        from_m, to_m = float(rng.uniform(2.6, 4.5)), float(rng.uniform(2.6, 4.5))
        start = (x + from_m * math.cos(yaw + from_bearing), y + from_m * math.sin(yaw + from_bearing))
        end = (x + to_m * math.cos(yaw + to_bearing), y + to_m * math.sin(yaw + to_bearing))
        heading = math.atan2(end[1] - start[1], end[0] - start[0])
        walk_s = math.hypot(end[0] - start[0], end[1] - start[1]) / _WALK_M_PER_S
        way = Way(((time_s - 0.3 * walk_s, *start, heading), (time_s + 0.7 * walk_s, *end, heading)))
        id = 1 + max((thing.id for thing in world.things), default=0)
        person = make_thing(rng, id, 'person', colour, way, present_s=(time_s - 0.5 * walk_s, math.inf))
        along = [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
                 for share in np.linspace(0, 1, 9)]
        if all(is_free(world, person, *place, time_s) for place in along) and _well_away_from_robot(world, person):
            return replace(world, things=(*world.things, person))
    return world
