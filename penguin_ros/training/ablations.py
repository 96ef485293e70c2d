"""Runs that differ from the recipe in one thing each, on a model small enough to afford several seeds of all of them.

All runs have the same number of steps, and runs of one seed start from the same random weights and see the same pictures and
questions in the same order, so that they compare in pairs. Knows nothing of how the figures are compared (comparison.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penguin_ros.core.errors import ConfigError
from penguin_ros.core.pixels import resize
from penguin_ros.model.precision import fast_math
from penguin_ros.training import texts
from penguin_ros.training.curriculum import Curriculum, small_curriculum
from penguin_ros.training.dataset import Clip, SceneFrame, Split, open_split
from penguin_ros.training.judging import judge
from penguin_ros.training.nano import NanoRun, Trainer
from penguin_ros.training.network import SMALL_TOWER, TOKEN_PX, TowerShape
from penguin_ros.training.objective import step_loss
from penguin_ros.training.questions import (
    Asker,
    View,
    colour_turn,
    count_turn,
    region_turn,
    things_of,
    where_turn,
)
from penguin_ros.training.rows import Layout, build_batch, shown
from penguin_ros.training.scores import mean_iou, score_caption, set_f1
from penguin_ros.training.teacher import WarmUp
from penguin_ros.training.validation import greedy_answers

BASE = 'base'
VARIANTS = {
    BASE: 'random weights, auxiliary dense loss, one token per coordinate, Muon beside AdamW',
    'llm-start': 'the encoder starts as a text model that has learnt captions and questions',
    'teacher': 'warm-up on a teacher: amplitude, direction and relation losses',
    'teacher-no-relation': 'warm-up on a teacher: amplitude and direction losses only',
    'no-dense': 'without the auxiliary dense loss',
    'teacher-no-dense': 'warm-up on a teacher instead of the auxiliary dense loss',
    'digits': 'three digit tokens per coordinate instead of one token',
    'adamw': 'AdamW for everything',
}
COMPARED = (
    *((name, BASE) for name in VARIANTS if name != BASE), ('teacher', 'teacher-no-relation'), ('teacher-no-dense', 'no-dense'))
ASKERS: tuple[Asker, ...] = (region_turn, colour_turn, where_turn, count_turn)
ADAMW_PEAK_LR = 3.5e-3
_BATCH = 64
Result = dict[str, Any]
Report = Callable[[str, int, int, dict[str, float]], None]     # variant, seed, step, figures


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs share, and how long they are."""

    data: Path                  # with train/, valid/ and test/
    out: Path
    teacher: Path
    steps: int = 600
    seeds: tuple[int, ...] = (1, 2, 3)
    warm_up_share: float = 1 / 3    # of the steps, for the variants with a teacher
    text_steps: int = 400           # of the text model an encoder may start as
    looks: int = 6                  # how often captions of a few scenes are scored on the way
    look_scenes: int = 96
    scenes: int = 400               # scored at the end
    tower: TowerShape = SMALL_TOWER
    curriculum: Curriculum = field(default_factory=small_curriculum)

    def __post_init__(self) -> None:
        if not 0 < self.looks <= self.steps or not self.seeds or self.scenes < 1:
            raise ConfigError(f'{self.steps} steps, {self.looks} looks, {len(self.seeds)} seeds and {self.scenes} scenes were '
                              'asked for; each must be at least 1, and steps at least as many as looks.')

    def run(self, variant: str, seed: int) -> NanoRun:
        """The recipe with this variant's one change."""
        base = NanoRun(data=self.data, out=self.out, seed=seed, max_steps=self.steps, tower=self.tower,
                       curriculum=self.curriculum, compile_blocks=False)
        warm_up = WarmUp(teacher=self.teacher, steps=max(1, round(self.warm_up_share * self.steps)))
        no_dense = replace(self.curriculum, dense_weight=0.0, last_dense_weight=0.0)
        changes: dict[str, dict[str, Any]] = {
            BASE: {},
            'llm-start': {'llm_start_steps': self.text_steps},
            'teacher': {'warm_up': warm_up},
            'teacher-no-relation': {'warm_up': replace(warm_up, relation=False)},
            'no-dense': {'curriculum': no_dense},
            'teacher-no-dense': {'curriculum': no_dense, 'warm_up': warm_up},
            'digits': {'coordinates': 'digits'},
            'adamw': {'muon': False, 'curriculum': replace(self.curriculum, peak_lr=ADAMW_PEAK_LR)}}
        return replace(base, **changes[variant])


