"""Recordings of drives as .mcap files any ROS 2 tool can play, with the truth beside the images; and their reader.

Topics of a camera: /camera/image/compressed (sensor_msgs/CompressedImage) or /camera/image (sensor_msgs/Image),
/camera/camera_info, and /camera/ground_truth (std_msgs/String holding JSON, laid out in messages.py). All three of an
image carry one stamp. Recordings of a rig have these for each camera under its name, /tf_static and /tf.
Knows nothing of how worlds are drawn.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from penguin_ros.core.bus import Message
from penguin_ros.core.errors import RecordingError
from penguin_ros.sim import messages
from penguin_ros.sim.drive import sample_drive, sample_rig_drive, with_plain_look
from penguin_ros.sim.messages import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    INFO_TYPE,
    STATIC_TRANSFORMS_TOPIC,
    TRANSFORMS_TOPIC,
    TRANSFORMS_TYPE,
    TRUTH_TYPE,
    image_topic,
    info_topic,
    truth_topic,
)
from penguin_ros.sim.render import FrameTruth, Renderer
from penguin_ros.sim.rig import sample_rig
from penguin_ros.sim.shooting import EventNotes, Shooter
from penguin_ros.sim.world import Camera, World

CAMERA = 'camera'                                  # the name of the only camera of a drive without a rig
IMAGE_TOPIC, COMPRESSED_TOPIC = image_topic(CAMERA, compressed=False), image_topic(CAMERA, compressed=True)
INFO_TOPIC, TRUTH_TOPIC = info_topic(CAMERA), truth_topic(CAMERA)
FRAME_ID = 'camera_optical_frame'
FIRST_STAMP_NS = 1_760_000_000_000_000_000        # 2025-10-09, so that no stamp looks like a missing one

Progress = Callable[[int, int], None]              # images done, images in all


@dataclass(frozen=True)
class RecordedFrame:
    """One image of a recording. `truth` is a frame as in a data set, with the `events` its stamp brought."""

    stamp_ns: int
    frame_id: str
    pixels: np.ndarray                             # RGB uint8 [height, width, 3]
    truth: dict[str, Any]
    camera: str = CAMERA


def drive_events(world: World, truths: list[FrameTruth], rate_hz: float) -> dict[int, list[dict[str, Any]]]:
    """Events of a drive by frame, noted once a second."""
    notes = EventNotes(world, rate_hz)
    noted = {frame: notes.note(frame, truth) for frame, truth in enumerate(truths)}
    return {frame: events for frame, events in noted.items() if events}


def record_drive(path: Path | str, *, seconds: float, rate_hz: float, seed: int, split: str = 'demo',
                 compressed: bool = True, plain: bool = False, progress: Progress | None = None) -> int:
    """Render a drive and write it to a new .mcap file; returns the number of images. The same bytes for the same seed.

    `plain` leaves out shadows and smoothed edges.
    """
    with _NewBag(Path(path), compressed) as bag, Renderer() as renderer:
        world = sample_drive(split, seed, seconds)
        world = with_plain_look(world) if plain else world
        notes = EventNotes(world, rate_hz)
        count = max(1, round(seconds * rate_hz))
        bag.announce(CAMERA)
        for index in range(count):
            picture, truth = renderer.frame(world, index / rate_hz)
            stamp_ns = _stamp_ns(index, rate_hz)
            document = {'stamp_ns': stamp_ns, **truth.as_dict(), 'events': notes.note(index, truth)}
            bag.write_frame(CAMERA, FRAME_ID, world.camera, stamp_ns, picture, document)
            if progress:
                progress(index + 1, count)
    return count


def record_rig(path: Path | str, *, cameras: Sequence[str], seconds: float, rate_hz: float, seed: int, split: str = 'demo',
               compressed: bool = True, plain: bool = False, progress: Progress | None = None) -> int:
    """As `record_drive`, from several cameras of one robot (rig.py) and with their transforms; returns the number of images.

    A camera's pictures do not depend on which others are recorded.
    """
    rig = sample_rig(split, seed, cameras)
    with _NewBag(Path(path), compressed) as bag, Renderer() as renderer:
        world = sample_rig_drive(split, seed, seconds)
        world = with_plain_look(world) if plain else world
        shooters = [Shooter(world, mount, rate_hz) for mount in rig]
        count = max(1, round(seconds * rate_hz))
        bag.write(STATIC_TRANSFORMS_TOPIC, TRANSFORMS_TYPE, FIRST_STAMP_NS, messages.mounts(bag.new, FIRST_STAMP_NS, rig))
        for mount in rig:
            bag.announce(mount.name)
        for index in range(count):
            stamp_ns = _stamp_ns(index, rate_hz)
            place = messages.robot_place(bag.new, stamp_ns, world.robot.at(index / rate_hz))
            bag.write(TRANSFORMS_TOPIC, TRANSFORMS_TYPE, stamp_ns, place)
            for number, (mount, shooter) in enumerate(zip(rig, shooters), 1):
                picture, document = shooter.shoot(renderer, index, stamp_ns)
                bag.write_frame(mount.name, mount.frame_id, mount.camera, stamp_ns, picture, document)
                if progress:
                    progress(index * len(rig) + number, count * len(rig))
    return count * len(rig)


def _stamp_ns(index: int, rate_hz: float) -> int:
    return FIRST_STAMP_NS + round(index * 1e9 / rate_hz)


def _rosbags() -> tuple[Any, Any]:
    try:
        from rosbags import rosbag2
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise RecordingError(f'rosbags is missing ({error}). Install it: pip install "penguin_ros[dds]"') from error
    return rosbag2, get_typestore(Stores.ROS2_JAZZY)


class _NewBag:
    """An .mcap file being written; it appears under its name when it is whole."""

    def __init__(self, path: Path, compressed: bool) -> None:
        if path.suffix != '.mcap':
            raise RecordingError(f'{path} does not end in .mcap; recordings are written in that format only. Rename it.')
        if path.exists():
            raise RecordingError(f'{path} exists already and would be lost. Remove it or choose another name.')
        self._path, self._compressed = path, compressed
        self._image_type = COMPRESSED_TYPE if compressed else IMAGE_TYPE
        self._rosbag2, self._store = _rosbags()
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> _NewBag:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = tempfile.TemporaryDirectory(dir=self._path.parent, prefix='.recording')
        except OSError as error:
            raise RecordingError(f'{self._path} cannot be written: {error}. Choose a folder that can be written to.') from error
        # rosbags writes a folder; the .mcap in it is complete without the folder's metadata file
        self._folder = Path(self._scratch.name) / self._path.stem
        self._bag = self._rosbag2.Writer(self._folder, version=9, storage_plugin=self._rosbag2.StoragePlugin.MCAP)
        self._bag.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if kind is None:
            self._bag.close()
            shutil.move(self._folder / f'{self._path.stem}.mcap', self._path)
        else:
            self._bag.abort()
        self._scratch.cleanup()

    def new(self, type_name: str, **fields: Any) -> Message:
        return self._store.types[type_name](**fields)

    def announce(self, camera: str) -> None:
        """Give a camera its topics."""
        self._connect(image_topic(camera, compressed=self._compressed), self._image_type)
        self._connect(info_topic(camera), INFO_TYPE)
        self._connect(truth_topic(camera), TRUTH_TYPE)

    def write_frame(self, camera: str, frame_id: str, lens: Camera, stamp_ns: int, picture: np.ndarray,
                    document: dict[str, Any]) -> None:
        """One image with its camera info and truth; the image comes last, so that a player finds the others there."""
        head = messages.header(self.new, stamp_ns, frame_id)
        self.write(info_topic(camera), INFO_TYPE, stamp_ns, messages.camera_info(self.new, head, lens))
        self.write(truth_topic(camera), TRUTH_TYPE, stamp_ns, messages.truth(self.new, document))
        self.write(image_topic(camera, compressed=self._compressed), self._image_type, stamp_ns,
                   messages.image(self.new, head, picture, compressed=self._compressed))

    def write(self, topic: str, type_name: str, stamp_ns: int, message: Message) -> None:
        self._bag.write(self._connect(topic, type_name), stamp_ns, self._store.serialize_cdr(message, type_name))

    def _connect(self, topic: str, type_name: str) -> Any:
        if topic not in self._connections:
            qos = [_latched()] if topic == STATIC_TRANSFORMS_TOPIC else []
            self._connections[topic] = self._bag.add_connection(topic, type_name, typestore=self._store,
                                                                offered_qos_profiles=qos)
        return self._connections[topic]


def _latched() -> Any:
    """How /tf_static is offered: `ros2 bag play` then keeps it for those who come late."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    unset = QosTime(0, 0)
    return Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, unset, unset,
               QosLiveliness.AUTOMATIC, unset, False)


