"""From recording to recording: the node looks at recorded images at its own pace, on their own time. Knows no DDS.

Every image is looked at, none is dropped for a newer one, and time is the recording's: the same recording gives the same
scenes on any machine, measured latencies apart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.core.bus import Handle, Job, JobResult, Message, Setting
from penguin_ros.core.errors import EngineError, RecordingError, TransportError
from penguin_ros.core.node import Assemble, PerceptionNode
from penguin_ros.dds.interfaces import RosTypes, rgb_from_msg, ros_types
from penguin_ros.dds.names import camera_name, full_name
from penguin_ros.dds.recording import IMAGE_TYPES, Recorded, Recording, RecordingWriter
from penguin_ros.dds.setting_table import Changed, Check, SettingTable

NODE_NAME = 'penguin'
LONGEST_LOOK_S = 600.0          # an engine that takes longer over one image hangs
SCENE_TYPE = 'penguin_ros/msg/SceneDescription'


@dataclass
class ReplaySummary:
    """What came of a replay."""

    images: int = 0
    scenes: int = 0
    captions: int = 0
    unchanged: int = 0
    keyframes: int = 0
    refused: int = 0                # images the node could do nothing with
    tokens_used_most: int = 0
    tokens_limit: int = 0
    recorded_s: float = 0.0
    took_s: float = 0.0
    cameras: dict[str, str] = field(default_factory=dict)       # name -> topic
    damage: str = ''                # what is wrong with the recording


Progress = Callable[[ReplaySummary, int], None]         # what has been done, and of how many images
OnScene = Callable[[Message], None]


def cameras_of(recording: Recording) -> dict[str, str]:
    """Every camera of a recording, as name -> topic; of a camera recorded raw and compressed, the raw images."""
    topics = sorted(recording.image_topics(), key=lambda topic: IMAGE_TYPES[recording.topics[topic]])
    cameras: dict[str, str] = {}
    for topic in topics:
        cameras.setdefault(camera_name(topic), topic)
    return dict(sorted(cameras.items()))


def camera_settings(cameras: Mapping[str, str], compressed: Mapping[str, bool]) -> dict[str, Any]:
    """The settings that name cameras (name -> topic) and say which topics are compressed."""
    settings: dict[str, Any] = {'cameras': list(cameras)}
    for name, topic in cameras.items():
        settings |= {f'camera.{name}.image_topic': topic, f'camera.{name}.compressed': compressed[topic]}
    return settings


def replay(source: Path, target: Path, assemble: Assemble, *, settings: Mapping[str, Any] | None = None,
           cameras: Mapping[str, str] | None = None, annotated: bool = False, overwrite: bool = False,
           progress: Progress = lambda summary, of: None, on_scene: OnScene = lambda scene: None) -> ReplaySummary:
    """Look at every image of a recording and record what the node publishes.

    Raises PenguinError where nothing can be done. A recording that is cut off is used as far as it goes; the summary's
    ``damage`` then says so.
    """
    with Recording(source) as recording:
        chosen = dict(cameras) if cameras else cameras_of(recording)
        for name, topic in chosen.items():
            if recording.topics.get(topic) not in IMAGE_TYPES:
                raise RecordingError(f'{source} has no images on {topic} for camera {name}; it has them on: '
                                     f'{", ".join(recording.image_topics()) or "no topic"}. Choose with --camera NAME=TOPIC.')
        if not chosen:
            raise RecordingError(f'{source} holds no images, only: {", ".join(recording.topics) or "nothing"}. '
                                 f'{recording.damage or "Record a camera."}')
        compressed = {topic: IMAGE_TYPES[recording.topics[topic]] for topic in chosen.values()}
        all_settings = {**(settings or {}), **camera_settings(chosen, compressed)}
        with RecordingWriter(target, ros_types(), overwrite=overwrite) as writer:
            summary = _Replay(recording, writer, assemble, all_settings, annotated, progress, on_scene).run(chosen)
        summary.damage = recording.damage
        return summary


class _Replay:
    """One replay under way."""

    def __init__(self, recording: Recording, writer: RecordingWriter, assemble: Assemble, settings: Mapping[str, Any],
                 annotated: bool, progress: Progress, on_scene: OnScene) -> None:
        self._recording = recording
        self._progress, self._on_scene = progress, on_scene
        self._summary = ReplaySummary()
        self._bus = ReplayBus(writer, settings, self._note, annotated=annotated)
        self._node = PerceptionNode(self._bus, assemble)

    def run(self, cameras: Mapping[str, str]) -> ReplaySummary:
        summary = self._summary
        summary.cameras = dict(cameras)
        topics = [topic for topic in self._recording.topics if topic in cameras.values() or topic == f'/{NODE_NAME}/question']
        images = self._recording.count(cameras.values())
        started_s = time.monotonic()
        first_ns = None
        try:
            self._step(self._node.configure)
            problem = self._bus.undeclared_settings()
            if problem:
                raise RecordingError(problem)
            self._step(self._node.activate)
            for recorded in self._recording.messages(topics):
                first_ns = recorded.time_ns if first_ns is None else first_ns
                summary.recorded_s = (recorded.time_ns - first_ns) / 1e9
                self._feed(recorded)
                summary.took_s = time.monotonic() - started_s
                self._progress(summary, images)
        finally:
            self._node.cleanup()
        return summary

    def _feed(self, recorded: Recorded) -> None:
        scenes = self._summary.scenes
        is_image = recorded.type_name in IMAGE_TYPES
        self._summary.images += is_image
        try:
            self._bus.feed(recorded)
        except TransportError as error:
            self._bus.log().error(f'{recorded.topic}: {error}')
        if not self._node.wait_idle(LONGEST_LOOK_S):
            raise EngineError(f'the engine has not returned for {LONGEST_LOOK_S:.0f} s. Check the device, and the engine '
                              'with `penguin verify`.')
        self._summary.refused += is_image and self._summary.scenes == scenes

    def _note(self, scene: Message) -> None:
        summary = self._summary
        summary.scenes += 1
        summary.unchanged += scene.unchanged
        summary.captions += scene.caption_stamp == scene.header.stamp and scene.status != scene.STATUS_STALE
        summary.keyframes += scene.keyframe
        summary.tokens_used_most = max(summary.tokens_used_most, scene.tokens.used)
        summary.tokens_limit = scene.tokens.limit
        self._on_scene(scene)

    def _step(self, step: Callable[[], str | None]) -> None:
        problem = step()
        if problem:
            raise EngineError(problem)


class ReplayBus:
    """A bus whose world is a recording: what is fed comes in, what is published is written. Single-threaded but for the node.

    It has no services, jobs or states; whoever replays drives the node itself.
    """

    def __init__(self, writer: RecordingWriter, settings: Mapping[str, Any], on_scene: OnScene, *, annotated: bool) -> None:
        self._types: RosTypes = ros_types()
        self.writer, self.on_scene, self.annotated = writer, on_scene, annotated
        self._table = SettingTable(settings)
        self._listeners: dict[str, tuple[str, Callable[[Message], None]]] = {}
        self._timers: list[ReplayTimer] = []
        self._time_ns = 0

    def feed(self, recorded: Recorded) -> None:
        """Let a recorded message come in, at the moment it was recorded."""
        self._time_ns = max(self._time_ns, recorded.time_ns)
        for timer in tuple(self._timers):
            timer.advance(self._time_ns)
        type_name, on_message = self._listeners[recorded.topic]
        on_message(self._types.decode(recorded.data, type_name))

    def undeclared_settings(self) -> str | None:
        return self._table.undeclared()

    def now_ns(self) -> int:
        return self._time_ns

    def new(self, type_name: str, **fields: Any) -> Message:
        return self._types.new(type_name, **fields)

    def newest_image(self, topic: str, on_image: Callable[[Message], None], *, compressed: bool) -> Handle:
        return self.listen(topic, 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image', on_image)

    def rgb(self, image: Message, *, max_pixels: int) -> np.ndarray:
        return rgb_from_msg(image, max_pixels=max_pixels)

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None]) -> Handle:
        full = full_name(topic, NODE_NAME)
        self._listeners[full] = type_name, on_message
        return Opened(lambda: self._listeners.pop(full, None))

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> ReplayOutlet:
        return ReplayOutlet(self, full_name(topic, NODE_NAME), type_name)

    def serve(self, name: str, type_name: str, start: Callable[[Message], Future[Message]]) -> Handle:
        raise TransportError(f'{name} cannot be served: nobody asks a recording.')

    def job(self, name: str, type_name: str, start: Callable[[Job], Future[JobResult]]) -> Handle:
        raise TransportError(f'{name} cannot be served: nobody asks a recording.')

    def declare(self, settings: Sequence[Setting], check: Check, changed: Changed) -> Mapping[str, Any]:
        return self._table.declare(settings, check, changed)

    def settings(self) -> Mapping[str, Any]:
        return self._table.values()

    def every(self, period_s: float, call: Callable[[], None]) -> Handle:
        """Timers tick in recorded time, when a message is fed."""
        timer = ReplayTimer(round(period_s * 1e9), call)
        self._timers.append(timer)
        return Opened(lambda: self._timers.remove(timer))

    def log(self) -> logging.Logger:
        return logging.getLogger(NODE_NAME)

    def capabilities(self) -> frozenset[str]:
        return frozenset()


@dataclass
class Opened:
    """Something that can be closed, once or more."""

    undo: Callable[[], Any]
    closed: bool = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.undo()


@dataclass(eq=False)
class ReplayTimer:
    period_ns: int
    call: Callable[[], None]
    due_ns: int = 0

    def advance(self, time_ns: int) -> None:
        if time_ns >= self.due_ns:
            if self.due_ns:
                self.call()
            self.due_ns = time_ns + self.period_ns


@dataclass(frozen=True)
class ReplayOutlet:
    """Writes what is published into the recording, at the moment being replayed."""

    bus: ReplayBus
    topic: str
    type_name: str

    def publish(self, message: Message) -> None:
        self.bus.writer.write(self.topic, self.type_name, ros_types().encode(message, self.type_name), self.bus.now_ns())
        if self.type_name == SCENE_TYPE:
            self.bus.on_scene(message)

    def subscribers(self) -> int:
        return int(self.bus.annotated)      # who replays wants the drawn images, or not

    def close(self) -> None:
        """Nothing to let go of; the writer is the replay's."""
