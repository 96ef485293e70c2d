"""How much drafts quicken writing: every image of the recording captioned without and with one. Knows nothing of policies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from penguin_ros.bench.footage import Footage, Shot
from penguin_ros.core.decode import Decoded, Limits, decode
from penguin_ros.core.grid import native_grid
from penguin_ros.core.perception import Engines
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.stream import Stream

STILL_PX = 1                # a scene is unchanged where no true box moved by more
MOST_TOKENS = 160


def measure_writing(engines: Engines, footage: Footage, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Captions of all images of one camera, each in a stream of its own, with the image before's caption as draft.

    Times are those of `decode`, the prompt included; without and with draft in turn, so that both see the same machine.
    """
    camera = footage.cameras[0]
    shots = [shot for shot in footage.shots if shot.camera == camera]
    words = engines.words
    prompt = [words.ids(question_tail(engines.dialect.caption_instruction))]
    stream = Stream(engines.language, words, engines.cache_rows)

    def timed(draft: list[int]) -> tuple[Decoded, float]:
        begun_s = time.perf_counter()
        decoded = decode(stream, prompt, end_id=words.end_id, draft=draft, limits=Limits(MOST_TOKENS))
        return decoded, (time.perf_counter() - begun_s) * 1e3

    found: dict[str, list[tuple[Decoded, float, Decoded, float]]] = {'all': [], 'unchanged': []}
    equal = 0
    draft: list[int] = []
    useless = [(number * 37 + 11) % engines.language.spec.vocabulary for number in range(60)]
    useless_ms = plain_ms = 0.0
    for number, shot in enumerate(shots):
        progress('drafts', number, len(shots))
        pixels = shot.pixels()
        grid = native_grid(*pixels.shape[:2], merge=engines.vision.spec.merge)
        stream.clear()
        stream.append_frame(shot.stamp_ns, engines.vision.encode(
            patches_for_grid(pixels, grid, merge=engines.vision.spec.merge), grid), grid, keyframe=True)
        without, without_ms = timed([])
        with_draft, with_ms = timed(draft)
        _, wasted_ms = timed(useless)
        useless_ms, plain_ms = useless_ms + wasted_ms, plain_ms + without_ms
        equal += without.ids == with_draft.ids
        if draft:
            found['all'].append((without, without_ms, with_draft, with_ms))
            if _is_still(shots[number - 1], shot):
                found['unchanged'].append(found['all'][-1])
        draft = list(without.ids)
    progress('drafts', len(shots), len(shots))
    return {'captions': len(shots), 'equal': equal, 'useless_draft_slower': useless_ms / plain_ms - 1,
            **{name: _summed(some) for name, some in found.items()}}


def _is_still(before: Shot, now: Shot) -> bool:
    boxes = [{entry['id']: entry['box'] for entry in shot.truth['objects']} for shot in (before, now)]
    return boxes[0].keys() == boxes[1].keys() and all(
        abs(edge - other) <= STILL_PX for id, box in boxes[0].items() for edge, other in zip(box, boxes[1][id]))


def _summed(some: list[tuple[Decoded, float, Decoded, float]]) -> dict[str, float]:
    if not some:
        return {'captions': 0}
    passes = sum(drafted.passes for _, _, drafted, _ in some)
    return {
        'captions': len(some), 'tokens': sum(len(plain.ids) for plain, _, _, _ in some),
        'plain_passes': sum(plain.passes for plain, _, _, _ in some), 'drafted_passes': passes,
        'accepted_per_pass': sum(drafted.accepted for _, _, drafted, _ in some) / max(1, passes),
        'plain_ms': sum(ms for _, ms, _, _ in some) / len(some), 'drafted_ms': sum(ms for _, _, _, ms in some) / len(some),
        'speedup': sum(ms for _, ms, _, _ in some) / sum(ms for _, _, _, ms in some)}
