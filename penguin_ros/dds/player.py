"""Plays a recording on DDS as if its cameras were live. Knows nothing of who watches.

Stamps are moved to the present, all by the same amount, so that ages mean what they mean with a real camera.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penguin_ros.core.errors import RecordingError, TransportError
from penguin_ros.dds.bus import DdsBus, Outlet
from penguin_ros.dds.interfaces import ENCAPSULATION_BYTES
from penguin_ros.dds.recording import IMAGE_TYPES, Recorded, Recording

STAMP = struct.Struct('<iI')            # builtin_interfaces/Time, the first field of every std_msgs/Header
WAIT_STEP_S = 0.02


@dataclass(frozen=True)
class Played:
    """One image as it was sent."""

    topic: str
    stamp_ns: int               # as sent
    recorded_stamp_ns: int      # as recorded


@dataclass
class Player:
    """A recording being played. ``topics`` are image topics of the recording; none means all."""

    recording: Recording
    bus: DdsBus
    topics: Sequence[str] = ()
    rate: float = 1.0           # 2 plays twice as fast
    reliable: bool = True
    on_image: Callable[[Played], None] = lambda played: None

    def __post_init__(self) -> None:
        self.topics = tuple(self.topics) or tuple(self.recording.image_topics())
        strange = [topic for topic in self.topics if self.recording.topics.get(topic) not in IMAGE_TYPES]
        if strange or not self.topics:
            raise RecordingError(f'{self.recording.path} has no images on {", ".join(strange) or "any topic"}; its topics are: '
                                 f'{", ".join(self.recording.topics) or "none"}.')
        self._outlets: dict[str, Outlet] = {
            topic: self.bus.advertise_images(topic, self.recording.topics[topic], reliable=self.reliable)
            for topic in self.topics}

    def wait_for_watchers(self, timeout_s: float) -> bool:
        """Wait until every topic has a subscriber, so that the first images are not lost."""
        give_up_s = time.monotonic() + timeout_s
        while not all(outlet.subscribers() for outlet in self._outlets.values()):
            if time.monotonic() >= give_up_s:
                return False
            time.sleep(WAIT_STEP_S)
        return True

    def play(self, stop: threading.Event) -> int:
        """Play once, in the recording's own rhythm; returns the number of images sent. Ends early when ``stop`` is set."""
        sent = 0
        started_s, now_ns = time.monotonic(), time.time_ns()
        first_ns = 0
        offset_ns: int | None = None
        for recorded in self.recording.messages(self.topics):
            first_ns = first_ns or recorded.time_ns
            due_s = started_s + (recorded.time_ns - first_ns) / 1e9 / self.rate
            if stop.wait(max(0.0, due_s - time.monotonic())):
                break
            stamp_ns = _stamp_of(recorded)
            offset_ns = now_ns - stamp_ns if offset_ns is None else offset_ns
            if self.rate != 1.0:    # moved stamps would run ahead of the clock or fall behind it
                offset_ns = time.time_ns() - stamp_ns
            try:
                self._outlets[recorded.topic].publish_bytes(_with_stamp(recorded, stamp_ns + offset_ns))
            except TransportError as error:     # a damaged image of a recording; the next may be whole
                self.bus.log().error(str(error))
                continue
            self.on_image(Played(recorded.topic, stamp_ns + offset_ns, stamp_ns))
            sent += 1
        return sent

    def close(self) -> None:
        for outlet in self._outlets.values():
            outlet.close()


def _stamp_of(recorded: Recorded) -> int:
    seconds, nanoseconds = STAMP.unpack_from(recorded.data, ENCAPSULATION_BYTES)
    return seconds * 1_000_000_000 + nanoseconds


def _with_stamp(recorded: Recorded, stamp_ns: int) -> memoryview:
    """The message's bytes with another stamp, padded to whole words as the wire wants them."""
    data = bytearray(recorded.data)
    data.extend(bytes(-len(data) % 4))
    STAMP.pack_into(data, ENCAPSULATION_BYTES, stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)
    return memoryview(data)
