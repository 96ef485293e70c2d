"""Listens to camera topics for a while on DDS, for the doctor. Knows nothing of what is good or bad about them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penguin_ros.core.bus import Message
from penguin_ros.core.config import CameraConfig
from penguin_ros.core.messages import ns_from_stamp
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.cyclone import Policy
from penguin_ros.dds.link import Reader
from penguin_ros.doctor.cameras import COMPRESSED, IMAGE, Heard


def hear(cameras: Sequence[CameraConfig], seconds: float, *, domain_id: int | None, interface: str) -> list[Heard]:
    """What each camera's topic carried; a topic of another type than expected is heard as nothing."""
    bus = DdsBus('penguin_doctor', domain_id=domain_id, interface=interface)
    heard = [Heard(camera) for camera in cameras]
    try:
        readers = [(camera, compressed, _listen(bus, camera, compressed))
                   for camera in heard for compressed in (False, True)]
        began_s = time.monotonic()
        time.sleep(seconds)
        for camera, compressed, reader in readers:
            camera.listened_s = time.monotonic() - began_s
            offers = [_reliability(reader.entity.get_matched_publication_data(handle))
                      for handle in reader.entity.get_matched_publications()]
            if offers:
                camera.types.add(COMPRESSED if compressed else IMAGE)
            if compressed == camera.camera.compressed:
                camera.offers = offers
    finally:
        bus.close()
    return heard


def _listen(bus: DdsBus, heard: Heard, compressed: bool) -> Reader:
    reader = bus.newest_image(heard.camera.topic, lambda message: note(heard, message, compressed), compressed=compressed)
    assert isinstance(reader, Reader)
    return reader


def note(heard: Heard, message: Message, compressed: bool) -> None:
    """Remember one image; those of the type that is not configured only tell that they exist."""
    if compressed != heard.camera.compressed:
        return
    stamp_ns = ns_from_stamp(message.header.stamp)
    heard.stamps_ns.append(stamp_ns)
    if stamp_ns:
        heard.ages_s.append((time.time_ns() - stamp_ns) / 1e9)
    heard.frame_id = str(message.header.frame_id)
    if compressed:
        heard.encoding = str(message.format)
    else:
        heard.encoding, heard.width_px, heard.height_px = str(message.encoding), int(message.width), int(message.height)


def _reliability(found: object) -> str:
    policy = getattr(found, 'qos', {})[Policy.Reliability] if found is not None else None
    return 'best effort' if policy == Policy.Reliability.BestEffort else 'reliable'
