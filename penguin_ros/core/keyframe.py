"""Is this frame different enough from the last keyframe? Knows nothing of tokens or of what a keyframe may cost.

`ChangeDetector` is the streaming detector: the camera's own motion is taken out (motion.py), then exposure, then every
pixel is compared with what the keyframe showed around it. It fires on content, not on noise, exposure or camera motion.
`PublishedKeyframes` is the model authors' rule, kept for comparison (reference/penguin_vl.md 3.2).
Both look at one camera, one frame at a time, in constant memory, and give equal decisions for equal input.
About 3 ms for a 1280x720 frame on one core of a small server, a quarter of it the reduction to some 160x90 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from penguin_ros.core.errors import ConfigError, ImageError
from penguin_ros.core.motion import ViewTracker, displacement, warp_back
from penguin_ros.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class KeyframeSettings:
    """When a frame becomes a keyframe. The defaults suit every camera tried; shares are of the picture, 0 to 1."""

    mode: str = setting('streaming', "rule that picks keyframes; published is the model authors' own, for comparison",
                        choices=('streaming', 'published'))
    new_content_share: float = setting(
        0.012, 'share of the picture that must be new, in two frames running, for a keyframe', low=0.001, high=0.5, live=True)
    cut_share: float = setting(
        0.5, 'share of the picture that, when new, makes a keyframe at once', low=0.01, high=1.0, live=True)
    min_view_share: float = setting(
        0.42, 'a keyframe is due when less than this share of the last one is still in view', low=0.0, high=0.95, live=True)
    min_gap_s: float = setting(
        0.25, 'least seconds between two keyframes for new content; a cut does not wait', low=0.0, high=60.0, live=True)
    refresh_s: float = setting(
        60.0, 'longest seconds without a keyframe; 0: no limit', low=0.0, high=86400.0, live=True)

    def __post_init__(self) -> None:
        if self.new_content_share > self.cut_share:
            raise ConfigError(f'new_content_share is {self.new_content_share:g} and cut_share {self.cut_share:g}. '
                              'A cut is more than new content: raise cut_share or lower new_content_share.')


@dataclass(frozen=True)
class KeyframeDecision:
    """What was decided about one frame, and why."""

    keyframe: bool
    reason: str
    changed: float          # share of the picture that differs from the last keyframe, camera motion taken out
    moved: float = 0.0      # how far the view moved since the last keyframe, in picture widths
    novelty: float = 1.0    # how near the frame came to being a keyframe: 0 shows nothing new, a keyframe has 1


class KeyframeDetector(Protocol):
    """One camera's keyframes, frame by frame."""

    def offer(self, rgb: np.ndarray, stamp_ns: int) -> KeyframeDecision:
        """Decide about the next frame, RGB uint8 [H, W, 3]."""
        ...

    def reset(self) -> None:
        """Forget the last keyframe: the next frame becomes one."""
        ...


def keyframe_detector(settings: KeyframeSettings) -> KeyframeDetector:
    """The detector the settings ask for; one per camera."""
    return PublishedKeyframes() if settings.mode == 'published' else ChangeDetector(settings)


# ---- the streaming detector ----

_WORK_PIXELS = 160 * 90

# A pixel has changed where its distance to the keyframe's 3x3 range passes a level in grey levels: a floor for noise
# and compression, and a share of the brightness, since exposure, shadows and texture all scale with it.
_LEVEL_FLOOR, _LEVEL_SHARE = 7.0, 0.13
_SMOOTH_PX = 5                      # changes narrower than this are rain, noise and misalignment

_GAIN = (0.75, 1.33)                # automatic exposure beyond this is news: the scene got dark
_ROW_GAIN = (0.87, 1.15)            # lamps beating against a rolling shutter
_ROW_SMOOTH_PX = 5

# Parallax and lens distortion grow with camera motion; so does the share of new content a keyframe needs, by this
# factor for each tenth of a picture width.
_ALLOWANCE_PER_TENTH, _MOST_ALLOWED_WIDTHS = 1.5, 0.5

_REACH_PX = 5                       # how far a change may move between two frames and still be the same
_LOST_TRUST, _LOST_SHARE = 0.2, 0.2    # hardly a corner found again, and this much changed: another place
_BLANK_CONTRAST = 4.0               # grey levels; a black or covered frame may be a fault, so it has to last two frames
_DOUBTED_SHARE = 0.05               # more change than this, and a still camera is tried as an explanation

_TO_LUMA_CHROMA = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.0, -0.5, 0.5]], np.float32)


def _planes(small: np.ndarray) -> np.ndarray:
    """Luma and two colour differences, float32 [3, h, w]."""
    return np.stack(cv2.split(cv2.transform(small.astype(np.float32), _TO_LUMA_CHROMA)))


