"""A renderer for the tests that need pictures; they skip where MuJoCo or OpenGL is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penguin_ros.sim.render import Renderer
from penguin_ros.sim.stage import SimulatorError
from penguin_ros.sim.world import Camera, Light, Room, Sensor, Thing, World, standing


@pytest.fixture(scope='session')
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    try:
        made.frame(small_world(), 0.0)
    except SimulatorError as error:
        pytest.skip(f'no picture can be rendered here: {error}')
    yield made
    made.close()


def small_world(*things: Thing, **changes: object) -> World:
    """A plain bright hall; the robot stands at the origin and looks along x."""
    room = Room(-6.0, 8.0, -6.0, 6.0, 3.5, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3), 'bare', (0.6, 0.6, 0.6), ())
    light = Light((0.3, 0.2, -0.9), (0.5, 0.5, 0.5), 0.5)
    parts: dict[str, object] = {
        'split': 'unit test', 'seed': 0, 'room': room, 'shelves': (), 'things': things, 'light': light,
        'camera': Camera(), 'robot': standing(0.0, 0.0, 0.0), 'sensor': Sensor(noise=0.0)}
    return World(**{**parts, **changes})  # type: ignore[arg-type]


def thing(id: int, kind: str, colour: str, x: float, y: float, **changes: object) -> Thing:
    """A thing of middling size that faces the robot."""
    height_m = {'crate': 0.6, 'barrel': 0.9, 'ball': 0.5, 'cone': 0.7, 'person': 1.7, 'sign': 1.1}[kind]
    width_m = {'crate': 0.6, 'barrel': 0.55, 'ball': 0.5, 'cone': 0.45, 'person': 0.55, 'sign': 0.6}[kind]
    rgb = {'red': (0.8, 0.05, 0.05), 'blue': (0.05, 0.1, 0.8), 'white': (0.9, 0.9, 0.9)}[colour]
    parts: dict[str, object] = {'way': standing(x, y, 3.14159), 'digit': 5 if kind == 'sign' else None}
    return Thing(id, kind, colour, rgb, height_m, width_m, **{**parts, **changes})  # type: ignore[arg-type]
