"""What a simulated camera says in ROS messages: images, camera info, transforms and truth. Knows no file and no middleware.

The truth is a `std_msgs/String` holding JSON, with the same stamp as its image:

    stamp_ns     of the image
    time_s       since the drive began
    pose         the robot's x_m, y_m, yaw_rad on the floor (of /tf map -> base_link, where there is one)
    path_clear   nothing within 2.5 m ahead of this camera and 0.5 m to either side
    objects      what this picture shows, left to right, each with
                   id            of the thing, the same for as long as the drive lasts and in every camera
                   kind, colour  as of now
                   digit         of a sign, else null;  digit_px: its height, 0 when part of it is hidden (signs only)
                   box           x_min, y_min, x_max, y_max of the pixels that show it, half open
                   pixels        that show it;  fraction: of its whole outline
                   distance_m    along the floor from the camera;  bearing_rad: left of where the camera looks
                   path_gap_m    from its footprint to the strip path_clear is about, negative where it stands in it (not in
                                 recordings made before it was noted)
    faint        seen, but too little of it to count as visible; as `objects`
    events       what happened since the last note, about once a second: {frame, type, id}; types in events.py

Cameras of a rig add

    camera       its name
    drive        how many drives a live camera has shown before this one; 0 in recordings
    camera_pose  position [x, y, z] and orientation [x, y, z, w] of the optical frame in `map`
    light        brightness of the hall, 1 when all lamps are on
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np

from penguin_ros.core.bus import Message
from penguin_ros.core.errors import RecordingError
from penguin_ros.sim.rig import Mount, Pose
from penguin_ros.sim.world import Camera

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
TRUTH_TYPE = 'std_msgs/msg/String'
TRANSFORMS_TYPE = 'tf2_msgs/msg/TFMessage'
TRANSFORMS_TOPIC, STATIC_TRANSFORMS_TOPIC = '/tf', '/tf_static'
JPEG_QUALITY = 90

New = Callable[..., Message]
"""Makes a message of a type, as `Bus.new` does; here it is always given all fields."""


def image_topic(camera: str, *, compressed: bool) -> str:
    return f'/{camera}/image/compressed' if compressed else f'/{camera}/image'


def info_topic(camera: str) -> str:
    return f'/{camera}/camera_info'


def truth_topic(camera: str) -> str:
    return f'/{camera}/ground_truth'


def header(new: New, stamp_ns: int, frame_id: str) -> Message:
    stamp = new('builtin_interfaces/msg/Time', sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return new('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def jpeg(picture: np.ndarray) -> np.ndarray:
    """RGB uint8 [height, width, 3] as the bytes of a JPEG."""
    ok, encoded = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise RecordingError(f'OpenCV could not encode a picture of shape {picture.shape} as JPEG. Use raw images: --raw.')
    return encoded.reshape(-1)


def image(new: New, head: Message, picture: np.ndarray, *, compressed: bool) -> Message:
    if compressed:
        return new(COMPRESSED_TYPE, header=head, format='jpeg', data=jpeg(picture))
    height, width, _ = picture.shape
    return new(IMAGE_TYPE, header=head, height=height, width=width, encoding='rgb8', is_bigendian=0, step=width * 3,
               data=picture.reshape(-1))


def camera_matrix(camera: Camera) -> np.ndarray:
    """The 3x3 matrix K of sensor_msgs/CameraInfo: pixel centres at whole numbers."""
    return np.array([[camera.focal_px, 0.0, (camera.width_px - 1) / 2],
                     [0.0, camera.focal_px, (camera.height_px - 1) / 2], [0.0, 0.0, 1.0]])


def camera_info(new: New, head: Message, camera: Camera) -> Message:
    k = camera_matrix(camera)
    whole = new('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return new(INFO_TYPE, header=head, height=camera.height_px, width=camera.width_px, distortion_model='plumb_bob',
               d=np.zeros(5), k=k.reshape(-1), r=np.eye(3).reshape(-1), p=np.hstack([k, np.zeros((3, 1))]).reshape(-1),
               binning_x=0, binning_y=0, roi=whole)


def truth(new: New, document: dict[str, Any]) -> Message:
    return new(TRUTH_TYPE, data=json.dumps(document, separators=(',', ':')))


def mounts(new: New, stamp_ns: int, rig: Iterable[Mount]) -> Message:
    """Where the cameras sit on the robot, for /tf_static."""
    return new(TRANSFORMS_TYPE, transforms=[
        _transform(new, stamp_ns, 'base_link', mount.frame_id, *mount.optical_pose((0.0, 0.0, 0.0))) for mount in rig])


def robot_place(new: New, stamp_ns: int, pose: Pose) -> Message:
    """Where the robot is, for /tf."""
    x, y, yaw = pose
    return new(TRANSFORMS_TYPE, transforms=[
        _transform(new, stamp_ns, 'map', 'base_link', (x, y, 0.0), (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))))])


def _transform(new: New, stamp_ns: int, parent: str, child: str, position: tuple[float, ...],
               orientation: tuple[float, ...]) -> Message:
    return new('geometry_msgs/msg/TransformStamped', header=header(new, stamp_ns, parent), child_frame_id=child,
               transform=new('geometry_msgs/msg/Transform',
                             translation=new('geometry_msgs/msg/Vector3', **dict(zip('xyz', position))),
                             rotation=new('geometry_msgs/msg/Quaternion', **dict(zip('xyzw', orientation)))))
