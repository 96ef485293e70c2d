"""A perception without a model, for tests of what is around it: names the mean colour of an image. Knows no engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from penguin_ros.core.config import CameraConfig, PenguinConfig
from penguin_ros.core.errors import CancelledError, ConfigError, QuestionError, StampError
from penguin_ros.core.frame import Frame, FrameRing, Region
from penguin_ros.core.health import Health
from penguin_ros.core.scene import Answer, GroundedPhrase, Scene, Status, TokenUse
from penguin_ros.core.worker import Inquiry

COLOURS = {'red': (200, 30, 30), 'green': (30, 200, 30), 'blue': (30, 30, 200), 'grey': (120, 120, 120)}


class PlainPerception:
    """Implements node.Perception. A question of n words takes n tokens; 'slowly' makes each take 50 ms."""

    def __init__(self, config: PenguinConfig, cameras: Sequence[CameraConfig]) -> None:
        self.model_name, self.engine_id = 'plain', '0123456789ab'
        self._config = config
        self._cameras = [camera.name for camera in cameras]
        self.restart()

    def reconfigure(self, config: PenguinConfig) -> None:
        self._config = config

    def restart(self) -> None:
        self._rings = {camera: FrameRing(8) for camera in self._cameras}
        self._said = dict.fromkeys(self._cameras, ('', 0))

    def held_frame(self, camera: str, stamp_ns: int) -> Frame | None:
        return next((frame for frame in self._rings[camera] if frame.stamp_ns == stamp_ns), None)

    def figures(self) -> dict[str, str]:
        return {'model': 'plain'}

    def close(self) -> None:
        self._rings.clear()

    def look(self, frame: Frame) -> Scene:
        if frame.stamp_ns <= 0:
            raise StampError('the stamp is 0. Set header.stamp.')
        self._rings[frame.camera].add(frame)
        caption = f'a {_colour(frame.pixels)} scene'
        said, said_ns = self._said[frame.camera]
        unchanged = caption == said
        self._said[frame.camera] = (caption, said_ns if unchanged else frame.stamp_ns)
        box = Region(0.0, 0.0, frame.width_px / 2, frame.height_px / 2)
        return Scene(
            camera=frame.camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, height_px=frame.height_px,
            width_px=frame.width_px, caption=caption, phrases=(GroundedPhrase(caption, 0, len(caption), box, 0.75),),
            keyframe=not unchanged, keyframe_reason='the same colour' if unchanged else 'another colour', unchanged=unchanged,
            caption_stamp_ns=self._said[frame.camera][1], confidence=0.75, tokens=TokenUse(limit=100, used=10, frames=1))

    def failed(self, camera: str, stamp_ns: int, frame_id: str, reason: str) -> Scene:
        return Scene(camera=camera, stamp_ns=stamp_ns, frame_id=frame_id, height_px=0, width_px=0, status=Status.STALE,
                     reason=reason)

    def answer(self, inquiry: Inquiry) -> Answer:
        question = inquiry.question
        ring = self._rings[question.camera or self._cameras[0]]
        frame = ring.at(question.stamp_ns) if question.stamp_ns else ring.newest
        if frame is None:
            raise QuestionError('no image has come yet. Ask later.')
        pixels, words = frame.pixels, question.text.split()
        if question.region is not None:
            region = question.region
            pixels = pixels[int(region.y_min):int(region.y_max), int(region.x_min):int(region.x_max)]
        for count in range(1, len(words) + 1):
            if inquiry.cancelled.is_set():
                raise CancelledError(f'the question was cancelled after {count} tokens of the answer.')
            if inquiry.partial is not None:
                inquiry.partial(' '.join(words[:count]), count)
            if 'slowly' in words:
                time.sleep(0.05)
        colour = _colour(pixels)
        chosen = question.choices.index(colour) if colour in question.choices else -1
        return Answer(text=colour, camera=frame.camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, choice=chosen,
                      probabilities=tuple(float(choice == colour) for choice in question.choices), confidence=0.75)


def plain_perception(config: PenguinConfig, cameras: Sequence[CameraConfig], health: Health,
                     log: logging.Logger) -> PlainPerception:
    """In place of assemble.assemble."""
    if config.engine == 'missing':
        raise ConfigError('missing holds no built engine. Build one with `penguin build RECIPE`.')
    return PlainPerception(config, cameras)


def _colour(pixels: np.ndarray) -> str:
    mean = pixels.reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
