"""Engines that keep nothing from one question to the next: what our node would cost without caches. Knows no policy.

They keep the contract of core/engine.py, so that the very same node runs on them. What is appended to a stream without
asking for logits is noted only; when something is asked, every frame that can still be seen is encoded and read again
into an empty cache. The answer must be the one that the caches give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from penguin_ros.core.engine import KVCache, LanguageEngine, Piece, VisionEngine, VisualTokens
from penguin_ros.core.stream import FIRST_ROW


@dataclass(frozen=True)
class _Seen:
    """A frame as it came: enough to encode it again."""

    patches: np.ndarray
    grid: tuple[int, int]


@dataclass
class _Part:
    """Something appended in one call: its pieces, their positions, and where each of its rows now lies (-1: gone)."""

    pieces: list[Piece]
    positions: np.ndarray
    rows: np.ndarray


@dataclass
class _Notes:
    """The stream's side of a cache: what it was told, and the empty cache for the next question."""

    scratch: KVCache
    parts: list[_Part] = field(default_factory=list)
    asked_at: int = FIRST_ROW       # the row the last question began at
    scratch_end: int = FIRST_ROW    # behind the rows read again for it
    is_fresh: bool = False          # nothing was noted or moved since they were

    @property
    def capacity_rows(self) -> int:
        return self.scratch.capacity_rows

    @property
    def row_bytes(self) -> int:
        return self.scratch.row_bytes


class ForgetfulVision:
    """Encodes a frame only to say how many tokens it has; keeps the patches in the place of the tokens."""

    def __init__(self, vision: VisionEngine) -> None:
        self.spec = vision.spec

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        return VisualTokens(grid[0] * grid[1] // self.spec.merge ** 2, _Seen(patches, grid))


class ForgetfulLanguage:
    """Reads the whole window anew for every question."""

    def __init__(self, vision: VisionEngine, language: LanguageEngine) -> None:
        self._vision, self._language = vision, language
        self.spec = language.spec

    def new_cache(self, capacity_rows: int) -> _Notes:
        return _Notes(self._language.new_cache(capacity_rows))

    def append(self, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray, visible: np.ndarray,
               logits_for: Sequence[int]) -> np.ndarray:
        assert isinstance(cache, _Notes)
        if not len(logits_for):
            self._note(cache, list(pieces), start, positions)
            return np.zeros((0, self.spec.vocabulary), np.float32)
        if start <= cache.asked_at or not cache.is_fresh:       # a new question; its answer goes on behind it
            self._read_again(cache, visible)
            cache.asked_at = start
        offset = cache.scratch_end - cache.asked_at
        shown = np.ones(start + offset, dtype=bool)
        shown[:cache.scratch_end] = self._shown(cache, visible)
        return self._language.append(cache.scratch, pieces, start=start + offset, positions=positions, visible=shown,
                                     logits_for=logits_for)

    def move_rows(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        assert isinstance(cache, _Notes)
        for part in cache.parts:
            overwritten = (part.rows >= target) & (part.rows < source)
            moved = (part.rows >= source) & (part.rows < source + count)
            part.rows[overwritten & (part.rows < target + count)] = -1
            part.rows[moved] -= source - target
        cache.is_fresh = False

    def _note(self, cache: _Notes, pieces: list[Piece], start: int, positions: np.ndarray) -> None:
        for part in cache.parts:
            part.rows[part.rows >= start] = -1
        cache.parts = [part for part in cache.parts if (part.rows >= 0).any()]
        cache.parts.append(_Part(pieces, positions.copy(), np.arange(start, start + len(positions))))
        cache.is_fresh = False

    def _read_again(self, cache: _Notes, visible: np.ndarray) -> None:
        cache.parts = [part for part in cache.parts if _is_shown(part, visible).any()]
        row = FIRST_ROW
        seen = np.zeros(cache.capacity_rows, dtype=bool)
        for part in cache.parts:
            pieces = [self._encoded(piece) for piece in part.pieces]
            self._language.append(cache.scratch, pieces, start=row, positions=part.positions, visible=seen[:row], logits_for=())
            seen[row:row + len(part.rows)] = _is_shown(part, visible)
            row += len(part.rows)
        cache.scratch_end, cache.is_fresh = row, True

    def _encoded(self, piece: Piece) -> Piece:
        if not isinstance(piece, VisualTokens):
            return piece
        return self._vision.encode(piece.data.patches, piece.data.grid)

    def _shown(self, cache: _Notes, visible: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(FIRST_ROW, dtype=bool), *(_is_shown(part, visible) for part in cache.parts)])


def _is_shown(part: _Part, visible: np.ndarray) -> np.ndarray:
    """Which rows of a part may be looked at."""
    inside = (part.rows >= 0) & (part.rows < len(visible))
    shown = np.zeros(len(part.rows), dtype=bool)
    shown[inside] = visible[part.rows[inside]]
    return shown
