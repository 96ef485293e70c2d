"""How long the steps of a tick take on any pair of engines. Knows nothing of what they should take (roofline.py).

An engine on a GPU gives out a frame's tokens before they are computed, and waits only for logits. So a frame is timed over
several calls with one token at their end, and what the host itself does is what a call takes that asks for no logits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penguin_ros.core.decode import VERIFY_TOKENS
from penguin_ros.core.engine import KVCache, LanguageEngine, VisionEngine
from penguin_ros.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Medians, milliseconds."""

    encode_ms: float            # one frame
    prefill_ms: float           # its tokens behind those kept
    token_ms: float             # one token behind both
    verify_ms: float            # a full draft at once
    switch_ms: float            # what changing between the last two costs besides
    host_ms: float              # of a token: what the host does until the device could begin


def measure_steps(vision: VisionEngine, language: LanguageEngine, *, grid: tuple[int, int], kept_rows: int, cache_rows: int,
                  repeats: int = 20) -> Steps:
    """Time each step ``repeats`` times after a warm-up. Raises ConfigError when the rows do not fit the cache."""
    frame_rows = grid[0] * grid[1] // vision.spec.merge**2
    needed = 1 + kept_rows + frame_rows + VERIFY_TOKENS
    if needed > cache_rows:
        raise ConfigError(f'{kept_rows} kept rows and a frame of {frame_rows} need {needed} cache rows; the engine has '
                          f'{cache_rows}. Lower --kept-tokens or --frame-tokens.')
    patches = np.random.default_rng(0).uniform(-1, 1, (grid[0] * grid[1], 3 * vision.spec.patch_px**2)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, min(language.spec.vocabulary, language.spec.image_token_id), cache_rows)
    cache = language.new_cache(cache_rows)
    end = 1 + kept_rows + frame_rows

    def read(start: int, count: int, logits: int) -> None:
        _append(language, cache, ids[:count], start, logits)

    def token() -> None:
        read(end, 1, 1)

    def verify() -> None:
        read(end, VERIFY_TOKENS, VERIFY_TOKENS)

    def both() -> None:
        token()
        verify()

    def frames() -> None:
        for _ in range(repeats):
            vision.encode(patches, grid)
        token()

    def host() -> float:
        token()                     # the device is idle now
        return _once_ms(lambda: read(end, 1, 0))

    read(1, end - 1, 1)
    token_ms, verify_ms = _median_ms(token, repeats), _median_ms(verify, repeats)
    both_ms = _median_ms(both, repeats)
    frames()
    return Steps(
        encode_ms=max(0.0, _once_ms(frames) - token_ms) / repeats,
        prefill_ms=_median_ms(lambda: read(1 + kept_rows, frame_rows, 1), repeats), token_ms=token_ms, verify_ms=verify_ms,
        switch_ms=max(0.0, both_ms - token_ms - verify_ms) / 2, host_ms=statistics.median(host() for _ in range(repeats)))


def _append(language: LanguageEngine, cache: KVCache, ids: np.ndarray, start: int, logits: int) -> None:
    count = len(ids)
    language.append(cache, [ids], start=start, positions=np.arange(start - 1, start - 1 + count),
                    visible=np.arange(start) > 0, logits_for=range(count - logits, count))


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    call()
    return statistics.median(_once_ms(call) for _ in range(repeats))


def _once_ms(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1e3