def run_study(study: Study, variants: Sequence[str], report: Report) -> list[Result]:
    """Every variant with every seed, seed by seed; finished runs are read from ``out``/runs instead of made again."""
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        raise ConfigError(f'there is no ablation named {", ".join(unknown)}. Choose from {", ".join(VARIANTS)}.')
    height_px, width_px = (side * TOKEN_PX for side in study.curriculum.main_grid)
    train, valid, test = (_SmallPictures(open_split(study.data / name), height_px, width_px)
                          for name in ('train', 'valid', 'test'))
    singles = [clip for clip in test.clips if len(clip.frames) == 1][:study.scenes]
    if len(singles) < study.scenes:
        raise ConfigError(f'{study.data / "test"} holds {len(singles)} single pictures, {study.scenes} were to be scored. '
                          'Score fewer, or give another data folder, to have them rendered.')
    teacher_sha256 = hashlib.sha256((study.teacher / 'model.safetensors').read_bytes()).hexdigest()
    results = []
    for seed in study.seeds:
        for variant in variants:
            path = study.out / 'runs' / f'{variant}-{seed}.json'
            settings = _settings(study, variant, seed, len(train.clips), teacher_sha256)
            found = _finished(path, settings)
            if found is None:
                found = {'variant': variant, 'seed': seed, 'settings': settings,
                         **_run(study, variant, seed, train, valid, test, singles, report)}
                _write_json(path, found)
            results.append(found)
    return results


def _settings(study: Study, variant: str, seed: int, train_clips: int, teacher_sha256: str) -> dict[str, Any]:
    """Everything that decides a run's figures, as JSON gives it back; the teacher by its weights, not by its place."""
    run = asdict(study.run(variant, seed))
    for name in ('data', 'out', 'minutes', 'look_every_s', 'look_scenes', 'line_every_s', 'compile_blocks'):
        del run[name]
    if run['warm_up']:
        run['warm_up']['teacher'] = teacher_sha256
    shared = {name: getattr(study, name) for name in ('scenes', 'looks', 'look_scenes')}
    return json.loads(json.dumps({**run, **shared, 'train_clips': train_clips}))    # type: ignore[no-any-return]


def _finished(path: Path, settings: dict[str, Any]) -> Result | None:
    if not path.exists():
        return None
    found: Result = json.loads(path.read_text(encoding='utf-8'))
    if found['settings'] != settings:
        different = sorted(name for name in settings if found['settings'].get(name) != settings[name])
        raise ConfigError(f'{path} is of a run with other {", ".join(different)}. Give another --out, or delete it to have the '
                          'run made again.')
    return found


