"""How well an engine sees: held-out scenes through the same stream and decoder the node uses. Knows nothing of backends.

Single pictures are asked for a caption and for every skill once; clips are read frame by frame, older frames coarser,
then asked what changed and when. Scenes, questions and intervals are the same on every run.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penguin_ros.core.decode import Limits, decode
from penguin_ros.core.grid import Grid
from penguin_ros.core.perception import Engines
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.stream import Stream
from penguin_ros.training import texts
from penguin_ros.training.dataset import Clip, Split
from penguin_ros.training.questions import (
    Asker,
    Turn,
    View,
    change_turn,
    changes_of,
    colour_turn,
    count_turn,
    path_turn,
    presence_turn,
    region_colour_turn,
    region_turn,
    sign_turn,
    things_of,
    where_turn,
)
from penguin_ros.training.scores import CaptionScore, box_iou, mean_iou, score_caption, set_f1

ASKERS: tuple[Asker, ...] = (
    region_turn, region_colour_turn, where_turn, presence_turn, colour_turn, count_turn, path_turn, sign_turn)
OLD_TOKEN_GRID = (5, 7)
TOKEN_PX = 28
MAX_NEW_TOKENS = 128
RESAMPLES = 1000
Progress = Callable[[int, int], None]


@dataclass
class _Tally:
    """What was found, scene by scene, so that intervals can be drawn over scenes."""

    captions: list[CaptionScore] = field(default_factory=list)
    video_captions: list[CaptionScore] = field(default_factory=list)
    skills: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    right_answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    caption_ms: list[float] = field(default_factory=list)
    caption_tokens: list[int] = field(default_factory=list)


class _Asker:
    """One stream of the engine under test."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self.stream = Stream(engines.language, engines.words, engines.cache_rows)

    def show(self, picture: np.ndarray, token_grid: tuple[int, int], stamp_s: float) -> None:
        merge = self.engines.vision.spec.merge
        grid: Grid = (token_grid[0] * merge, token_grid[1] * merge)
        visual = self.engines.vision.encode(patches_for_grid(picture, grid, merge=merge), grid)
        self.stream.append_frame(round(stamp_s * 1e9), visual, grid, keyframe=True)

    def ask(self, question: str) -> tuple[str, int]:
        """The answer, and how many tokens it took."""
        words = self.engines.words
        decoded = decode(self.stream, [words.ids(question_tail(question))], end_id=words.end_id,
                         limits=Limits(max_new_tokens=MAX_NEW_TOKENS))
        return words.text(decoded.ids), len(decoded.ids)


