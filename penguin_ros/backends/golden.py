"""Run a golden case on any pair of engines. Knows neither how engines work nor where cases come from or what passes.

A case is the content of one file that reference/penguin_vl.md's golden vectors describe: a written-out prompt
(``input_ids`` with one placeholder per visual token) and the patches of its frames laid end to end (``pixel_values``,
``grid_sizes`` [G, 3] of t, h, w, ``merge_sizes`` [G]); a case of text alone has no frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from penguin_ros.core.engine import LanguageEngine, Piece, VisionEngine, VisualTokens
from penguin_ros.core.errors import EngineError


def frames_of_case(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[np.ndarray, tuple[int, int], int]]:
    """Patches [h*w, 588], grid (h, w) and merge of each frame of a case, in order."""
    if 'pixel_values' not in arrays:
        return
    patches, begin = arrays['pixel_values'], 0
    for (count, rows, columns), merge in zip(arrays['grid_sizes'].tolist(), arrays['merge_sizes'].tolist()):
        for _ in range(count):
            yield patches[begin:begin + rows * columns], (rows, columns), merge
            begin += rows * columns
    if begin != len(patches):
        raise EngineError(f'the grids need {begin} patches and {len(patches)} are there. '
                          'Make grid_sizes and pixel_values agree.')


def split_prompt(input_ids: np.ndarray, image_token_id: int, frames: Sequence[VisualTokens]) -> list[Piece]:
    """A written-out prompt [S] as pieces: each frame takes as many placeholders as it has visual tokens.

    Raises EngineError unless placeholders and visual tokens are equally many.
    """
    needed, given = int((input_ids == image_token_id).sum()), sum(frame.count for frame in frames)
    if needed != given:
        raise EngineError(f'the prompt has {needed} placeholders (id {image_token_id}) and the frames have {given} visual '
                          'tokens. Write one placeholder per visual token of every frame.')
    pieces: list[Piece] = []
    places = np.flatnonzero(input_ids == image_token_id)
    done = taken = 0
    for frame in frames:
        own = places[taken:taken + frame.count]
        if own[-1] - own[0] != frame.count - 1:
            raise EngineError(f'the placeholders of a frame at positions {own[0]} to {own[-1]} are interrupted by text. '
                              'Write the placeholders of a frame one behind the other.')
        pieces += [input_ids[done:own[0]], frame]
        done, taken = own[-1] + 1, taken + frame.count
    return [piece for piece in [*pieces, input_ids[done:]] if not isinstance(piece, np.ndarray) or len(piece)]


def run_case_on_engines(vision_for: Callable[[int], VisionEngine], language: LanguageEngine,
                        arrays: Mapping[str, np.ndarray], *, row_of_tokens: Callable[[VisualTokens], np.ndarray],
                        greedy_steps: int) -> dict[str, np.ndarray]:
    """What the engines make of a case: projector [M, H], logits [S, V], greedy_tokens and greedy_logits [steps, V].

    ``vision_for`` gives the vision engine of a merge size, ``row_of_tokens`` copies visual tokens to the host as float32.
    The greedy continuation appends its tokens one by one to the cache that the prompt was read into.
    """
    frames = [vision_for(merge).encode(patches, grid) for patches, grid, merge in frames_of_case(arrays)]
    input_ids = arrays['input_ids'].reshape(-1)
    length = len(input_ids)
    cache = language.new_cache(1 + length + greedy_steps)
    visible = np.arange(1 + length + greedy_steps) > 0
    logits = language.append(cache, split_prompt(input_ids, language.spec.image_token_id, frames), start=1,
                             positions=np.arange(length), visible=visible[:1], logits_for=range(length))
    made = {'logits': logits}
    if frames:
        made['projector'] = np.concatenate([row_of_tokens(frame) for frame in frames])
    tokens: list[int] = []
    greedy_logits: list[np.ndarray] = []
    last = logits[-1]
    for step in range(greedy_steps):
        tokens.append(int(last.argmax()))
        greedy_logits.append(last)
        row = 1 + length + step
        last = language.append(cache, [np.asarray([tokens[-1]])], start=row, positions=np.asarray([row - 1]),
                               visible=visible[:row], logits_for=[0])[0]
    if greedy_steps:
        made |= {'greedy_tokens': np.asarray(tokens, dtype=np.int64), 'greedy_logits': np.stack(greedy_logits)}
    return made
