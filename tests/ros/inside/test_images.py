"""Camera messages of real ROS 2 become RGB; with cv_bridge as without it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import CompressedImage, Image

from penguin_ros.core.encoding import ENCODINGS, rgb_from_image
from penguin_ros.core.errors import ImageError
from penguin_ros.ros.bus import BRIDGED, RclpyBus

LIMIT_PX = 1_000_000
BYTES_PER_PIXEL = {
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono16': 2, 'yuv422': 2, 'uyvy': 2, 'yuv422_yuy2': 2, 'yuyv': 2}


@pytest.fixture(scope='module')
def bus() -> Iterator[RclpyBus]:
    rclpy.init()
    bus = RclpyBus('penguin_images')
    yield bus
    bus.close()
    rclpy.shutdown()


def random_image(encoding: str, *, padding: int = 0) -> Image:
    """Rows of noise; what they show does not matter, only that both ways read the same."""
    height, width = 36, 48
    step = width * BYTES_PER_PIXEL.get(encoding, 1) + padding
    rows = height * 3 // 2 if encoding in ('nv12', 'nv21') else height
    data = np.random.default_rng(1).integers(0, 256, step * rows, dtype=np.uint8).tobytes()
    return Image(height=height, width=width, encoding=encoding, step=step, data=data)


@pytest.mark.parametrize('padding', [0, 1, 12])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_is_read_as_without_ros(bus: RclpyBus, encoding: str, padding: int) -> None:
    image = random_image(encoding, padding=padding)
    expected = rgb_from_image(bytes(image.data), encoding=encoding, width=48, height=36, step=image.step)
    found = bus.rgb(image, max_pixels=LIMIT_PX)
    assert found.shape == (36, 48, 3)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('encoding', BRIDGED)
def test_cv_bridge_and_opencv_give_the_same_pixels(bus: RclpyBus, encoding: str) -> None:
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed: it comes with a full ROS 2, not as a wheel')
    image = random_image(encoding)
    assert bus._cv_bridge is not None
    np.testing.assert_array_equal(bus._cv_bridge.imgmsg_to_cv2(image, 'rgb8'), bus.rgb(image, max_pixels=LIMIT_PX))
    bridge, bus._cv_bridge = bus._cv_bridge, None
    try:
        np.testing.assert_array_equal(bridge.imgmsg_to_cv2(image, 'rgb8'), bus.rgb(image, max_pixels=LIMIT_PX))
    finally:
        bus._cv_bridge = bridge


def test_a_jpeg_is_read(bus: RclpyBus) -> None:
    rgb = np.full((48, 64, 3), (200, 40, 90), np.uint8)
    data = cv2.imencode('.jpg', rgb[..., ::-1])[1].tobytes()
    found = bus.rgb(CompressedImage(format='jpeg', data=data), max_pixels=LIMIT_PX)
    assert np.abs(found.astype(int) - rgb).max() < 8


@pytest.mark.parametrize('change', [{'step': 7}, {'data': b'short'}, {'encoding': 'rgb9'}, {'height': 0}, {'width': 16}])
def test_what_cannot_be_read_is_refused(bus: RclpyBus, change: dict) -> None:
    image = random_image('bgr8')
    for name, value in change.items():
        setattr(image, name, value)
    with pytest.raises(ImageError):
        bus.rgb(image, max_pixels=LIMIT_PX)


def test_bytes_go_into_a_message_without_a_look_at_each(bus: RclpyBus) -> None:
    data = bytes(range(256)) * 4
    image = bus.new('sensor_msgs/msg/Image', height=1, width=1024, encoding='mono8', step=1024, data=data)
    assert (image.data.typecode, image.data.tobytes()) == ('B', data)
