"""Which clips, sizes and learning rate come when. Knows nothing of the model or of how rows are built.

Three stages: the decoder learns to answer from the oracle's tokens (oracle.py), the encoder learns to give them, then both
learn together. Within them as in Penguin-VL's stages (reference/penguin_vl.md 7.2): low resolution first, then higher, then
every size, pictures and videos mixed. All by time spent, so that the same recipe fits any number of minutes: ``progress`` is
the share of the run's time, and the share of the course done by then (`course_at`) is what stages, weights and rates go by.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penguin_ros.training.dataset import Clip
from penguin_ros.training.rows import Layout, TokenGrid

Stage = Literal['decoder', 'encoder', 'both']

LOW_GRID: TokenGrid = (4, 6)
MAIN_GRID: TokenGrid = (6, 8)
# Rows and columns of visual tokens the token budget gives a 320x240 camera, and some for wider pictures.
OTHER_GRIDS: tuple[TokenGrid, ...] = (
    (4, 5), (4, 6), (5, 6), (5, 7), (6, 7), (6, 9), (7, 8), (7, 9), (7, 10), (8, 10), (8, 11), (8, 11), (4, 7), (5, 9))
OLD_GRIDS: tuple[TokenGrid, ...] = ((3, 4), (4, 4), (4, 5), (4, 5), (4, 6), (5, 6), (5, 7), (6, 8))
SMALL_GRIDS: tuple[TokenGrid, ...] = ((3, 4), (3, 5), (4, 4), (4, 5), (5, 6), (5, 7), (5, 7))
_FEW_FRAMES = (2, 3, 4, 5)
_MANY_FRAMES = (5, 6, 7, 8, 9, 10, 11, 12)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The course of one training run; what is given as a share is one of the course."""

    low_grid: TokenGrid = LOW_GRID
    main_grid: TokenGrid = MAIN_GRID
    rows: int = 16                  # of a batch of the main size; other sizes have about as many visual tokens
    peak_lr: float = 1.1e-3         # of AdamW: embeddings, norms, heads
    peak_matrix_lr: float = 3e-3     # of Muon: every other matrix
    last_lr_share: float = 0.03
    warmup_steps: int = 200         # of each stage
    # By 59 % of the time two thirds of the course are done: its end, at low rates, is what places boxes well.
    knee: tuple[float, float] = (0.5927, 0.675)     # share of the time, share of the course
    short_until: float = 0.09       # before: single pictures only, where the decoder learns alone
    decoder_until: float = 0.20     # before: the decoder alone, from the oracle's tokens
    encoder_until: float = 0.40     # before: the encoder alone
    low_until: float = 0.23         # before: small pictures only, where the encoder learns
    single_until: float = 0.40      # before: single pictures only, where the encoder learns
    main_share: float = 0.35        # afterwards: batches of single pictures of the main size ...
    video_share: float = 0.5        # ... and of videos; the rest are single pictures of other sizes
    long_share: float = 0.6         # of videos: many old frames; the others have a few of any size
    old_frames_learn: float = 0.25  # share of video batches whose old frames teach the encoder too
    dense_weight: float = 1.0
    dense_falls_from: float = 0.6   # the auxiliary loss loses weight from here to the end
    last_dense_weight: float = 0.2
    # An answer of one word has a few tokens, a caption dozens: by number alone the coordinates would decide what is learnt.
    short_answer_weight: float = 3.0
    short_answers_fall_from: float = 0.68   # their tokens count less from here on, at the end as much as any
    oracle_weight: float = 1.0      # of the losses towards the oracle's tokens; falls to nothing while both learn

    def course_at(self, progress: float) -> float:
        """The share of the course done after this share of the time: two straight lines that meet at the knee."""
        time, course = self.knee
        if progress < time:
            return progress / time * course
        return 1 - (1 - min(progress, 1.0)) / (1 - time) * (1 - course)

    def stage(self, progress: float) -> Stage:
        """What learns at a point of the run."""
        course = self.course_at(progress)
        if course < self.decoder_until:
            return 'decoder'
        return 'encoder' if course < self.encoder_until else 'both'

    @property
    def has_oracle(self) -> bool:
        """Whether any part of the run needs an oracle; without, encoder and decoder learn together from the start."""
        return self.encoder_until > 0

    def lr_share(self, stage_step: int, progress: float) -> float:
        """Warm-up by the steps of a stage, cosine by the course."""
        warm = min(1.0, (stage_step + 1) / self.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * self.course_at(progress)))
        return warm * (self.last_lr_share + (1 - self.last_lr_share) * fall)

    def dense_weight_at(self, progress: float) -> float:
        """Weight of the auxiliary loss."""
        done = min(max((self.course_at(progress) - self.dense_falls_from) / (1 - self.dense_falls_from), 0.0), 1.0)
        return self.dense_weight + done * (self.last_dense_weight - self.dense_weight)

    def short_weight_at(self, progress: float) -> float:
        """How much a token of a short answer counts, beside 1 for one of a caption."""
        left = (1 - self.course_at(progress)) / (1 - self.short_answers_fall_from)
        return 1.0 + (self.short_answer_weight - 1.0) * min(max(left, 0.0), 1.0)

    def oracle_weight_at(self, progress: float) -> float:
        """Weight of the losses towards the oracle's tokens."""
        if not self.has_oracle:
            return 0.0
        return self.oracle_weight * min(1.0, max(0.0, (1 - self.course_at(progress)) / (1 - self.encoder_until)))

    def layout(self, rng: random.Random, progress: float) -> tuple[Layout, int]:
        """What the next batch looks like, and how many rows it has."""
        stage, course = self.stage(progress), self.course_at(progress)
        pictures = stage != 'decoder'
        if course >= (self.single_until if pictures else self.short_until) and rng.random() < self.video_share:
            return self._video(rng, pictures=pictures)
        if pictures and course < self.low_until:
            grid = self.low_grid
        elif rng.random() * (1 - self.video_share) < self.main_share:
            grid = self.main_grid
        else:
            grid = rng.choice(SMALL_GRIDS if stage == 'encoder' and rng.random() < 0.3 else OTHER_GRIDS)
        fitting = self.rows * self.main_grid[0] * self.main_grid[1] // (grid[0] * grid[1])
        asks = {'captions': 0, 'questions': 0} if stage == 'encoder' else {'questions': 6}
        return Layout(grids=(grid,), pictures=pictures, **asks), max(self.rows // 2, min(self.rows, fitting))

    def _video(self, rng: random.Random, *, pictures: bool) -> tuple[Layout, int]:
        few = rng.random() >= self.long_share
        sizes = rng.sample(OLD_GRIDS if few else SMALL_GRIDS, 2)    # of old frames: those of one size are encoded together
        old = [rng.choice(sizes) for _ in range(rng.choice(_FEW_FRAMES if few else _MANY_FRAMES) - 1)]
        newest = self.main_grid if rng.random() < 0.6 else rng.choice(OTHER_GRIDS)
        tokens = sum(rows * columns for rows, columns in (*old, newest))
        rows = round(2 * self.rows * self.main_grid[0] * self.main_grid[1] / tokens)
        layout = Layout(grids=(*old, newest), captions=2 if len(old) < 3 else 1, questions=3, time_questions=8,
                        pictures=pictures)
        return layout, max(4, min(self.rows // 2, rows))


def pictures_only(**changes: Any) -> Curriculum:
    """Single pictures of one size, encoder and decoder together from the first step: for short runs and comparisons."""
    return Curriculum(**{'decoder_until': 0.0, 'encoder_until': 0.0, 'low_until': 0.0, 'single_until': 1.0, 'main_share': 1.0,
                         'knee': (0.5, 0.5), **changes})


def small_curriculum() -> Curriculum:
    """Single pictures of 4 x 5 visual tokens, from the first step to the last.

    A small model and a short run want higher rates than the recipe's: of three tried for each optimizer (2, 4 and 8 thousandths
    for Muon; 2, 3.5 and 6 for AdamW), on another seed and 400 steps, these gave the best captions.
    """
    return pictures_only(main_grid=(4, 5), warmup_steps=50, peak_lr=2e-3, peak_matrix_lr=8e-3)


class ClipDeck:
    """Deals clips in random order, as often a round as their frames suffice for; new clips join the next round."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._decks: dict[int, list[int]] = {}

    def deal(self, clips: Sequence[Clip], count: int, *, least_frames: int) -> list[Clip]:
        """``count`` clips of at least that many frames."""
        dealt: list[Clip] = []
        deck = self._decks.setdefault(least_frames, [])
        while len(dealt) < count:
            if not deck:
                deck.extend(index for index, clip in enumerate(clips) for _ in range(len(clip.frames) // least_frames))
                self._rng.shuffle(deck)
            dealt.append(clips[deck.pop()])
        return dealt
