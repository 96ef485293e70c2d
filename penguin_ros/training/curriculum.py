"""Which clips, sizes and learning rate come when. Knows nothing of the model or of how rows are built.

As in Penguin-VL's stages (reference/penguin_vl.md 7.2): low resolution first, then higher, single pictures; then every size,
pictures and short videos mixed. All by time spent, so that the same recipe fits any number of minutes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from penguin_ros.training.dataset import Clip
from penguin_ros.training.rows import Layout, TokenGrid

LOW_GRID: TokenGrid = (4, 6)
MAIN_GRID: TokenGrid = (6, 8)
# Rows and columns of visual tokens the token budget gives a 320x240 camera, and some for wider pictures.
OTHER_GRIDS: tuple[TokenGrid, ...] = (
    (4, 5), (4, 6), (5, 6), (5, 7), (6, 7), (6, 9), (7, 8), (7, 9), (7, 10), (8, 10), (8, 11), (8, 11), (4, 7), (5, 9))
OLD_GRIDS: tuple[TokenGrid, ...] = ((3, 4), (4, 4), (4, 5), (4, 5), (4, 6), (5, 6), (5, 7), (6, 8))
SMALL_GRIDS: tuple[TokenGrid, ...] = ((2, 3), (3, 4), (3, 4), (3, 5), (4, 5))
_FEW_FRAMES = (2, 3, 4, 5)
_MANY_FRAMES = (5, 6, 7, 8, 9, 10, 11, 12)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The course of one training run; shares are of the run's time."""

    low_grid: TokenGrid = LOW_GRID
    main_grid: TokenGrid = MAIN_GRID
    rows: int = 16                  # of a batch of the main size; other sizes have about as many visual tokens
    peak_lr: float = 1.1e-3         # of AdamW: embeddings, norms, heads
    peak_matrix_lr: float = 2e-3    # of Muon: every other matrix
    last_lr_share: float = 0.03
    warmup_steps: int = 200
    low_until: float = 0.05         # before: small pictures only
    single_until: float = 0.15      # before: single pictures of the main size only
    main_share: float = 0.5         # afterwards: batches of single pictures of the main size ...
    video_share: float = 0.35       # ... and of videos; the rest are single pictures of other sizes
    long_share: float = 0.5         # of videos: many small old frames; the others have a few of any size
    dense_weight: float = 1.0
    dense_falls_from: float = 0.6   # the auxiliary loss loses weight from here to the end
    last_dense_weight: float = 0.2

    def lr_share(self, step: int, progress: float) -> float:
        """Warm-up by steps, cosine by progress (0 at the start, 1 at the end)."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        return warm * (self.last_lr_share + (1 - self.last_lr_share) * fall)

    def dense_weight_at(self, progress: float) -> float:
        done = min(max((progress - self.dense_falls_from) / (1 - self.dense_falls_from), 0.0), 1.0)
        return self.dense_weight + done * (self.last_dense_weight - self.dense_weight)

    def layout(self, rng: random.Random, progress: float) -> tuple[Layout, int]:
        """What the next batch looks like, and how many rows it has."""
        if progress < self.low_until:
            return Layout(grids=(self.low_grid,)), self.rows
        choice = rng.random()
        if progress < self.single_until or choice < self.main_share:
            return Layout(grids=(self.main_grid,)), self.rows
        if choice < self.main_share + self.video_share:
            return self._video(rng)
        grid = rng.choice(OTHER_GRIDS)
        fitting = self.rows * self.main_grid[0] * self.main_grid[1] // (grid[0] * grid[1])
        return Layout(grids=(grid,)), max(self.rows // 2, min(self.rows, fitting))

    def _video(self, rng: random.Random) -> tuple[Layout, int]:
        if rng.random() < self.long_share:
            old = [rng.choice(SMALL_GRIDS) for _ in range(rng.choice(_MANY_FRAMES) - 1)]
        else:
            old = [rng.choice(OLD_GRIDS) for _ in range(rng.choice(_FEW_FRAMES) - 1)]
        newest = self.main_grid if rng.random() < 0.6 else rng.choice(OTHER_GRIDS)
        tokens = sum(rows * columns for rows, columns in (*old, newest))
        rows = round(1.5 * self.rows * self.main_grid[0] * self.main_grid[1] / tokens)
        return Layout(grids=(*old, newest), captions=2 if len(old) < 3 else 1, questions=2), max(4, min(self.rows // 2, rows))


class ClipDeck:
    """Deals clips in random order, each once before any comes again; new clips join the next round."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._decks: dict[int, list[int]] = {}

    def deal(self, clips: Sequence[Clip], count: int, *, least_frames: int) -> list[Clip]:
        """``count`` clips of at least that many frames."""
        dealt: list[Clip] = []
        deck = self._decks.setdefault(least_frames, [])
        while len(dealt) < count:
            if not deck:
                deck.extend(index for index, clip in enumerate(clips) if len(clip.frames) >= least_frames)
                self._rng.shuffle(deck)
            dealt.append(clips[deck.pop()])
        return dealt