def read_recording(path: Path | str, cameras: Sequence[str] = (CAMERA,)) -> Iterator[RecordedFrame]:
    """The images of a recording made here, in order, each with its truth; of a rig's recording those of the named cameras."""
    path = Path(path)
    rosbag2, store = _rosbags()
    truths: dict[tuple[str, int], dict[str, Any]] = {}
    cameras_by_truth = {truth_topic(camera): camera for camera in cameras}
    cameras_by_image = {image_topic(camera, compressed=compressed): camera
                        for camera in cameras for compressed in (False, True)}
    frames = 0
    found: list[str] = []
    try:
        with rosbag2.Reader(path) as bag:
            found = [connection.topic for connection in bag.connections]
            for connection, stamp_ns, raw in bag.messages():
                topic = connection.topic
                if topic in cameras_by_truth:
                    document = store.deserialize_cdr(raw, connection.msgtype).data
                    truths[cameras_by_truth[topic], stamp_ns] = json.loads(document)
                elif topic in cameras_by_image:
                    camera = cameras_by_image[topic]
                    message = store.deserialize_cdr(raw, connection.msgtype)
                    truth = truths.pop((camera, stamp_ns), None)
                    if truth is None:
                        raise RecordingError(f'{path} has no truth on {truth_topic(camera)} for the image at {stamp_ns} ns. '
                                             'Read recordings made by penguin sim record.')
                    yield RecordedFrame(stamp_ns, message.header.frame_id, _pixels(message), truth, camera)
                    frames += 1
    except (FileNotFoundError, rosbag2.ReaderError, struct.error, json.JSONDecodeError, AssertionError) as error:
        raise RecordingError(f'{path} cannot be read as a recording: {error}. Check that the file is whole, or record it '
                             'again: penguin sim record') from error
    if frames == 0:
        raise RecordingError(f'{path} holds no image on {" or ".join(cameras_by_image)}; its topics are: '
                             f'{", ".join(found) or "none"}. Record one: penguin sim record')


def _pixels(message: Any) -> np.ndarray:
    if hasattr(message, 'format'):
        decoded = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        if decoded is None:
            raise RecordingError(f'A JPEG of {len(message.data)} bytes cannot be decoded. Check that the file is whole.')
        return decoded[..., ::-1]
    return message.data.reshape(message.height, message.width, 3)
