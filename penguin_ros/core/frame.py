"""One camera image with its stamp and frame_id, and the recent ones a window holds. Knows nothing of tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from penguin_ros.core.errors import StampError


@dataclass(frozen=True)
class Frame:
    """One camera image. ``pixels`` is a read-only view, uint8 [height, width, 3], RGB."""

    pixels: np.ndarray
    stamp_ns: int           # when the image was taken, ROS time, copied from its message
    frame_id: str           # coordinate frame it was taken in, copied likewise
    camera: str             # the camera's name in the configuration
    received_s: float       # time.monotonic() when it reached the node, for the latency split

    @property
    def height_px(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True)
class Region:
    """A box in one frame, in pixels from the top left; x_max and y_max are the far edges."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def width_px(self) -> float:
        return self.x_max - self.x_min

    @property
    def height_px(self) -> float:
        return self.y_max - self.y_min

    def overlap(self, other: Region) -> float:
        """Intersection over union, 0 to 1."""
        across = min(self.x_max, other.x_max) - max(self.x_min, other.x_min)
        down = min(self.y_max, other.y_max) - max(self.y_min, other.y_min)
        if across <= 0 or down <= 0:
            return 0.0
        shared = across * down
        return shared / (self.width_px * self.height_px + other.width_px * other.height_px - shared)


class FrameRing:
    """The last frames of one camera, oldest first, bounded in number, so that questions about the past can be answered."""

    def __init__(self, capacity: int) -> None:
        self._frames: deque[Frame] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(tuple(self._frames))

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)

    def clear(self) -> None:
        self._frames.clear()

    @property
    def newest(self) -> Frame | None:
        return self._frames[-1] if self._frames else None

    def at(self, stamp_ns: int) -> Frame:
        """The frame in force at a moment: the last one taken at or before it.

        Raises StampError, naming the range that is held, when the moment is before the oldest or after the newest frame.
        """
        if not self._frames:
            raise StampError('No frame has been held yet. Wait for the camera, or ask without a stamp once it delivers.')
        oldest, newest = self._frames[0].stamp_ns, self._frames[-1].stamp_ns
        if not oldest <= stamp_ns <= newest:
            raise StampError(
                f'No frame of {stamp_ns / 1e9:.3f} s is held; held are {oldest / 1e9:.3f} to {newest / 1e9:.3f} s. '
                'Ask within that range, or leave the stamp zero for the newest frame.')
        return next(frame for frame in reversed(self._frames) if frame.stamp_ns <= stamp_ns)
