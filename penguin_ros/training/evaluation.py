"""How well an engine sees: held-out scenes through the same stream and decoder the node uses. Knows nothing of backends.

Single pictures are asked for a caption and for every skill once; clips are read frame by frame, older frames a little
coarser, then asked what happened and when. Questions whose answers can be listed are asked once more as a choice.
Scenes, questions and intervals are the same on every run.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penguin_ros.core.decode import Decoded, Limits, choice_probabilities, decode
from penguin_ros.core.grid import Grid
from penguin_ros.core.grounding import ground
from penguin_ros.core.perception import Engines
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.scene import GroundedPhrase
from penguin_ros.core.stream import Stream
from penguin_ros.training import texts
from penguin_ros.training.dataset import Clip, Split
from penguin_ros.training.judging import choices_of, judge
from penguin_ros.training.questions import (
    Asker,
    Turn,
    View,
    changes_of,
    colour_turn,
    count_turn,
    path_turn,
    presence_turn,
    region_colour_turn,
    region_turn,
    sample_time_questions,
    sign_turn,
    things_of,
    where_turn,
)
from penguin_ros.training.reliability import Statements, reliability
from penguin_ros.training.scores import CaptionScore, Part, f1_parts, interval, right_phrases, score_caption
from penguin_ros.training.texts import Thing

ASKERS: tuple[Asker, ...] = (
    region_turn, region_colour_turn, where_turn, presence_turn, colour_turn, count_turn, path_turn, sign_turn)
TIME_QUESTIONS_A_CLIP = 4
TOKEN_PX = 28
MAX_NEW_TOKENS = 128
Progress = Callable[[int, int], None]
TokenGrid = tuple[int, int]         # rows and columns of visual tokens


@dataclass(frozen=True)
class Scenes:
    """What is shown: single pictures, and clips of several frames."""

    pictures: tuple[tuple[Split, Clip], ...]
    clips: tuple[tuple[Split, Clip], ...]

    def __len__(self) -> int:
        return len(self.pictures) + len(self.clips)


def choose_scenes(pictures: Split, videos: Split | None, *, scenes: int, clips: int) -> Scenes:
    """The first ``scenes`` single pictures of one split and the first ``clips`` clips of another."""
    return Scenes(
        tuple((pictures, clip) for clip in pictures.clips if len(clip.frames) == 1)[:scenes],
        tuple((videos, clip) for clip in videos.clips if len(clip.frames) > 1)[:clips] if videos and clips else ())


@dataclass
class Findings:
    """What was found, scene by scene, so that intervals can be drawn over scenes."""

    captions: list[CaptionScore] = field(default_factory=list)
    video_captions: list[CaptionScore] = field(default_factory=list)
    answers: dict[str, list[Part]] = field(default_factory=lambda: defaultdict(list))   # per figure and scene: right, asked
    right_answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    statements: Statements = field(default_factory=Statements)
    caption_ms: list[float] = field(default_factory=list)
    caption_tokens: list[int] = field(default_factory=list)
    clip_tokens: list[int] = field(default_factory=list)    # visual tokens held of a clip when it is asked about


class Interview:
    """One stream of the engine under test."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self.stream = Stream(engines.language, engines.words, engines.cache_rows)
        self._limits = Limits(max_new_tokens=MAX_NEW_TOKENS)

    def show(self, picture: np.ndarray, token_grid: TokenGrid, stamp_s: float) -> None:
        merge = self.engines.vision.spec.merge
        grid: Grid = (token_grid[0] * merge, token_grid[1] * merge)
        visual = self.engines.vision.encode(patches_for_grid(picture, grid, merge=merge), grid)
        self.stream.append_frame(round(stamp_s * 1e9), visual, grid, keyframe=True)

    def ask(self, question: str) -> tuple[str, Decoded]:
        """The answer as written, and how it came about."""
        words = self.engines.words
        decoded = decode(self.stream, [words.ids(question_tail(question))], end_id=words.end_id, limits=self._limits,
                         coordinates=self.engines.coordinates)
        return self.engines.written(decoded)[0], decoded

    def choose(self, question: str, choices: Sequence[str]) -> np.ndarray:
        """How likely each choice is, before any scale."""
        words = self.engines.words
        return choice_probabilities(self.stream, [words.ids(question_tail(question))],
                                    [words.ids(choice) for choice in choices], end_id=words.end_id, limits=self._limits)

    def phrases(self, decoded: Decoded, picture: np.ndarray) -> list[tuple[Thing, float]]:
        """The things a caption ties to boxes, each with its confidence before any scale."""
        raw, ends = self.engines.written(decoded)
        height_px, width_px = picture.shape[:2]
        grounded = ground(raw, ends=ends, probabilities=decoded.probabilities, height_px=height_px, width_px=width_px)
        return [(thing, phrase.confidence) for phrase in grounded.phrases
                if (thing := thing_of(phrase, height_px=height_px, width_px=width_px)) is not None]


def thing_of(phrase: GroundedPhrase, *, height_px: int, width_px: int) -> Thing | None:
    """A phrase of a caption as a thing with its box in fractions of the image; None for words outside of the grammar."""
    named = texts.read_things(phrase.text)
    if not named:
        return None
    region = phrase.region
    box = None if region is None else (region.x_min / width_px, region.y_min / height_px, region.x_max / width_px,
                                       region.y_max / height_px)
    return Thing(named[0].kind, named[0].colour, named[0].digit, box)


# -- asking ------------------------------------------------------------------------------------------------------------

