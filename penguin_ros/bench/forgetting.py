"""What dropping frames costs: questions about what changed, and when, with and without the frames in between.

Clips of 6 to 12 images of the split test-video, never trained on. Asked is with everything kept, with the older images thinned
to half, and with the images dropped between the first and the last two; in every case also of a stream read anew from
what was left, to tell what masking in place costs from what is lost with the frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from penguin_ros.core.decode import Limits, decode
from penguin_ros.core.perception import Engines
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.stream import Stream

SPLIT = 'test-video'
_SKILLS = ('change', 'when', 'order', 'passed')
OLD_GRID, NEWEST_GRID = (10, 14), (12, 16)      # patches, as the nano model's evaluation has them
_CASES = ('all kept', 'older frames thinned to half', 'middle frames dropped', 'middle frames never read')


def measure_forgetting(engines: Engines, clips: int, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Share of right answers in each case, over the same questions, by kind of question."""
    from penguin_ros.sim.dataset import render_clip
    from penguin_ros.sim.render import Renderer
    from penguin_ros.training.dataset import clip_from_record
    from penguin_ros.training.questions import View, changes_of, sample_time_questions

    right: dict[str, dict[str, list[bool]]] = {case: {skill: [] for skill in _SKILLS} for case in _CASES}
    with Renderer() as renderer:
        for number in range(clips):
            progress('questions about the past', number, clips)
            record, pictures = render_clip(renderer, SPLIT, number)
            for index, frame in enumerate(record['frames']):
                frame |= {'shard': 0, 'index': index}
            clip = clip_from_record(record, pictures[0].shape[1], pictures[0].shape[0])
            times_s = [frame.time_s for frame in clip.frames]
            view = View(clip.frames, tuple(times_s), NEWEST_GRID[0] * 14,
                        changes=changes_of(clip, range(len(clip.frames)), times_s))
            streams = _streams(engines, pictures, times_s)
            for turn in sample_time_questions(random.Random(number), view, 6):
                for case, stream in streams.items():
                    right[case][turn.skill].append(_is_right(turn, _ask(engines, stream, turn.question)))
    progress('questions about the past', clips, clips)
    return {case: {skill: {'right': float(np.mean(values)) if values else 0.0, 'asked': len(values)}
                   for skill, values in skills.items()} for case, skills in right.items()}


def _streams(engines: Engines, pictures: list[np.ndarray], times_s: list[float]) -> dict[str, Stream]:
    merge = engines.vision.spec.merge
    grids = [OLD_GRID] * (len(pictures) - 1) + [NEWEST_GRID]
    visuals = [engines.vision.encode(patches_for_grid(picture, grid, merge=merge), grid)
               for picture, grid in zip(pictures, grids)]
    middle = range(1, len(pictures) - 2)

    def stream_of(chosen: range | list[int]) -> Stream:
        stream = Stream(engines.language, engines.words, 1 + 64 * len(pictures) + 256)
        for index in chosen:
            stream.append_frame(round((1.0 + times_s[index]) * 1e9), visuals[index], grids[index], keyframe=index == 0)
        return stream

    whole = range(len(pictures))
    streams = {'all kept': stream_of(whole), 'older frames thinned to half': stream_of(whole),
               'middle frames dropped': stream_of(whole),
               'middle frames never read': stream_of([index for index in whole if index not in middle])}
    for frame in streams['older frames thinned to half'].frames[:-1]:
        streams['older frames thinned to half'].thin(frame, frame.tokens // 2)
    dropped = streams['middle frames dropped']
    for frame in [dropped.frames[index] for index in middle]:
        dropped.drop(frame)
    return streams


def _ask(engines: Engines, stream: Stream, question: str) -> str:
    words = engines.words
    decoded = decode(stream, [words.ids(question_tail(question))], end_id=words.end_id, limits=Limits(96))
    return words.text(decoded.ids)


def _is_right(turn: Any, answer: str) -> bool:
    from penguin_ros.training.texts import read_things

    if turn.skill != 'change':
        return bool(answer == turn.answer)
    named, true = (sorted((thing.kind, thing.colour) for thing in read_things(text)) for text in (answer, turn.answer))
    return named == true
