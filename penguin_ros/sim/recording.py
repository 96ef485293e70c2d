"""Recordings of drives as .mcap files any ROS 2 tool can play, with the truth beside the images; and their reader.

Topics: /camera/image/compressed (sensor_msgs/CompressedImage) or /camera/image (sensor_msgs/Image),
/camera/camera_info, and /camera/ground_truth (std_msgs/String holding JSON). All three of a frame carry one stamp.
Knows nothing of how worlds are drawn.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from penguin_ros.core.errors import RecordingError
from penguin_ros.sim.drive import sample_drive
from penguin_ros.sim.events import events_of
from penguin_ros.sim.render import FrameTruth, Renderer
from penguin_ros.sim.world import Camera, World

IMAGE_TOPIC = '/camera/image'
COMPRESSED_TOPIC = '/camera/image/compressed'
INFO_TOPIC = '/camera/camera_info'
TRUTH_TOPIC = '/camera/ground_truth'
FRAME_ID = 'camera_optical_frame'
FIRST_STAMP_NS = 1_760_000_000_000_000_000        # 2025-10-09, so that no stamp looks like a missing one
JPEG_QUALITY = 90


@dataclass(frozen=True)
class RecordedFrame:
    """One image of a recording. `truth` is a frame as in a data set, with the `events` its stamp brought."""

    stamp_ns: int
    frame_id: str
    pixels: np.ndarray                             # RGB uint8 [height, width, 3]
    truth: dict[str, Any]


def camera_matrix(camera: Camera) -> np.ndarray:
    """The 3x3 matrix K of sensor_msgs/CameraInfo: pixel centres at whole numbers."""
    return np.array([[camera.focal_px, 0.0, (camera.width_px - 1) / 2],
                     [0.0, camera.focal_px, (camera.height_px - 1) / 2], [0.0, 0.0, 1.0]])


def drive_events(world: World, truths: list[FrameTruth], rate_hz: float) -> dict[int, list[dict[str, Any]]]:
    """Events of a drive by frame, noted once a second: between two images of a fast camera nothing seems to move."""
    stride = max(1, round(rate_hz))
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for event in events_of(world, truths[::stride]):
        frame = event['frame'] * stride
        by_frame.setdefault(frame, []).append({'frame': frame, 'type': event['type'], 'id': event['id']})
    return by_frame


def record_drive(path: Path | str, *, seconds: float, rate_hz: float, seed: int, split: str = 'demo',
                 compressed: bool = True, progress: Callable[[int, int], None] | None = None) -> int:
    """Render a drive and write it to a new .mcap file; returns the number of images. The same bytes for the same seed."""
    path = Path(path)
    if path.suffix != '.mcap':
        raise RecordingError(f'{path} does not end in .mcap; recordings are written in that format only. Rename it.')
    if path.exists():
        raise RecordingError(f'{path} exists already and would be lost. Remove it or choose another name.')
    world = sample_drive(split, seed, seconds)
    count = max(1, round(seconds * rate_hz))
    pictures, truths = [], []
    with Renderer() as renderer:
        for index in range(count):
            picture, truth = renderer.frame(world, index / rate_hz)
            pictures.append(_jpeg(picture) if compressed else picture)
            truths.append(truth)
            if progress:
                progress(index + 1, count)
    events = drive_events(world, truths, rate_hz)
    stamps_ns = [FIRST_STAMP_NS + round(index * 1e9 / rate_hz) for index in range(count)]
    documents = [{'stamp_ns': stamp_ns, **truth.as_dict(), 'events': events.get(index, [])}
                 for index, (stamp_ns, truth) in enumerate(zip(stamps_ns, truths))]
    _write(path, world.camera, stamps_ns, pictures, documents, compressed)
    return count


def _jpeg(picture: np.ndarray) -> np.ndarray:
    ok, encoded = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise RecordingError(f'OpenCV could not encode a picture of shape {picture.shape} as JPEG. Record raw images.')
    return encoded.reshape(-1)


def _rosbags() -> tuple[Any, Any]:
    try:
        from rosbags import rosbag2
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise RecordingError(f'rosbags is missing ({error}). Install it: pip install "penguin_ros[dds]"') from error
    return rosbag2, get_typestore(Stores.ROS2_JAZZY)


def _write(path: Path, camera: Camera, stamps_ns: list[int], pictures: list[np.ndarray], documents: list[dict[str, Any]],
           compressed: bool) -> None:
    rosbag2, store = _rosbags()
    types = store.types
    image_type = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.recording') as scratch:
        # rosbags writes a folder; the .mcap in it is complete without the folder's metadata file
        folder = Path(scratch) / path.stem
        with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as bag:
            images = bag.add_connection(COMPRESSED_TOPIC if compressed else IMAGE_TOPIC, image_type, typestore=store)
            infos = bag.add_connection(INFO_TOPIC, 'sensor_msgs/msg/CameraInfo', typestore=store)
            truth_topic = bag.add_connection(TRUTH_TOPIC, 'std_msgs/msg/String', typestore=store)
            for stamp_ns, picture, document in zip(stamps_ns, pictures, documents):
                stamp = types['builtin_interfaces/msg/Time'](stamp_ns // 10**9, stamp_ns % 10**9)
                header = types['std_msgs/msg/Header'](stamp, FRAME_ID)
                if compressed:
                    image = types[image_type](header, 'jpeg', picture)
                else:
                    height, width, _ = picture.shape
                    image = types[image_type](header, height, width, 'rgb8', 0, width * 3, picture.reshape(-1))
                text = types['std_msgs/msg/String'](json.dumps(document, separators=(',', ':')))
                for connection, message in ((infos, _camera_info(types, header, camera)), (truth_topic, text),
                                            (images, image)):
                    bag.write(connection, stamp_ns, store.serialize_cdr(message, connection.msgtype))
        shutil.move(folder / f'{path.stem}.mcap', path)


def _camera_info(types: Any, header: Any, camera: Camera) -> Any:
    k = camera_matrix(camera)
    region = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    return types['sensor_msgs/msg/CameraInfo'](
        header, camera.height_px, camera.width_px, 'plumb_bob', np.zeros(5), k.reshape(-1), np.eye(3).reshape(-1),
        np.hstack([k, np.zeros((3, 1))]).reshape(-1), 0, 0, region)


def read_recording(path: Path | str) -> Iterator[RecordedFrame]:
    """The images of a recording made here, in order, each with its truth."""
    path = Path(path)
    rosbag2, store = _rosbags()
    truths: dict[int, dict[str, Any]] = {}
    frames = 0
    try:
        with rosbag2.Reader(path) as bag:
            for connection, stamp_ns, raw in bag.messages():
                if connection.topic == TRUTH_TOPIC:
                    truths[stamp_ns] = json.loads(store.deserialize_cdr(raw, connection.msgtype).data)
                elif connection.topic in (IMAGE_TOPIC, COMPRESSED_TOPIC):
                    message = store.deserialize_cdr(raw, connection.msgtype)
                    truth = truths.pop(stamp_ns, None)
                    if truth is None:
                        raise RecordingError(f'{path} has no truth on {TRUTH_TOPIC} for the image at {stamp_ns} ns. '
                                             'Read recordings made by penguin sim record.')
                    yield RecordedFrame(stamp_ns, message.header.frame_id, _pixels(message), truth)
                    frames += 1
    except (FileNotFoundError, rosbag2.ReaderError, struct.error, json.JSONDecodeError, AssertionError) as error:
        raise RecordingError(f'{path} cannot be read as a recording: {error}. Check that the file is whole, or record it '
                             'again: penguin sim record') from error
    if frames == 0:
        raise RecordingError(f'{path} holds no image on {IMAGE_TOPIC} or {COMPRESSED_TOPIC}. Record one: penguin sim record')


def _pixels(message: Any) -> np.ndarray:
    if hasattr(message, 'format'):
        decoded = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        if decoded is None:
            raise RecordingError(f'A JPEG of {len(message.data)} bytes cannot be decoded. Check that the file is whole.')
        return decoded[..., ::-1]
    return message.data.reshape(message.height, message.width, 3)
