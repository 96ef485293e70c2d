"""Listens to camera topics for a while on ROS 2, for the doctor. Knows nothing of what is good or bad about them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from penguin_ros.core.config import CameraConfig
from penguin_ros.core.messages import ns_from_stamp
from penguin_ros.doctor.cameras import Heard
from penguin_ros.ros.bus import NEWEST_IMAGE


def hear(cameras: Sequence[CameraConfig], seconds: float) -> list[Heard]:
    """What each camera's topic carried."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('penguin_doctor', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard = [Heard(camera) for camera in cameras]
    try:
        for camera in heard:
            node.create_subscription(
                CompressedImage if camera.camera.compressed else Image, camera.camera.topic,
                lambda message, camera=camera: _note(camera, message, node.get_clock().now().nanoseconds), NEWEST_IMAGE)
        began_s = time.monotonic()
        while (left_s := began_s + seconds - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left_s)
        for camera in heard:
            camera.listened_s = time.monotonic() - began_s
            for info in node.get_publishers_info_by_topic(camera.camera.topic):
                camera.types.add(info.topic_type)
                best_effort = info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                camera.offers.append('best effort' if best_effort else 'reliable')
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    return heard


def _note(heard: Heard, message: Image | CompressedImage, now_ns: int) -> None:
    stamp_ns = ns_from_stamp(message.header.stamp)
    heard.stamps_ns.append(stamp_ns)
    if stamp_ns:
        heard.ages_s.append((now_ns - stamp_ns) / 1e9)
    heard.frame_id = message.header.frame_id
    if isinstance(message, CompressedImage):
        heard.encoding = message.format
    else:
        heard.encoding, heard.width_px, heard.height_px = message.encoding, message.width, message.height
