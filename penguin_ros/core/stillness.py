"""Has anything in view moved since the last caption, so that its boxes no longer fit. Knows nothing of keyframes.

A keyframe asks for new content and forgives camera motion (keyframe.py); boxes do not forgive it: a robot that drives past
the same crate needs the crate's new place. So this compares with the captioned view itself, pixel by pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

_WIDTH_PX = 96          # of the compared picture: a quarter of a cell is then about two pixels of a 720p image
_LEVELS = 10.0          # grey levels beyond the neighbourhood's own range; above sensor noise once averaged down
_MOVED_SHARE = 0.004    # of the picture; a person's arm at five metres is more


class CaptionedView:
    """The view the last caption was written for, small and grey."""

    def __init__(self) -> None:
        self._low: np.ndarray | None = None     # darkest and brightest of each pixel's neighbourhood
        self._high: np.ndarray | None = None
        self._mean = 0.0

    def clear(self) -> None:
        self._low = self._high = None

    def remember(self, rgb: np.ndarray) -> None:
        """Take this image, uint8 [H, W, 3], as the captioned one."""
        small = _small_grey(rgb)
        # Half a pixel of misalignment stays within the 3x3 neighbourhood's range and so costs nothing.
        self._low, self._high = cv2.erode(small, _NEIGHBOURHOOD), cv2.dilate(small, _NEIGHBOURHOOD)
        self._mean = float(small.mean())

    def moved(self, rgb: np.ndarray) -> bool:
        """Whether this image shows something in another place than the captioned one; True before there is one."""
        if self._low is None or self._high is None:
            return True
        small = _small_grey(rgb)
        if small.shape != self._low.shape:
            return True
        gain = np.clip(self._mean / max(float(small.mean()), 1.0), 0.8, 1.25)   # auto-exposure moves nothing
        level = small * np.float32(gain)
        outside = np.maximum(self._low - level, level - self._high)
        return float((outside > _LEVELS).mean()) > _MOVED_SHARE


_NEIGHBOURHOOD = np.ones((3, 3), dtype=np.uint8)


def _small_grey(rgb: np.ndarray) -> np.ndarray:
    """Float32 [h, 96], averaged down so that noise and compression fade."""
    height_px = max(8, round(rgb.shape[0] * _WIDTH_PX / rgb.shape[1]))
    small = cv2.resize(rgb, (_WIDTH_PX, height_px), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