class _Reference:
    """What is remembered of the last keyframe: its colours' range around each pixel, and its corners."""

    def __init__(self, small: np.ndarray, stamp_ns: int) -> None:
        planes = _planes(small)
        neighbours = np.ones((3, 3), np.uint8)
        self.stamp_ns = stamp_ns
        self.luma = planes[0]
        self.low = np.stack([cv2.erode(plane, neighbours) for plane in planes])
        self.high = np.stack([cv2.dilate(plane, neighbours) for plane in planes])
        self.view = ViewTracker(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))

    def compare(self, small: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, float]:
        """Which pixels of the keyframe's view changed (uint8 0 or 1, [h, w]), and which share of it is still in view."""
        height, width = self.luma.shape
        visible = warp_back(np.full((height, width), 255, np.uint8), motion) > 250
        view_share = float(visible.mean())
        if view_share < 0.01:
            return np.zeros((height, width), np.uint8), view_share
        planes = _planes(warp_back(small, motion))
        planes /= self._gain(planes[0], visible)
        distance = np.maximum(np.maximum(planes - self.high, self.low - planes).max(axis=0), 0)
        distance /= _LEVEL_FLOOR + _LEVEL_SHARE * np.maximum(self.luma, planes[0])
        distance *= visible
        return ((cv2.blur(distance, (_SMOOTH_PX, _SMOOTH_PX)) > 1) & visible).astype(np.uint8), view_share

    def _gain(self, luma: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """How much brighter the picture is than the keyframe, one number per row, [h, 1]: exposure and lamp bands."""
        ratio, known = ((luma + 2) / (self.luma + 2))[:, ::2], visible[:, ::2]
        whole = float(np.clip(np.median(ratio[known]), *_GAIN)) if known.any() else 1.0
        rows = np.where(known, ratio / whole, np.inf)
        rows.sort(axis=1)
        count = known.sum(axis=1)
        middle = np.where(count > 0, rows[np.arange(len(rows)), np.maximum(count - 1, 0) // 2], 1.0)
        bands = cv2.blur(np.clip(middle, *_ROW_GAIN).astype(np.float32)[:, None], (1, _ROW_SMOOTH_PX))
        return whole * bands


class ChangeDetector:
    """The streaming detector of one camera."""

    def __init__(self, settings: KeyframeSettings | None = None) -> None:
        self.settings = settings or KeyframeSettings()
        self.reset()

    def reset(self) -> None:
        self._reference: _Reference | None = None
        self._changed_before: np.ndarray | None = None
        self._size: tuple[int, ...] = ()
        self._stamp_ns = 0

    def offer(self, rgb: np.ndarray, stamp_ns: int) -> KeyframeDecision:
        small = _reduced(rgb)
        decision = self._restart_reason(rgb, stamp_ns) or self._judge(small, stamp_ns)
        if decision.keyframe:
            self._reference = _Reference(small, stamp_ns)
            self._changed_before = None
        self._size, self._stamp_ns = rgb.shape, stamp_ns
        return decision

    def _restart_reason(self, rgb: np.ndarray, stamp_ns: int) -> KeyframeDecision | None:
        if self._reference is None:
            return KeyframeDecision(True, 'first frame', 1.0)
        if rgb.shape != self._size:
            return KeyframeDecision(True, 'image size changed', 1.0)
        if stamp_ns < self._stamp_ns:
            return KeyframeDecision(True, 'stamp went back', 1.0)
        return None

    def _judge(self, small: np.ndarray, stamp_ns: int) -> KeyframeDecision:
        reference, settings = self._reference, self.settings
        assert reference is not None
        motion, trust = reference.view.follow(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        changed, view_share = reference.compare(small, motion)
        if changed.mean() > _DOUBTED_SHARE:
            # A large thing that moves can be mistaken for the scene; then a still camera explains more.
            still, _ = reference.compare(small, np.eye(3))
            if still.mean() < changed.mean():
                motion, changed, view_share = np.eye(3), still, 1.0
        share = float(changed.mean())
        moved = displacement(motion, *small.shape[:2])
        lasting = self._lasting(changed)
        needed = settings.new_content_share * (1 + 10 * _ALLOWANCE_PER_TENTH * min(moved, _MOST_ALLOWED_WIDTHS))
        lost = trust < _LOST_TRUST and not reference.view.plain and share > max(_LOST_SHARE, needed)
        blank = float(cv2.meanStdDev(small)[1].max()) < _BLANK_CONTRAST
        age_s = (stamp_ns - reference.stamp_ns) / 1e9

        if (share > settings.cut_share or lost) and not (blank and lasting <= needed):
            reason = f'cut: {share:.1%} changed'
        elif lasting > needed and age_s >= settings.min_gap_s:
            reason = f'new content: {lasting:.1%}'
        elif view_share < settings.min_view_share:
            reason = f'view moved: {view_share:.0%} of the last keyframe in view'
        elif 0 < settings.refresh_s <= age_s:
            reason = f'periodic: {age_s:.0f} s since the last keyframe'
        else:
            novelty = max(share / needed, (1 - view_share) / (1 - settings.min_view_share))
            return KeyframeDecision(False, f'{share:.1%} changed, {moved:.1%} moved', share, moved, min(novelty, 1.0))
        return KeyframeDecision(True, reason, share, moved)

    def _lasting(self, changed: np.ndarray) -> float:
        """The share of the picture that changed in this frame and, within reach, in the one before."""
        before, self._changed_before = self._changed_before, changed
        if before is None:
            return 0.0
        return float((changed & cv2.dilate(before, np.ones((_REACH_PX, _REACH_PX), np.uint8))).mean())


def _reduced(rgb: np.ndarray) -> np.ndarray:
    """About 160x90 pixels, by a whole factor, because averaging whole blocks is three times quicker."""
    height, width = rgb.shape[:2]
    factor = max(1, min(round(math.sqrt(height * width / _WORK_PIXELS)), height, width))
    rows, columns = height // factor, width // factor
    return cv2.resize(rgb[:rows * factor, :columns * factor], (columns, rows), interpolation=cv2.INTER_AREA)


# ---- the published rule ----

_PATCH_PX = 14
_MOST_PATCHES, _FEWEST_PATCHES = 10240, 10
_MOST_ELONGATED = 200
_SIMILAR_PATCH = 0.7
_SIMILAR_FRAME = 0.95
_BLACK_NORM = 0.01


class PublishedKeyframes:
    """The model authors' rule: a frame is key when under 95 % of its patches resemble those of the last keyframe."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._patches: np.ndarray | None = None
        self._size: tuple[int, ...] = ()

    def offer(self, rgb: np.ndarray, stamp_ns: int = 0) -> KeyframeDecision:
        patches = published_patches(rgb)
        if self._patches is None or rgb.shape != self._size:
            decision = KeyframeDecision(True, 'first frame' if self._patches is None else 'image size changed', 1.0)
        else:
            similarity = published_similarity(self._patches, patches)
            changed = 0.0 if math.isnan(similarity) else 1 - similarity
            # In float32 19/20 is a little less than 0.95: such a frame is key, as in the published code.
            keyframe = similarity < _SIMILAR_FRAME
            decision = KeyframeDecision(keyframe, f'{changed:.1%} of the patches differ', changed,
                                        novelty=1.0 if keyframe else min(1.0, changed / (1 - _SIMILAR_FRAME)))
        if decision.keyframe:
            self._patches, self._size = patches, rgb.shape
        return decision


def published_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of pixels at which the published rule compares frames."""
    if max(height, width) > _MOST_ELONGATED * min(height, width):
        raise ImageError(f'the image is {width}x{height} px; the published keyframe rule takes sides up to '
                         f'{_MOST_ELONGATED}:1. Crop the image or set keyframe.mode to streaming.')
    sides = [max(_PATCH_PX, round(side / _PATCH_PX) * _PATCH_PX) for side in (height, width)]
    area, patch_area = sides[0] * sides[1], _PATCH_PX ** 2
    if area > _MOST_PATCHES * patch_area:
        scale = math.sqrt(height * width / (_MOST_PATCHES * patch_area))
        sides = [math.floor(side / scale / _PATCH_PX) * _PATCH_PX for side in (height, width)]
    elif area < _FEWEST_PATCHES * patch_area:
        scale = math.sqrt(_FEWEST_PATCHES * patch_area / (height * width))
        sides = [math.ceil(side * scale / _PATCH_PX) * _PATCH_PX for side in (height, width)]
    return max(_PATCH_PX, sides[0]), max(_PATCH_PX, sides[1])


def published_patches(rgb: np.ndarray) -> np.ndarray:
    """Hue, saturation and value of each 14x14 patch, float32 [N, 588]."""
    height, width = published_size(*rgb.shape[:2])
    if rgb.shape[:2] != (height, width):
        # float, then cut off to whole numbers, not rounded: as published
        rgb = _triangle(_triangle(rgb.astype(np.float32), width, axis=1), height, axis=0).astype(np.uint8)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    cells = hsv.reshape(height // _PATCH_PX, _PATCH_PX, width // _PATCH_PX, _PATCH_PX, 3).swapaxes(1, 2)
    return cells.reshape(-1, _PATCH_PX ** 2 * 3).astype(np.float32)


def published_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The share of patches that resemble each other, black pairs left out; NaN where all are black."""
    norms = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    cosine = ((one / (norms[0] + 1e-8)[:, None]) * (other / (norms[1] + 1e-8)[:, None])).sum(axis=1)
    seen = (norms[0] >= _BLACK_NORM) | (norms[1] >= _BLACK_NORM)
    if not seen.any():
        return math.nan
    return float((cosine[seen] > _SIMILAR_PATCH).mean(dtype=np.float32))


def _triangle(picture: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Resize a float picture along one axis by a triangle filter that widens when it shrinks (antialiased bilinear)."""
    old = picture.shape[axis]
    if size == old:
        return picture
    scale = old / size
    reach = max(scale, 1.0)
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    last = np.minimum((centre + reach + 0.5).astype(int), old)
    taps = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(0, 1 - np.abs((taps - centre[:, None] + 0.5) / reach)) * (taps < last[:, None])
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    shape = [1, 1, 1]
    shape[axis] = size
    resized = np.zeros(())
    for tap, weight in zip(np.minimum(taps, old - 1).T, weights.T):
        resized = resized + picture.take(tap, axis=axis) * weight.reshape(shape)
    return resized