def evaluate(engines: Engines, split: Split, *, scenes: int, token_grid: tuple[int, int] = (6, 8), captions_only: bool = False,
             progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Scores over ``scenes`` single pictures and the clips among the same seeds; every figure with its 95 % interval."""
    singles = [clip for clip in split.clips if len(clip.frames) == 1][:scenes]
    last_seed = max((clip.seed for clip in singles), default=-1)
    videos = [] if captions_only else [clip for clip in split.clips if len(clip.frames) > 1 and clip.seed <= last_seed + 1]
    asker, tally = _Asker(engines), _Tally()
    total = len(singles) + len(videos)
    for done, clip in enumerate([*singles, *videos]):
        progress(done, total)
        if len(clip.frames) == 1:
            _picture(asker, split, clip, token_grid, tally, captions_only)
        else:
            _video(asker, split, clip, token_grid, tally)
    progress(total, total)
    return {'model': engines.model_name, 'engine': engines.engine_id, 'pictures': len(singles), 'clips': len(videos),
            'token_grid': f'{token_grid[0]}x{token_grid[1]}', 'scores': _figures(tally),
            'caption_ms_median': round(float(np.median(tally.caption_ms)), 1),
            'caption_tokens_mean': round(float(np.mean(tally.caption_tokens)), 1)}


def _picture(asker: _Asker, split: Split, clip: Clip, token_grid: tuple[int, int], tally: _Tally, captions_only: bool) -> None:
    frame = clip.frames[0]
    begun_s = time.perf_counter()
    asker.stream.clear()
    asker.show(split.image(frame), token_grid, 1.0)
    text, tokens = asker.ask(texts.CAPTION_INSTRUCTION)
    tally.caption_ms.append(1e3 * (time.perf_counter() - begun_s))
    tally.caption_tokens.append(tokens)
    view = View((frame,), (0.0,), token_grid[0] * TOKEN_PX)
    tally.captions.append(score_caption(texts.read_things(text), things_of(view)))
    if not captions_only:
        rng = random.Random(clip.seed)
        for ask in ASKERS:
            turn = ask(rng, view)
            if turn:
                _judge(turn, asker.ask(turn.question)[0], tally)


def _video(asker: _Asker, split: Split, clip: Clip, token_grid: tuple[int, int], tally: _Tally) -> None:
    asker.stream.clear()
    times_s = [frame.time_s for frame in clip.frames]
    for frame in clip.frames:
        asker.show(split.image(frame), token_grid if frame is clip.frames[-1] else OLD_TOKEN_GRID, frame.time_s)
    view = View(clip.frames, tuple(times_s), token_grid[0] * TOKEN_PX)
    text, _ = asker.ask(texts.CAPTION_INSTRUCTION)
    tally.video_captions.append(score_caption(texts.read_things(text), things_of(view)))
    changes = changes_of(clip, range(len(clip.frames)), times_s)
    if changes is None:
        return
    view = View(view.frames, view.times_s, view.shown_height_px, changes=changes)
    rng = random.Random(clip.seed)
    turns = {turn.question: turn for turn in (change_turn(rng, view) for _ in range(6)) if turn}
    for turn in list(turns.values())[:3]:
        _judge(turn, asker.ask(turn.question)[0], tally)


def _judge(turn: Turn, answer: str, tally: _Tally) -> None:
    if turn.skill not in ('where', 'sign', 'region'):
        tally.right_answers[turn.skill].append(turn.answer)
    if turn.skill == 'where':
        true, named = texts.read_things(turn.answer), texts.read_things(answer)
        if not true:
            tally.skills['where_absent'].append(float(not named))
            return
        best = [max((box_iou(one.box, other.box) for other in named if one.box and other.box), default=0.0) for one in true]
        tally.skills['where_iou'].append(float(np.mean(best)))
    elif turn.skill == 'change':
        names = [sorted((thing.kind, thing.colour) for thing in texts.read_things(text)) for text in (turn.answer, answer)]
        tally.skills['change'].append(float(names[0] == names[1]))
    elif turn.skill == 'sign':
        tally.skills['sign_absent' if turn.answer == texts.NO_SIGN else 'digit'].append(float(answer == turn.answer))
    elif turn.skill == 'region':
        names = [[(thing.kind, thing.colour) for thing in texts.read_things(text)] for text in (turn.answer, answer)]
        tally.skills['region'].append(float(names[0] == names[1]))
    else:
        tally.skills[turn.skill].append(float(answer == turn.answer))


def _figures(tally: _Tally) -> dict[str, dict[str, float]]:
    figures = {}
    for prefix, captions in (('', tally.captions), ('video_', tally.video_captions)):
        if captions:
            figures[f'{prefix}f1'] = _interval(captions, set_f1)
            figures[f'{prefix}iou'] = _interval(captions, mean_iou)
            figures[f'{prefix}set_exact'] = _interval(captions, lambda some: float(np.mean([one.exact for one in some])))
    for skill, values in sorted(tally.skills.items()):
        figures[skill] = _interval(values, lambda some: float(np.mean(some)))
        if skill in tally.right_answers:    # what always saying the same would score
            commonest = Counter(tally.right_answers[skill]).most_common(1)[0][1]
            figures[skill]['same_answer'] = round(commonest / len(values), 4)
    return figures


def _interval(items: Sequence[Any], figure: Callable[[Sequence[Any]], float]) -> dict[str, float]:
    """A figure with its 95 % bootstrap interval over scenes."""
    rng = np.random.default_rng(0)
    resampled = [figure([items[index] for index in rng.integers(0, len(items), len(items))]) for _ in range(RESAMPLES)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {'value': round(figure(items), 4), 'low': round(float(low), 4), 'high': round(float(high), 4), 'count': len(items)}


_LABELS = {
    'f1': 'kind+colour set F1', 'iou': 'mean IoU of matched boxes', 'set_exact': 'exact set of things',
    'video_f1': 'F1, newest frame of a clip', 'video_iou': 'IoU, newest frame of a clip',
    'video_set_exact': 'exact set, newest frame of a clip', 'region': 'what is in a region',
    'region_colour': 'colour of what is in a region', 'where_iou': 'where is X: IoU', 'where_absent': 'where is X: not there',
    'presence': 'is there an X', 'colour': 'colour of the X', 'count': 'how many', 'path': 'is the path clear',
    'digit': 'digit on a sign (at least 20 px)', 'sign_absent': 'no sign there', 'change': 'what appeared, left, moved',
    'when': 'when did X appear or leave'}


def markdown_table(result: dict[str, Any]) -> str:
    """The scores as a Markdown table."""
    lines = [f'{result["model"]}, {result["pictures"]} held-out pictures and {result["clips"]} clips, '
             f'{result["token_grid"]} visual tokens a picture:', '',
             '| what | score | 95 % interval | asked | always the same answer |', '| --- | --- | --- | --- | --- |']
    for name, label in _LABELS.items():
        score = result['scores'].get(name)
        if score:
            same = f'{score["same_answer"]:.3f}' if 'same_answer' in score else ''
            lines.append(f'| {label} | {score["value"]:.3f} | {score["low"]:.3f} to {score["high"]:.3f} | {score["count"]} | '
                         f'{same} |')
    return '\n'.join(lines) + '\n'
