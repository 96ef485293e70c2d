"""What the core needs from any engine: shapes in, shapes out. Knows nothing of how one runs (backends/)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """The vision engine's shape, as its manifest states it."""

    patch_px: int           # side of one patch, 14 in every published checkpoint
    merge: int              # patches per side of one visual token: 1 for pictures, 2 for video frames
    head_dim: int           # width of one attention head; the rotary tables have this width
    rope_theta: float       # base of the encoder's rotary frequencies
    width: int              # width of a visual token, equal to the decoder's width
    max_patches: int        # most patches one call can take

    @property
    def token_px(self) -> int:
        """Side in pixels of the square one visual token stands for."""
        return self.patch_px * self.merge


@dataclass(frozen=True, kw_only=True)
class LanguageSpec:
    """The language engine's shape, as its manifest states it."""

    layers: int
    kv_heads: int
    head_dim: int
    width: int
    vocabulary: int
    rope_theta: float
    max_positions: int      # positions beyond this were never trained
    max_append: int         # most rows one engine call takes; longer prompts are cut into chunks by the backend
    image_token_id: int     # the id that stands for one visual token in written-out prompts


@dataclass(frozen=True)
class VisualTokens:
    """One frame's visual tokens, kept wherever the backend wants them (host array, device memory).

    ``data`` is the backend's own and means nothing to the core; only the backend that made it may read it.
    It stays valid until the last reference to it is dropped.
    """

    count: int
    data: Any


Piece = np.ndarray | VisualTokens
"""Part of a prompt: an int array of token ids, or the visual tokens of one frame."""


@runtime_checkable
class KVCache(Protocol):
    """Keys and values of one stream: per layer two token-major buffers of ``capacity_rows`` rows. Row 0 is reserved."""

    @property
    def capacity_rows(self) -> int: ...  # rows in all, the reserved row 0 included

    @property
    def row_bytes(self) -> int: ...      # bytes of one row over all layers, keys and values


class VisionEngine(Protocol):
    """Patches of one frame in, visual tokens in the decoder's width out."""

    @property
    def spec(self) -> VisionSpec: ...

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        """Encode one frame.

        ``patches`` is float32 [N, 3*patch_px**2] in merge-window order (reference/penguin_vl.md 1.2, 1.5), ``grid`` its
        rows and columns of patches, N = rows * columns. Returns N / merge**2 visual tokens, row-major.
        Raises EngineError when the frame has more patches than the engine takes.
        """
        ...


class LanguageEngine(Protocol):
    """The decoder, append by address (design section 3): new rows are written straight behind the rows already there."""

    @property
    def spec(self) -> LanguageSpec: ...

    def new_cache(self, capacity_rows: int) -> KVCache:
        """Reserve a cache. Row 0 holds zeros and is never visible, so that no tensor is ever empty."""
        ...

    def append(self, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray,
               visible: np.ndarray, logits_for: Sequence[int]) -> np.ndarray:
        """Read the pieces' T tokens into rows ``[start, start + T)`` and return the logits of some of them.

        ``start`` >= 1. ``positions`` is int [T], the rotary positions of the new rows. ``visible`` is bool [start]: which
        earlier rows the new ones may look at (row 0 must be False). Among the new rows attention is causal.
        ``logits_for`` names new rows (0..T-1); the result is float32 [len(logits_for), vocabulary], possibly empty.
        Nothing before ``start`` is changed, so setting the next call's ``start`` back forgets what came after.
        Raises EngineError when the rows do not fit the cache.
        """
        ...

    def move_rows(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        """Move ``count`` rows from ``source`` down to ``target`` (target <= source), to close a gap in place."""
        ...
