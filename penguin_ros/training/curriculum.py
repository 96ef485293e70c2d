"""Which clips, sizes and learning rate come when. Knows nothing of the model or of how rows are built.

As in Penguin-VL's stages (reference/penguin_vl.md 7.2): low resolution first, then higher, single pictures; then every size,
pictures and short videos mixed. All by time spent, so that the same recipe fits any number of minutes. A second run goes on
from the first one's weights (`going_on`): more videos, and many questions about each. In a third the decoder has grown
(`going_deeper`), and what it should remember is asked for at every frame. A fourth (`looking_back`) shows it where answers
can be read off, in clips in which every frame is as likely to be the one. A fifth (`looking_closer`) asks more about what
changed, of clips shown backwards too. A sixth (`measuring`) asks how far and how high.
`at_once` is all of that in one run from random weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from penguin_ros.core.errors import RecordingError
from penguin_ros.training.dataset import Clip
from penguin_ros.training.montage import MOST_SCENES, montage
from penguin_ros.training.rows import Layout, TokenGrid

LOW_GRID: TokenGrid = (4, 6)
MAIN_GRID: TokenGrid = (6, 8)
# Rows and columns of visual tokens the token budget gives a 320x240 camera, and some for wider pictures.
OTHER_GRIDS: tuple[TokenGrid, ...] = (
    (4, 5), (4, 6), (5, 6), (5, 7), (6, 7), (6, 9), (7, 8), (7, 9), (7, 10), (8, 10), (8, 11), (8, 11), (4, 7), (5, 9))
OLD_GRIDS: tuple[TokenGrid, ...] = ((3, 4), (4, 4), (4, 5), (4, 5), (4, 6), (5, 6), (5, 7), (6, 8))
SMALL_GRIDS: tuple[TokenGrid, ...] = ((2, 3), (3, 4), (3, 4), (3, 5), (4, 5))
# Of 320x240 images as `penguin eval` and a node with room to spare show them: all of a video's old frames in one or two sizes.
PLAIN_GRIDS: tuple[TokenGrid, ...] = ((3, 4), (3, 5), (4, 4), (4, 5), (5, 6), (5, 7), (5, 7))
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
    small_grids: tuple[TokenGrid, ...] = SMALL_GRIDS
    sizes_a_video: int = 0          # most different sizes of old frames in one video; 0: any
    montage_share: float = 0.0      # of videos: cut together from several scenes (montage.py) ...
    last_montage_share: float = 0.0     # ... and how many at the end
    backwards_share: float = 0.0    # of the other videos' clips: shown from their last frame to the first
    video_size: float = 1.5         # visual tokens of a batch of videos, in batches of the main size
    questions: int = 3              # about a single picture
    video_questions: int = 2        # about the newest frame of a video ...
    time_questions: int = 3         # ... and about all of them ...
    change_weight: float = 1.0      # ... of which so many times as many as otherwise ask what changed
    old_frames_learn: float = 1.0   # share of video batches whose old frames teach the encoder too
    # An answer of one word has a few tokens, a caption dozens: by number alone the coordinates decide what is learnt.
    short_answer_weight: float = 1.0
    short_answers_fall_from: float = 0.4    # their tokens count less from here on, at the end as much as any
    dense_weight: float = 1.0
    dense_falls_from: float = 0.6   # the auxiliary loss loses weight from here to the end
    last_dense_weight: float = 0.2
    dense_distance: bool = False    # whether it asks how far away things and the floor are
    memory_weight: float = 0.0      # of what the decoder should know at each frame (memory.py); a quarter at the end
    pointer_weight: float = 0.0     # of where answers should look (objective.py); a quarter at the end
    sees_until: float = 0.0         # before: the encoder alone, by the dense loss
    heads_alone_steps: int = 0      # for so many steps the auxiliary losses teach their heads only

    def lr_share(self, step: int, progress: float) -> float:
        """Warm-up by steps, cosine by progress (0 at the start, 1 at the end)."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        return warm * (self.last_lr_share + (1 - self.last_lr_share) * fall)

    def dense_weight_at(self, progress: float) -> float:
        return self.dense_weight + self._fallen(progress) * (self.last_dense_weight - self.dense_weight)

    def memory_weight_at(self, progress: float) -> float:
        return self.memory_weight * (1.0 - 0.75 * self._fallen(progress))

    def pointer_weight_at(self, progress: float) -> float:
        return self.pointer_weight * (1.0 - 0.75 * self._fallen(progress))

    def _fallen(self, progress: float) -> float:
        return min(max((progress - self.dense_falls_from) / (1 - self.dense_falls_from), 0.0), 1.0)

    def short_weight_at(self, progress: float) -> float:
        """How much a token of a short answer counts, beside 1 for one of a caption."""
        left = (1 - progress) / (1 - self.short_answers_fall_from)
        return 1.0 + (self.short_answer_weight - 1.0) * min(max(left, 0.0), 1.0)

    def layout(self, rng: random.Random, progress: float) -> tuple[Layout, int]:
        """What the next batch looks like, and how many rows it has."""
        if progress < self.low_until:
            return Layout(grids=(self.low_grid,), questions=self.questions), self.rows
        choice = rng.random()
        if progress < self.single_until or choice < self.main_share:
            return Layout(grids=(self.main_grid,), questions=self.questions), self.rows
        if choice < self.main_share + self.video_share:
            return self._video(rng, self.montage_share + progress * (self.last_montage_share - self.montage_share))
        grid = rng.choice(OTHER_GRIDS)
        fitting = self.rows * self.main_grid[0] * self.main_grid[1] // (grid[0] * grid[1])
        return Layout(grids=(grid,), questions=self.questions), max(self.rows // 2, min(self.rows, fitting))

    def _video(self, rng: random.Random, montage_share: float) -> tuple[Layout, int]:
        sizes, counts = (self.small_grids, _MANY_FRAMES) if rng.random() < self.long_share else (OLD_GRIDS, _FEW_FRAMES)
        if self.sizes_a_video:
            sizes = tuple(rng.sample(sizes, self.sizes_a_video))
        old = [rng.choice(sizes) for _ in range(rng.choice(counts) - 1)]
        newest = self.main_grid if rng.random() < 0.6 else rng.choice(OTHER_GRIDS)
        tokens = sum(rows * columns for rows, columns in (*old, newest))
        rows = round(self.video_size * self.rows * self.main_grid[0] * self.main_grid[1] / tokens)
        layout = Layout(grids=(*old, newest), captions=2 if len(old) < 3 else 1, questions=self.video_questions,
                        time_questions=self.time_questions, change_weight=self.change_weight,
                        is_montage=rng.random() < montage_share)
        return layout, max(4, min(self.rows // 2, rows))


def going_on() -> Curriculum:
    """For a run that starts from a trained model's weights: lower rates, more videos and questions, older frames seldom taught.

    Without the dense loss: its head was dropped, and what a new one does not know yet would be held against the encoder.
    """
    return Curriculum(
        low_until=0.0, single_until=0.0, main_share=0.35, video_share=0.5, long_share=0.6, small_grids=PLAIN_GRIDS,
        sizes_a_video=2, video_size=2.0, questions=6, video_questions=3, time_questions=8, old_frames_learn=0.25,
        short_answer_weight=3.0, peak_lr=4e-4, peak_matrix_lr=8e-4, warmup_steps=100, dense_weight=0.0, last_dense_weight=0.0)


def going_deeper() -> Curriculum:
    """As going_on, for a decoder that has grown: what it should know at each frame is asked for too (memory.py).

    The heads of the auxiliary losses are new, so they learn alone for a while.
    """
    return replace(going_on(), warmup_steps=150, heads_alone_steps=150, memory_weight=0.1, dense_weight=0.2,
                   last_dense_weight=0.1, dense_distance=True, dense_falls_from=0.5)


def looking_back() -> Curriculum:
    """As going_deeper, and the decoder is shown where each answer can be read off (objective.py); many videos are montages.

    Higher rates: a way of looking that three runs did not find is no small change to the weights.
    """
    return replace(going_deeper(), rows=24, main_share=0.38, old_frames_learn=0.35, montage_share=0.6, last_montage_share=0.2,
                   short_answer_weight=2.0, peak_lr=6e-4, peak_matrix_lr=1.2e-3, dense_weight=0.3, last_dense_weight=0.15,
                   pointer_weight=0.3)


def looking_closer() -> Curriculum:
    """As looking_back, with more questions about what changed, and clips that are shown backwards too; fewer montages, in which
    nothing moves."""
    return replace(looking_back(), main_share=0.34, video_share=0.54, montage_share=0.3, last_montage_share=0.15,
                   backwards_share=0.4, change_weight=2.0, short_answer_weight=3.0, peak_lr=5e-4, peak_matrix_lr=1e-3,
                   memory_weight=0.12)


def measuring() -> Curriculum:
    """As looking_closer, with more single pictures, of which the path is asked most; distances count more, to the end."""
    return replace(looking_closer(), main_share=0.44, video_share=0.46, montage_share=0.15, last_montage_share=0.05,
                   dense_weight=0.4, last_dense_weight=0.25)


def at_once() -> Curriculum:
    """What the six runs ask for from the first step of one; the decoder needs six layers from its first step, too.

    At first the encoder learns alone, at three times the steps a second: the decoder has nothing to read before there is
    something to see.
    """
    return Curriculum(
        rows=20, low_until=0.03, sees_until=0.10, single_until=0.15, main_share=0.42, video_share=0.47, long_share=0.6,
        small_grids=PLAIN_GRIDS, sizes_a_video=2, video_size=1.6, montage_share=0.6, last_montage_share=0.05,
        backwards_share=0.35, questions=6, video_questions=3, time_questions=8, change_weight=2.0, old_frames_learn=0.4,
        short_answer_weight=2.5, dense_weight=1.0, last_dense_weight=0.25, dense_falls_from=0.5, dense_distance=True,
        memory_weight=0.12, pointer_weight=0.3)


def pictures_only(**changes: Any) -> Curriculum:
    """Single pictures of one size from the first step to the last: for short runs and comparisons."""
    return Curriculum(**{'low_until': 0.0, 'single_until': 1.0, **changes})


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
        """``count`` clips of at least that many frames; raises RecordingError where there are none."""
        dealt: list[Clip] = []
        deck = self._decks.setdefault(least_frames, [])
        while len(dealt) < count:
            if not deck:
                deck.extend(index for index, clip in enumerate(clips) for _ in range(len(clip.frames) // least_frames))
                self._rng.shuffle(deck)
            if not deck:
                raise RecordingError(f'none of {len(clips)} clips holds {least_frames} frames. Render some: '
                                     'penguin sim dataset --split train-video, or let penguin train do it.')
            dealt.append(clips[deck.pop()])
        return dealt

    def montages(self, clips: Sequence[Clip], count: int, *, frames: int) -> list[Clip]:
        """``count`` clips of that many frames (two or more), each cut together from as many scenes as it happens."""
        return [montage(self.deal(clips, self._rng.randint(2, min(frames, MOST_SCENES)), least_frames=1), frames, self._rng)
                for _ in range(count)]