def examine(engines: Engines, scenes: Scenes, *, token_grid: TokenGrid, captions_only: bool = False,
            progress: Progress = lambda done, total: None) -> Findings:
    """Show an engine all scenes and ask."""
    interview, findings = Interview(engines), Findings()
    for done, (split, clip) in enumerate([*scenes.pictures, *scenes.clips]):
        progress(done, len(scenes))
        if len(clip.frames) == 1:
            _picture(interview, split, clip, token_grid, findings, captions_only)
        else:
            _clip(interview, split, clip, token_grid, findings, captions_only)
    progress(len(scenes), len(scenes))
    return findings


def _picture(interview: Interview, split: Split, clip: Clip, token_grid: TokenGrid, findings: Findings,
             captions_only: bool) -> None:
    frame = clip.frames[0]
    picture = split.image(frame)
    begun_s = time.perf_counter()
    interview.stream.clear()
    interview.show(picture, token_grid, 1.0)
    text, decoded = interview.ask(texts.CAPTION_INSTRUCTION)
    findings.caption_ms.append(1e3 * (time.perf_counter() - begun_s))
    findings.caption_tokens.append(len(decoded.ids))
    view = View((frame,), (0.0,), token_grid[0] * TOKEN_PX)
    findings.captions.append(_caption(interview, text, decoded, picture, view, findings))
    if not captions_only:
        rng = random.Random(clip.seed)
        _ask_all(interview, [turn for ask in ASKERS if (turn := ask(rng, view))], view, findings)


def _clip(interview: Interview, split: Split, clip: Clip, token_grid: TokenGrid, findings: Findings,
          captions_only: bool) -> None:
    interview.stream.clear()
    times_s = tuple(frame.time_s for frame in clip.frames)
    for frame in clip.frames:
        interview.show(split.image(frame), token_grid if frame is clip.frames[-1] else older_grid(token_grid), frame.time_s)
    findings.clip_tokens.append(interview.stream.tokens)
    view = View(clip.frames, times_s, token_grid[0] * TOKEN_PX, changes=changes_of(clip, range(len(clip.frames)), times_s))
    text, decoded = interview.ask(texts.CAPTION_INSTRUCTION)
    findings.video_captions.append(_caption(interview, text, decoded, split.image(clip.frames[-1]), view, findings))
    if not captions_only:
        _ask_all(interview, sample_time_questions(random.Random(clip.seed), view, TIME_QUESTIONS_A_CLIP), view, findings)


def older_grid(token_grid: TokenGrid) -> TokenGrid:
    """The size of a clip's older frames: a row and a column less than the newest has."""
    return max(token_grid[0] - 1, 2), max(token_grid[1] - 1, 2)


def _caption(interview: Interview, text: str, decoded: Decoded, picture: np.ndarray, view: View,
             findings: Findings) -> CaptionScore:
    true = things_of(view)
    score = score_caption(texts.read_things(text), true)
    phrases = interview.phrases(decoded, picture)
    means = findings.statements.means
    means['phrase'] += zip((mean for _, mean in phrases), right_phrases([thing for thing, _ in phrases], true))
    means['caption'].append((decoded.confidence, score.exact))
    return score


def _ask_all(interview: Interview, turns: Sequence[Turn], view: View, findings: Findings) -> None:
    """All questions about one scene."""
    sums: dict[str, list[float]] = defaultdict(list)
    for turn in turns:
        answer, decoded = interview.ask(turn.question)
        verdict = judge(turn, answer, view.times_s)
        for name, value in verdict.figures.items():
            sums[name].append(value)
        if turn.skill not in ('where', 'sign', 'region'):
            findings.right_answers[turn.skill].append(turn.answer)
        findings.statements.means['answer'].append((decoded.confidence, verdict.right))
        choices = choices_of(turn)
        if choices:
            found = interview.choose(turn.question, choices)
            findings.statements.choices.append((found, choices.index(turn.answer)))
    for name, values in sums.items():
        findings.answers[name].append((sum(values), float(len(values))))


# -- adding up ---------------------------------------------------------------------------------------------------------

def evaluate(engines: Engines, scenes: Scenes, *, token_grid: TokenGrid = (6, 8), captions_only: bool = False,
             progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Scores of an engine over some scenes, every figure with its 95 % interval, and how far its confidences hold."""
    findings = examine(engines, scenes, token_grid=token_grid, captions_only=captions_only, progress=progress)
    return {'model': engines.model_name, 'engine': engines.engine_id, 'pictures': len(scenes.pictures),
            'clips': len(scenes.clips), 'token_grid': f'{token_grid[0]}x{token_grid[1]}',
            'picture_tokens': token_grid[0] * token_grid[1],
            'clip_tokens_mean': round(float(np.mean(findings.clip_tokens)), 1) if findings.clip_tokens else 0.0,
            'scores': figures(findings), 'reliability': reliability(findings.statements, engines.confidence),
            'caption_ms_median': round(float(np.median(findings.caption_ms)), 1) if findings.caption_ms else 0.0,
            'caption_tokens_mean': round(float(np.mean(findings.caption_tokens)), 1) if findings.caption_tokens else 0.0}


def figures(findings: Findings) -> dict[str, dict[str, float]]:
    """Every score with its interval; of skills also what always giving the commonest answer would score."""
    found = {}
    for prefix, captions in (('', findings.captions), ('video_', findings.video_captions)):
        if captions:
            found[f'{prefix}f1'] = interval([f1_parts(one) for one in captions], len(captions))
            found[f'{prefix}iou'] = interval([(sum(one.ious), float(len(one.ious))) for one in captions], len(captions),
                                              empty=0.0)
            found[f'{prefix}set_exact'] = interval([(float(one.exact), 1.0) for one in captions])
    for name, parts in sorted(findings.answers.items()):
        found[name] = interval(parts)
        answers = findings.right_answers.get(name)
        if answers:
            found[name]['same_answer'] = round(Counter(answers).most_common(1)[0][1] / len(answers), 4)
    return found
