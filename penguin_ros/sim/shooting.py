"""Pictures and truth of one camera of a rig, image after image. Knows nothing of files, middleware or the clock."""

from __future__ import annotations

from typing import Any

import numpy as np

from penguin_ros.sim.events import events_of
from penguin_ros.sim.render import FrameTruth, Renderer
from penguin_ros.sim.rig import Mount, near_view, seen_through
from penguin_ros.sim.world import World


class EventNotes:
    """The events of a camera's drive, noted once a second: between two images of a fast camera nothing seems to move."""

    def __init__(self, world: World, rate_hz: float) -> None:
        self._world = world
        self._stride = max(1, round(rate_hz))
        self._due = 0
        self._last: FrameTruth | None = None

    def note(self, frame: int, truth: FrameTruth) -> list[dict[str, Any]]:
        """What this frame's note says, {frame, type, id}; frames come in order, some may be missing."""
        if frame < self._due:
            return []
        self._due = (frame // self._stride + 1) * self._stride
        happened = events_of(self._world, [self._last, truth]) if self._last else []
        self._last = truth
        return [{'frame': frame, 'type': event['type'], 'id': event['id']} for event in happened]


class Shooter:
    """One camera in a world."""

    def __init__(self, world: World, mount: Mount, rate_hz: float, *, drive: int = 0) -> None:
        """`drive` is the number of the world among those a live camera shows one after the other."""
        self.mount = mount
        self._robot, self._drive, self._rate_hz = world.robot, drive, rate_hz
        self._view = seen_through(world, mount)
        self._notes = EventNotes(self._view, rate_hz)

    def shoot(self, renderer: Renderer, frame: int, stamp_ns: int) -> tuple[np.ndarray, dict[str, Any]]:
        """RGB uint8 [height, width, 3] of frame 0, 1, ..., and its truth as messages.py lays it out."""
        time_s = frame / self._rate_hz
        picture, truth = renderer.frame(near_view(self._view, time_s), time_s, shutter_s=self.mount.shutter_s,
                                        grain=self.mount.name)
        robot = self._robot.at(time_s)
        position, orientation = self.mount.optical_pose(robot)
        return picture, {
            'stamp_ns': stamp_ns, 'camera': self.mount.name, 'drive': self._drive, **truth.as_dict(),
            'pose': [round(value, 4) for value in robot],
            'camera_pose': {'position': [round(value, 4) for value in position],
                            'orientation': [round(value, 6) for value in orientation]},
            'light': round(self._view.light.level_at(time_s), 3), 'events': self._notes.note(frame, truth)}