def _run(study: Study, variant: str, seed: int, train: Split, valid: Split, test: Split, singles: Sequence[Clip],
         report: Report) -> Result:
    begun_s = time.process_time()
    run = study.run(variant, seed)
    trainer = Trainer(run)
    if run.llm_start_steps:
        trainer.start_from_text(train.clips)
    start_s = time.process_time() - begun_s
    deck = trainer.deck()
    look_clips = valid.clips[:study.look_scenes]
    look_steps = {round(study.steps * (look + 1) / study.looks) for look in range(study.looks)}
    curve: list[dict[str, float]] = []
    losses: list[tuple[float, float]] = []
    for step in range(1, study.steps + 1):
        loss = trainer.train_step(trainer.draw(train, deck))
        losses.append((loss.answer, loss.dense))
        if step in look_steps:
            answer, dense = np.mean(losses, axis=0)
            look = {'answer_loss': float(answer), 'dense_loss': float(dense), **_said(trainer, valid, look_clips, ())}
            curve.append({'step': step, **look})
            losses.clear()
            report(variant, seed, step, look)
    train_s = time.process_time() - begun_s - start_s
    scores = {**_said(trainer, test, singles, ASKERS), **_held_out_losses(trainer, test, singles)}
    report(variant, seed, step, scores)
    return {'scores': scores, 'curve': curve, 'start_cpu_s': round(start_s, 1), 'train_cpu_s': round(train_s, 1),
            'cpu_s': round(time.process_time() - begun_s, 1), 'torch': torch.__version__,
            'parameters': sum(p.numel() for p in trainer.network.parameters())}


def _said(trainer: Trainer, split: Split, clips: Sequence[Clip], askers: Sequence[Asker]) -> dict[str, float]:
    """F1 and IoU of greedy captions, and how often answers to the askers' questions are right, as an engine is judged."""
    grid, words = trainer.run.curriculum.main_grid, trainer.words
    captions = []
    figures: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(clips), _BATCH):
        some = clips[start:start + _BATCH]
        images = torch.from_numpy(np.stack([shown(split.image(clip.frames[-1]), grid, False) for clip in some]))
        views = [View((clip.frames[-1],), (1.0,), grid[0] * TOKEN_PX, coordinates=words.coordinates) for clip in some]
        with fast_math(trainer.device):
            said = greedy_answers(trainer.network, images, [texts.CAPTION_INSTRUCTION] * len(some), words)
            captions += [score_caption(texts.read_things(text), things_of(view)) for text, view in zip(said, views)]
            for ask in askers:
                turns = [ask(random.Random(clip.seed), view) for clip, view in zip(some, views)]
                asked = [index for index, turn in enumerate(turns) if turn]
                if not asked:
                    continue
                asked_turns = [turn for turn in turns if turn]
                answers = greedy_answers(trainer.network, images[asked], [turn.question for turn in asked_turns], words)
                for turn, answer in zip(asked_turns, answers):
                    for name, value in judge(turn, answer).figures.items():
                        figures[name].append(value)
    return {'f1': set_f1(captions), 'iou': mean_iou(captions), **{name: float(np.mean(some)) for name, some in figures.items()}}


@torch.no_grad()
def _held_out_losses(trainer: Trainer, split: Split, clips: Sequence[Clip]) -> dict[str, float]:
    rng, layout = random.Random(0), Layout(grids=(trainer.run.curriculum.main_grid,))
    losses = []
    for start in range(0, len(clips), _BATCH):
        batch = build_batch(split, clips[start:start + _BATCH], layout, trainer.words, rng, augment=False)
        loss = step_loss(trainer.network, trainer.head, batch, weights=trainer.weights, dense_weight=1.0)
        losses.append((loss.answer, loss.dense))
    answer, dense = np.mean(losses, axis=0)
    found = {'answer_loss': float(answer)}
    # A head that was never trained says nothing about what the encoder knows.
    return {**found, 'dense_loss': float(dense)} if trainer.run.curriculum.dense_weight else found


class _SmallPictures(Split):
    """A split whose pictures are resized once and kept: every run sees them in the same one size."""

    def __init__(self, split: Split, height_px: int, width_px: int) -> None:
        super().__init__(split.folders, split.clips)
        self._whole, self._size_px = split, (height_px, width_px)
        self._small: dict[tuple[int, int], np.ndarray] = {}

    def image(self, frame: SceneFrame) -> np.ndarray:
        key = (frame.shard, frame.index)
        if key not in self._small:
            self._small[key] = resize(self._whole.image(frame), *self._size_px)
        return self._small[key]


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix('.part')
    unfinished.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    os.replace(unfinished, path)
