"""Makes small recordings for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from penguin_ros.core.bus import Message
from penguin_ros.dds.interfaces import ros_types
from penguin_ros.dds.recording import RecordingWriter
from tests.dds.plain_perception import COLOURS

FIRST_NS = 1_760_000_000_000_000_000
PERIOD_NS = 100_000_000
new = ros_types().new


def picture(colour: str, height: int = 48, width: int = 64) -> np.ndarray:
    """One plain colour, RGB."""
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


def header(stamp_ns: int, frame_id: str) -> Message:
    stamp = new('builtin_interfaces/msg/Time', sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return new('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def image(colour: str, stamp_ns: int, frame_id: str = 'front_optical', height: int = 48, width: int = 64) -> Message:
    return new('sensor_msgs/msg/Image', header=header(stamp_ns, frame_id), height=height, width=width, encoding='rgb8',
               step=3 * width, data=picture(colour, height, width).tobytes())


def compressed_image(colour: str, stamp_ns: int, frame_id: str = 'rear_optical') -> Message:
    _, png = cv2.imencode('.png', picture(colour)[..., ::-1])
    return new('sensor_msgs/msg/CompressedImage', header=header(stamp_ns, frame_id), format='png', data=png.tobytes())


def write_recording(path: Path, colours: Sequence[str], *, rear: bool = False, height: int = 48, width: int = 64,
                    extra: Sequence[tuple[str, str, Message, int]] = ()) -> Path:
    """One image of each colour on /front/image_raw, ten a second; with ``rear`` also on /rear/image_raw/compressed.

    ``extra`` are further messages: topic, type, message, time in nanoseconds.
    """
    messages = list(extra)
    for number, colour in enumerate(colours):
        now_ns = FIRST_NS + number * PERIOD_NS
        front = image(colour, now_ns, height=height, width=width)
        messages.append(('/front/image_raw', 'sensor_msgs/msg/Image', front, now_ns))
        if rear:
            messages.append(('/rear/image_raw/compressed', 'sensor_msgs/msg/CompressedImage',
                             compressed_image(colour, now_ns + 1), now_ns + 1))
    types = ros_types()
    with RecordingWriter(path, types, overwrite=True) as writer:
        for topic, type_name, message, time_ns in sorted(messages, key=lambda item: item[3]):
            writer.write(topic, type_name, types.encode(message, type_name), time_ns)
    return path
