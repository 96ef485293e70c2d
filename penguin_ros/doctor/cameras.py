"""What cameras offer, and what of it the node cannot use. Knows no middleware: ros/hearing.py and dds/hearing.py listen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from penguin_ros.core.config import CameraConfig
from penguin_ros.core.encoding import ENCODINGS
from penguin_ros.doctor.finding import Finding, fault, ok, unseen, warning

SLOW_HZ = 1.0
LATE_S = 1.0
IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@dataclass
class Heard:
    """What one camera's topic carried while somebody listened."""

    camera: CameraConfig
    listened_s: float = 0.0
    types: set[str] = field(default_factory=set)            # that are published under this name
    offers: list[str] = field(default_factory=list)         # 'reliable' or 'best effort', one per publisher
    stamps_ns: list[int] = field(default_factory=list)      # of the images that came
    ages_s: list[float] = field(default_factory=list)       # of the stamps, as they came
    encoding: str = ''
    width_px: int = 0
    height_px: int = 0
    frame_id: str = ''

    @property
    def rate_hz(self) -> float:
        return len(self.stamps_ns) / self.listened_s if self.listened_s else 0.0


def look_at_cameras(heard: Sequence[Heard], *, max_image_pixels: int) -> Iterator[Finding]:
    """One line per camera: the first thing that stands in the way, or what it offers."""
    for camera in heard:
        yield _camera(camera, max_image_pixels)


def not_listened(why: str) -> Finding:
    return unseen('cameras', why)


def _camera(heard: Heard, max_image_pixels: int) -> Finding:
    name, topic = heard.camera.name, heard.camera.topic
    about, wanted = f'camera {name}', COMPRESSED if heard.camera.compressed else IMAGE
    if not heard.types:
        return fault(about, f'nobody publishes {topic}', f'ros2 topic list -t | grep -i image; then set '
                                                         f'camera.{name}.image_topic, or start the camera driver')
    if wanted not in heard.types:
        other = COMPRESSED in heard.types
        return fault(about, f'{topic} carries {", ".join(sorted(heard.types))}, not {wanted}',
                     f'set camera.{name}.compressed to {str(other).lower()}' if heard.types & {IMAGE, COMPRESSED}
                     else f'set camera.{name}.image_topic to a topic of images')
    if not heard.stamps_ns:
        return fault(about, f'{topic} has {len(heard.offers)} publisher(s) ({", ".join(heard.offers)}), but no image came in '
                            f'{heard.listened_s:.0f} s', f'ros2 topic hz {topic}; look at DDS buffers above and at the driver')
    shape = f'{heard.width_px}x{heard.height_px} {heard.encoding}'
    if not heard.camera.compressed and heard.encoding not in ENCODINGS:
        return fault(about, f'{topic} is {shape}; this encoding is not read',
                     f'set the driver to one of {", ".join(ENCODINGS)}')
    if heard.width_px * heard.height_px > max_image_pixels:
        return fault(about, f'{topic} is {shape}, more than max_image_pixels {max_image_pixels}',
                     f'raise max_image_pixels to {heard.width_px * heard.height_px}, or let the driver send less')
    if not all(heard.stamps_ns):
        return fault(about, f'images on {topic} have the stamp 0; their age cannot be told',
                     'set header.stamp in the camera driver to when the image was taken')
    return _what_it_offers(heard, about, topic, shape)


def _what_it_offers(heard: Heard, about: str, topic: str, shape: str) -> Finding:
    age_s = sorted(heard.ages_s)[len(heard.ages_s) // 2] if heard.ages_s else 0.0
    offers = ', '.join(sorted(set(heard.offers)))
    shown = f'{topic}: {shape}, {heard.rate_hz:.1f} Hz, {offers}, frame {heard.frame_id or "(none)"}'
    if len(heard.offers) > 1:
        return warning(about, f'{shown}; {len(heard.offers)} publishers, so images are mixed', f'ros2 topic info -v {topic}')
    if not -0.1 < age_s < LATE_S:
        return warning(about, f'{shown}; stamps are {age_s:.1f} s old as they come in',
                       'synchronise clocks (chronyc sources), or set use_sim_time when a recording plays')
    if not heard.frame_id:
        return warning(about, f'{shown}; planners need a frame_id', 'set frame_id in the camera driver')
    if heard.rate_hz < SLOW_HZ:
        return warning(about, f'{shown}: slow', f'ros2 topic hz {topic}; check exposure time and the network')
    return ok(about, f'{shown}, {age_s * 1e3:.0f} ms old')
