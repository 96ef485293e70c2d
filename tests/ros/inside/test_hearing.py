"""The doctor hears camera topics of real ROS 2: types, QoS, rate, encoding."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from penguin_ros.core.config import CameraConfig
from penguin_ros.doctor.cameras import COMPRESSED, IMAGE, look_at_cameras
from penguin_ros.doctor.finding import FAULT, OK
from penguin_ros.ros.hearing import hear


@pytest.fixture
def drivers() -> Iterator[None]:
    """A raw camera at 20 Hz, best effort, and a compressed one, reliable."""
    rclpy.init()
    node = rclpy.create_node('driver')
    raw = node.create_publisher(Image, '/front/image_raw', qos_profile_sensor_data)
    jpeg = node.create_publisher(CompressedImage, '/rear/image_raw/compressed', 10)
    stop = threading.Event()

    def drive() -> None:
        while not stop.wait(0.05):
            stamp = node.get_clock().now().to_msg()
            image = Image(height=48, width=64, encoding='bgr8', step=192, data=bytes(48 * 192))
            small = CompressedImage(format='jpeg', data=bytes(100))
            for message, publisher, frame_id in ((image, raw, 'front_lens'), (small, jpeg, 'rear_lens')):
                message.header.stamp, message.header.frame_id = stamp, frame_id
                publisher.publish(message)

    thread = threading.Thread(target=drive)
    thread.start()
    yield
    stop.set()
    thread.join()
    node.destroy_node()
    rclpy.shutdown()


def test_cameras_are_heard_with_their_types_and_qos(drivers: None) -> None:
    front, rear, none = hear([
        CameraConfig(name='front', image_topic='/front/image_raw'),
        CameraConfig(name='rear', image_topic='/rear/image_raw/compressed', compressed=True),
        CameraConfig(name='none', image_topic='/nobody/image_raw')], 2.0)
    wrong, = hear([CameraConfig(name='wrong', image_topic='/front/image_raw', compressed=True)], 4.0)
    assert (front.types, front.offers, front.encoding) == ({IMAGE}, ['best effort'], 'bgr8')
    assert (front.width_px, front.height_px, front.frame_id) == (64, 48, 'front_lens')
    assert 3 < front.rate_hz < 25
    assert (rear.types, rear.offers, rear.encoding) == ({COMPRESSED}, ['reliable'], 'jpeg')
    findings = list(look_at_cameras([front, rear, wrong, none], max_image_pixels=1_000_000))
    assert [finding.level for finding in findings] == [OK, OK, FAULT, FAULT]
    assert 'set camera.wrong.compressed to false' in findings[2].remedy
