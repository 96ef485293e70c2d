"""Quick looks at a model in training: greedy captions of whole batches, answers under teacher forcing.

Knows nothing of engines; the scores that count come from evaluation.py.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from penguin_ros.core.prompt import frame_lead, question_tail, stream_head
from penguin_ros.model.precision import fast_math
from penguin_ros.training import texts
from penguin_ros.training.dataset import Clip, Split
from penguin_ros.training.network import MASKED, TOKEN_PX, Network
from penguin_ros.training.objective import batch_rows
from penguin_ros.training.questions import View, things_of
from penguin_ros.training.rows import Layout, TokenGrid, Words, build_batch, shown
from penguin_ros.training.scores import mean_iou, score_caption, set_f1

MAX_NEW_TOKENS = {'tokens': 96, 'digits': 144}      # the longest caption, and some


@torch.no_grad()
def greedy_answers(network: Network, images: torch.Tensor, questions: Sequence[str], words: Words) -> list[str]:
    """What is said to one question about each of uint8 images [B, H, W, 3] of one size, asked as the stream asks."""
    visual = network.projector(network.encode(images.to(network.embedding.weight.device)))
    tails = [words.ids(question_tail(question)) for question in questions]
    answers = [''] * len(tails)
    for length in {len(tail) for tail in tails}:    # questions of one length go through together
        some = [index for index, tail in enumerate(tails) if len(tail) == length]
        for index, answer in zip(some, _continued(network, visual[some], [tails[index] for index in some], words)):
            answers[index] = answer
    return answers


def _continued(network: Network, visual: torch.Tensor, tails: Sequence[Sequence[int]], words: Words) -> list[str]:
    head = words.ids(stream_head() + frame_lead(1.0, first=True))
    batch = len(tails)

    def embedded(ids: Sequence[Sequence[int]]) -> torch.Tensor:
        return network.embedding(torch.tensor(ids, device=visual.device)).expand(batch, -1, -1).to(visual.dtype)

    prompt = torch.cat([embedded([head]), visual, embedded(tails)], dim=1)
    length = prompt.shape[1]
    causal = torch.full((length, length), MASKED, device=visual.device).triu(1)[None, None]
    rows, past = network.append_rows(prompt, np.arange(length)[None].repeat(batch, 0), causal, None)
    written: list[list[int]] = [[] for _ in range(batch)]
    is_open = np.ones(batch, dtype=bool)
    for step in range(MAX_NEW_TOKENS[words.coordinates]):
        next_ids = network.logits(rows[:, -1]).argmax(dim=-1)
        for index, token in enumerate(next_ids.tolist()):
            is_open[index] &= token != words.end_id
            if is_open[index]:
                written[index].append(token)
        if not is_open.any():
            break
        positions = np.full((batch, 1), length + step)
        rows, past = network.append_rows(network.embedding(next_ids)[:, None].to(visual.dtype), positions, None, past)
    return [words.tokenizer.decode(ids, skip_special_tokens=False) for ids in written]


@torch.no_grad()
def validate(network: Network, split: Split, words: Words, *, scenes: int, grid: TokenGrid = (6, 8),
             seed: int = 0) -> dict[str, float]:
    """F1 and IoU of greedy captions, and exact answers per skill under teacher forcing."""
    was_training = network.training
    network.eval()
    clips = split.clips[:scenes]
    result: dict[str, float] = {}
    with fast_math(network.embedding.weight.device):
        found = []
        for start in range(0, len(clips), 32):
            some = clips[start:start + 32]
            frames = [clip.frames[-1] for clip in some]
            images = torch.from_numpy(np.stack([shown(split.image(frame), grid, False) for frame in frames]))
            for frame, text in zip(frames, greedy_answers(network, images, [texts.CAPTION_INSTRUCTION] * len(some), words)):
                view = View((frame,), (1.0,), grid[0] * TOKEN_PX)
                found.append(score_caption(texts.read_things(text), things_of(view)))
        result |= {'f1': set_f1(found), 'iou': mean_iou(found),
                   'set_exact': float(np.mean([score.exact for score in found]))}
        result |= _answers(network, split, clips, words, (grid,), seed)
        videos = [clip for clip in split.clips if len(clip.frames) >= 3][:48]
        if videos:
            result |= {f'video_{name}': value
                       for name, value in _answers(network, split, videos, words, ((4, 5), (5, 7), grid), seed).items()}
    network.train(was_training)
    return result


def _answers(network: Network, split: Split, clips: Sequence[Clip], words: Words, grids: tuple[TokenGrid, ...],
             seed: int) -> dict[str, float]:
    """Share of answers that are right token by token; the skill is read off the question's row."""
    rng = random.Random(seed)
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(clips), 16):
        batch = build_batch(split, clips[start:start + 16], Layout(grids=grids, questions=5), words, rng, augment=False)
        rows, _ = batch_rows(network, batch)
        correct = (network.logits(rows).argmax(-1).cpu() == batch.targets) | (batch.targets < 0)
        for row, skills in enumerate(batch.skills):
            for skill, first, last in skills:
                right[skill].append(bool(correct[row, first:last].all()))
    return {skill: float(np.mean(values)) for skill, values in sorted(right.items()) if skill != 'caption'}
