"""The values the node gives out: scenes, answers, what they cost. Knows nothing of messages (messages.py)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from penguin_ros.core.frame import Region


class Status(enum.IntEnum):
    """How far a result can be trusted; the numbers are those of SceneDescription.msg."""

    OK = 0          # as configured
    DEGRADED = 1    # on less than configured; the reason says what was given up
    STALE = 2       # the camera is silent or the engine failed; the caption is the last one known


@dataclass(frozen=True)
class GroundedPhrase:
    """Characters ``begin`` to ``end`` of a text that name one thing, and where it is in the original image."""

    text: str
    begin: int
    end: int
    region: Region | None       # None: the words name no place
    confidence: float           # how likely words and box are right (confidence.py)
    track_id: int = 0           # 0: not followed


@dataclass(frozen=True)
class TokenUse:
    """Visual tokens allowed and spent; the fields of TokenBudget.msg."""

    limit: int = 0
    used: int = 0
    encoded: int = 0
    reused: int = 0
    frames: int = 0
    keyframes: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Latency:
    """Where the time of one result went, milliseconds."""

    queue_ms: float = 0.0
    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What one camera shows at one moment."""

    camera: str
    stamp_ns: int
    frame_id: str
    height_px: int
    width_px: int
    caption: str = ''
    phrases: tuple[GroundedPhrase, ...] = ()
    keyframe: bool = False
    keyframe_reason: str = ''
    unchanged: bool = False
    caption_stamp_ns: int = 0
    confidence: float = 0.0
    age_ms: float = 0.0
    status: Status = Status.OK
    reason: str = ''
    tokens: TokenUse = field(default_factory=TokenUse)
    latency: Latency = field(default_factory=Latency)
    decode_passes: int = 0          # engine calls the caption took
    decode_tokens: int = 0          # tokens the caption has

    @property
    def captioned(self) -> bool:
        """Whether the caption was written for this very frame."""
        return self.caption_stamp_ns == self.stamp_ns and self.status is not Status.STALE


@dataclass(frozen=True, kw_only=True)
class Question:
    """What somebody wants to know."""

    text: str
    camera: str = ''                # '': the first camera
    region: Region | None = None    # pixels of the original image
    stamp_ns: int = 0               # 0: now
    choices: tuple[str, ...] = ()
    timeout_s: float = 0.0          # 0: the node's default


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer, about which frame, and how sure."""

    text: str
    camera: str
    stamp_ns: int
    frame_id: str
    phrases: tuple[GroundedPhrase, ...] = ()
    choice: int = -1
    probabilities: tuple[float, ...] = ()
    confidence: float = 0.0
    age_ms: float = 0.0
    latency: Latency = field(default_factory=Latency)


PartialAnswer = Callable[[str, int], None]
"""Called while an answer is written, with the text so far and its number of tokens."""
