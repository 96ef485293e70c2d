"""What visual tokens buy: caption F1 and answers about time, policy by policy and budget by budget. Knows no policy's inside.

Short held-out drives are shown image by image. Judged is the caption in force at every image, and at the end of a drive
the answers about what happened in it. Every policy sees the same images, may look back on a whole drive, and is asked the
same questions; what it spends is what its encoder put out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from penguin_ros.bench.policies import POLICIES, Bench, Policy, Said
from penguin_ros.core.config import PenguinConfig
from penguin_ros.core.frame import Frame
from penguin_ros.core.perception import Engines
from penguin_ros.model.config import PenguinVLConfig
from penguin_ros.training.dataset import Clip, SceneFrame, Split
from penguin_ros.training.evaluation import TIME_QUESTIONS_A_CLIP, thing_of
from penguin_ros.training.judging import judge
from penguin_ros.training.questions import NATIVE_HEIGHT_PX, View, changes_of, sample_time_questions, things_of
from penguin_ros.training.scores import Part, interval, score_caption

CAMERA = 'camera'
COMPARED = ('a', 'c', 'e')          # all frames in full, the published TRA, ours
BUDGETS = (96, 192, 384, 768)       # visual tokens of the window; the first policy has no budget
_FIRST_STAMP_NS = 1_000_000_000     # 0 would look like a missing one

Progress = Callable[[str, int, int], None]


@dataclass
class _Spent:
    """One policy at one budget: what it cost, and per drive what was right."""

    captions: list[Part] = field(default_factory=list)
    answers: list[Part] = field(default_factory=list)
    tokens_encoded: int = 0
    tokens_held: list[float] = field(default_factory=list)


def measure_worth(engines: Engines, model: PenguinVLConfig, split: Split, *, clips: int, budgets: Sequence[int] = BUDGETS,
                  progress: Progress) -> dict[str, Any]:
    """F1 and time questions of each policy in COMPARED at each budget, with what was encoded a minute."""
    drives = [clip for clip in split.clips if len(clip.frames) > 1][:clips]
    minutes = sum(_seconds(clip) for clip in drives) / 60
    points = []
    for name in COMPARED:
        for budget in ((0,) if name == 'a' else budgets):
            label = f'{POLICIES[name][0]}, {f"budget {budget}" if budget else "no budget"}'
            spent = _Spent()
            for done, clip in enumerate(drives):
                progress(label, done, len(drives))
                _drive(POLICIES[name][1](_bench(engines, model, clip, budget)), split, clip, spent)
            progress(label, len(drives), len(drives))
            points.append({
                'policy': name, 'title': POLICIES[name][0], 'budget': budget,
                'tokens_per_minute': round(spent.tokens_encoded / minutes, 1),
                'tokens_held_mean': round(float(np.mean(spent.tokens_held)), 1),
                'scores': {'f1': interval(spent.captions, sum(len(clip.frames) for clip in drives)),
                           'time': interval(spent.answers)}})
    lengths = sorted(len(clip.frames) for clip in drives)
    return {'clips': len(drives), 'frames': f'{lengths[0]} to {lengths[-1]}', 'minutes': round(minutes, 2), 'points': points}


def _seconds(clip: Clip) -> float:
    """Each image stands for the time up to the next."""
    return len(clip.frames) * (clip.frames[1].time_s - clip.frames[0].time_s)


def _bench(engines: Engines, model: PenguinVLConfig, clip: Clip, budget: int) -> Bench:
    """A window as long as the drive, so that nobody forgets for want of frames."""
    config = PenguinConfig(cameras=(CAMERA,))
    config = replace(config, window=replace(config.window, frames=len(clip.frames)), token_budget=replace(
        config.token_budget, window_tokens=budget or config.token_budget.window_tokens))
    return Bench(engines=engines, model=model, config=config, cameras=(CAMERA,))


def _drive(policy: Policy, split: Split, clip: Clip, spent: _Spent) -> None:
    matched = compared = 0
    for frame in clip.frames:
        picture = split.image(frame)
        said = policy.look(Frame(picture, _FIRST_STAMP_NS + round(frame.time_s * 1e9), CAMERA, CAMERA, time.monotonic()))
        score = score_caption(_named(said, picture), things_of(_view_of(frame)))
        matched, compared = matched + 2 * score.matched, compared + score.named + score.true
    spent.captions.append((float(matched), float(compared)))
    times_s = tuple(frame.time_s for frame in clip.frames)
    view = View(clip.frames, times_s, NATIVE_HEIGHT_PX, changes=changes_of(clip, range(len(clip.frames)), times_s))
    turns = sample_time_questions(random.Random(clip.seed), view, TIME_QUESTIONS_A_CLIP)
    spent.answers.append((float(sum(judge(turn, policy.ask(turn.question), times_s).right for turn in turns)),
                          float(len(turns))))
    spent.tokens_encoded += policy.work.tokens_encoded
    spent.tokens_held.append(policy.memory()['tokens_held'])


def _named(said: Said, picture: np.ndarray) -> list[Any]:
    found = [thing_of(phrase, height_px=picture.shape[0], width_px=picture.shape[1]) for phrase in said.phrases]
    return [thing for thing in found if thing is not None]


def _view_of(frame: SceneFrame) -> View:
    return View((frame,), (frame.time_s,), NATIVE_HEIGHT_PX)
