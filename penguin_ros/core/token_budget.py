"""Share a window's tokens over the frames of all cameras. Knows nothing of pixels or of what a keyframe is (keyframe.py).

`share_window` is the streaming solver: called for every frame that is read, it says what the frames already held keep and
how finely the new one is cut. A frame once encoded can only be kept, thinned or let go, never grow, so the new frame's
grid is the one real choice. `published_sizes` is the model authors' solver for a finished clip (reference/penguin_vl.md
3.3), kept for comparison: it may exceed its budget and enlarge frames.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from penguin_ros.core.errors import BudgetError, ConfigError
from penguin_ros.core.grid import Grid, fit_grid, floor_grid, grid_tokens
from penguin_ros.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """How many vision tokens the retained frames of all cameras may have."""

    window_tokens: int = setting(256, 'most vision tokens held at any moment, all cameras together', low=16, high=131072,
                                 live=True)
    min_frame_tokens: int = setting(16, 'fewest vision tokens of a frame that is kept', low=1, high=4096, live=True)
    keyframe_weight: float = setting(16.0, "a keyframe's share of what is left over, beside an intermediate frame's 1",
                                     low=1.0, high=1000.0, live=True)
    new_frame_share: float = setting(
        0.5, "most of a camera's part of the window that one new frame may take, so that the next need not thin it at once",
        low=0.01, high=1.0, live=True)
    half_life_s: float = setting(20.0, "seconds in which a frame's claim to its tokens halves", low=0.1, high=86400.0,
                                 live=True)

    def __post_init__(self) -> None:
        if self.min_frame_tokens > self.window_tokens:
            raise ConfigError(
                f'min_frame_tokens is {self.min_frame_tokens}; with window_tokens {self.window_tokens} it can be 1 to '
                f'{self.window_tokens}. Lower min_frame_tokens or raise window_tokens.')


@dataclass(frozen=True)
class HeldFrame:
    """A frame that is in the window already."""

    camera: str
    age_s: float
    keyframe: bool
    tokens: int                 # vision tokens it still has


@dataclass(frozen=True)
class NewFrame:
    """A frame about to be encoded."""

    camera: str
    native: Grid                # the finest grid it can have
    keyframe: bool
    detail: float = 1.0         # how much of it is new, 0 to 1; an intermediate frame that shows nothing new needs its floor


@dataclass(frozen=True)
class WindowPlan:
    """What the window holds from now on."""

    kept: tuple[int, ...]       # tokens of each held frame; 0: let it go
    grid: Grid | None           # of the new frame
    tokens: int                 # of all frames together, never above window_tokens


_SMALLEST_SHARE = 1e-3          # tokens per weight: even the heaviest keyframe then has less than any floor
_CLOSE_ENOUGH = 1.0005          # ratio; half a token in a thousand is lost to it, and goes to the new frame


@dataclass(frozen=True)
class _Claim:
    """What one frame may have: nothing, or ``floor`` to ``most`` tokens; in between by weight."""

    floor: int
    most: int
    weight: float
    stays: bool                 # the newest frame of a live camera

    def tokens(self, per_weight: float) -> int:
        share = per_weight * self.weight
        if share < self.floor and not self.stays:
            return 0
        return int(min(max(share, self.floor), self.most))


def share_window(budget: TokenBudget, held: Sequence[HeldFrame], new: NewFrame | None = None, *,
                 live: Collection[str], merge: int = 2, most_frames: int | None = None) -> WindowPlan:
    """Share ``window_tokens`` over the held frames, oldest first, and a new one.

    Every frame claims by weight: a keyframe ``keyframe_weight``, an intermediate frame 1, halved by each ``half_life_s`` of
    age and by each later keyframe of its camera. The newest keyframe of a live camera does not age: it is what the scene
    still looks like. All weights get the same number of tokens each, the highest at which the sum fits; a frame gets
    no more than it has (a new one: than its grid and ``new_frame_share`` allow) and leaves when its claim falls below its
    floor, so intermediate frames leave first, then old keyframes are thinned, then they leave. Of a camera with more than
    ``most_frames`` frames the weakest claims leave. The newest frame of each live camera stays. Equal input gives equal
    output.

    A frame's floor is ``min_frame_tokens``, or all it has where that is less; a new frame's is the smallest grid of its
    shape with as many. Raises BudgetError where the frames that must stay do not fit.
    """
    claims = _held_claims(budget, held, new, live)
    if most_frames is not None:
        _crowd_out(claims, held, new, most_frames)
    if new is not None:
        claims.append(_new_claim(budget, new, live, merge))
    per_weight = _highest_that_fits(claims, budget.window_tokens)
    kept = [claim.tokens(per_weight) for claim in claims]
    grid = None
    if new is not None:
        # What rounding left over goes to the new frame, the only one that can still use it.
        most = min(kept[-1] + budget.window_tokens - sum(kept), claims[-1].most)
        grid = fit_grid(new.native, most, min_tokens=claims[-1].floor, merge=merge)
        kept[-1] = grid_tokens(grid, merge)
    return WindowPlan(tuple(kept[:len(held)]), grid, sum(kept))


def _held_claims(budget: TokenBudget, held: Sequence[HeldFrame], new: NewFrame | None, live: Collection[str]) -> list[_Claim]:
    """One claim per held frame. Walked from the newest back, so that later frames and keyframes are counted on the way."""
    followed = {new.camera} if new else set()
    later_keyframes = {new.camera: int(new.keyframe)} if new else {}
    claims = []
    for frame in reversed(held):
        later = later_keyframes.get(frame.camera, 0)
        in_force = frame.keyframe and not later and frame.camera in live
        halvings = 0.0 if in_force else frame.age_s / budget.half_life_s + later
        weight = (budget.keyframe_weight if frame.keyframe else 1.0) * 0.5 ** min(max(halvings, 0.0), 60.0)
        claims.append(_Claim(min(budget.min_frame_tokens, frame.tokens), frame.tokens, weight,
                             stays=frame.camera in live and frame.camera not in followed))
        followed.add(frame.camera)
        later_keyframes[frame.camera] = later + frame.keyframe
    return claims[::-1]


def _crowd_out(claims: list[_Claim], held: Sequence[HeldFrame], new: NewFrame | None, most_frames: int) -> None:
    """Leave the weakest claims of each camera nothing, until it has no more than ``most_frames`` frames."""
    for camera in {frame.camera for frame in held}:
        own = [index for index, frame in enumerate(held) if frame.camera == camera]
        room = max(1, most_frames) - (new is not None and new.camera == camera)
        own.sort(key=lambda index: (claims[index].stays, claims[index].weight, index))
        for index in own[:max(0, len(own) - room)]:
            claims[index] = _Claim(0, 0, claims[index].weight, stays=False)


_NEWS_WEIGHT = 0.25     # of a keyframe's weight, for an intermediate frame that is all news


def _new_claim(budget: TokenBudget, new: NewFrame, live: Collection[str], merge: int) -> _Claim:
    floor = grid_tokens(floor_grid(new.native, budget.min_frame_tokens, merge=merge), merge)
    native_tokens = grid_tokens(new.native, merge)
    detail = 1.0 if new.keyframe else min(max(new.detail, 0.0), 1.0)
    wanted = floor + int(detail * (native_tokens - floor))
    allowed = int(budget.new_frame_share * budget.window_tokens / len({*live, new.camera}))
    # A caption needs some detail where things are now, though less than what the keyframe told of the whole scene.
    weight = budget.keyframe_weight if new.keyframe else 1.0 + _NEWS_WEIGHT * detail * (budget.keyframe_weight - 1.0)
    return _Claim(floor, max(floor, min(wanted, allowed)), weight, stays=True)


def _highest_that_fits(claims: Sequence[_Claim], window_tokens: int) -> float:
    """The most tokens per weight at which all claims together fit, by halving the range."""
    least = sum(claim.tokens(0.0) for claim in claims)
    if least > window_tokens:
        count = sum(claim.stays for claim in claims)
        raise BudgetError(
            f'the newest frames of {count} cameras need {least} vision tokens, the window has {window_tokens}. '
            'Raise window_tokens, lower min_frame_tokens or use fewer cameras.')
    if sum(claim.most for claim in claims) <= window_tokens:
        return math.inf
    fits, too_many = 0.0, max((claim.most + 1) / claim.weight for claim in claims)
    while too_many > _CLOSE_ENOUGH * max(fits, _SMALLEST_SHARE):
        middle = math.sqrt(max(fits, _SMALLEST_SHARE) * too_many)  # weights span many halvings, so halve the exponent
        if sum(claim.tokens(middle) for claim in claims) <= window_tokens:
            fits = middle
        else:
            too_many = middle
    return fits


# ---- the published solver ----

_SPENDABLE = 0.95               # of max_tokens, checked before rounding
_FLOOR_FACTOR = 1.5             # of min_tokens
_KEY_TO_INTERMEDIATE = 16


@dataclass(frozen=True)
class PublishedSizes:
    """Height and width in pixels of key and intermediate frames; None where a clip has no such frame."""

    key_px: tuple[int, int] | None
    intermediate_px: tuple[int, int] | None


def published_sizes(height_px: int, width_px: int, *, keys: int, intermediates: int, patch_px: int = 14, merge: int = 2,
                    min_tokens: int = 16, max_tokens: int = 16384) -> PublishedSizes:
    """The size of the frames of a finished clip whose first frame is ``height_px`` x ``width_px``."""
    if keys + intermediates == 0:
        raise BudgetError('the clip has no frames; there is nothing to share tokens over. Give at least one.')
    side_px = patch_px * merge
    floor_area = _FLOOR_FACTOR * min_tokens * side_px ** 2
    cap = _SPENDABLE * max_tokens * side_px ** 2
    key_area = intermediate_area = float(height_px * width_px)
    if (keys + intermediates) * key_area > cap:
        key_area = cap / (keys + intermediates / _KEY_TO_INTERMEDIATE)
        intermediate_area = key_area / _KEY_TO_INTERMEDIATE
        if intermediate_area < floor_area:
            if keys == 0:
                raise BudgetError(f'{intermediates} intermediate frames without a keyframe need more than {max_tokens} tokens. '
                                  'Make the first frame a keyframe, or raise max_tokens.')
            intermediate_area = floor_area
            key_area = (cap - intermediates * floor_area) / keys
        key_area = max(key_area, floor_area)

    def size(area: float) -> tuple[int, int]:
        return _published_size(area, height_px / width_px, side_px, floor_area)

    return PublishedSizes(size(key_area) if keys else None, size(intermediate_area) if intermediates else None)


def _published_size(area: float, aspect: float, side_px: int, floor_area: float) -> tuple[int, int]:
    """Whole tokens near an area in pixels; rounded up where rounding to the nearest falls below the floor."""
    width = math.sqrt(area / aspect)
    sides = [max(side_px, round(side / side_px) * side_px) for side in (width * aspect, width)]
    if sides[0] * sides[1] < floor_area:
        width = math.sqrt(floor_area / aspect)
        sides = [math.ceil(side / side_px) * side_px for side in (width * aspect, width)]
    return sides[0], sides[1]
