"""What every pair of engines must do (penguin_ros/core/engine.py), as plain checks for any backend's tests to call.

Knows no backend: the checks take a vision and a language engine, make their own prompts from a seed, and assert. They want
a model small enough to read a few hundred tokens in a second. ``TOLERANCE`` is relative to the largest logit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from penguin_ros.backends.golden import run_case_on_engines
from penguin_ros.core.engine import KVCache, LanguageEngine, Piece, VisionEngine, VisualTokens
from penguin_ros.core.errors import EngineError

TOLERANCE = 1e-4


def random_patches(vision: VisionEngine, grid: tuple[int, int], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (grid[0] * grid[1], 3 * vision.spec.patch_px**2)).astype(np.float32)


def random_ids(language: LanguageEngine, count: int, seed: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(0, language.spec.vocabulary - 1, count)
    return ids + (ids >= language.spec.image_token_id)  # every id but the placeholder


def a_frame(vision: VisionEngine, seed: int = 0, *, windows: tuple[int, int] = (2, 3)) -> VisualTokens:
    grid = windows[0] * vision.spec.merge, windows[1] * vision.spec.merge
    return vision.encode(random_patches(vision, grid, seed), grid)


def read(language: LanguageEngine, cache: KVCache, pieces: Sequence[Piece], *, start: int = 1,
         first_position: int | None = None, hidden_rows: Sequence[int] = (),
         logits_for: Sequence[int] | None = None) -> np.ndarray:
    """Append at consecutive positions, by default those that the rows would have with nothing hidden; logits of all rows."""
    count = sum(piece.count if isinstance(piece, VisualTokens) else len(piece) for piece in pieces)
    visible = np.ones(start, dtype=bool)
    visible[[0, *hidden_rows]] = False
    first_position = start - 1 if first_position is None else first_position
    return language.append(cache, pieces, start=start, positions=np.arange(first_position, first_position + count),
                           visible=visible, logits_for=range(count) if logits_for is None else logits_for)


def assert_close(found: np.ndarray, needed: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert found.shape == needed.shape
    np.testing.assert_allclose(found, needed, rtol=0, atol=tolerance * float(np.abs(needed).max()))


def check_append_in_pieces_equals_reading_at_once(vision: VisionEngine, language: LanguageEngine,
                                                  tolerance: float = TOLERANCE) -> None:
    before, frame, after = random_ids(language, 7, 1), a_frame(vision, 2), random_ids(language, 9, 3)
    at_once = read(language, language.new_cache(64), [before, frame, after])
    cache = language.new_cache(64)
    parts = [read(language, cache, [before])]
    parts.append(read(language, cache, [frame], start=8))
    row = 8 + frame.count
    parts.append(read(language, cache, [after[:4]], start=row))
    parts += [read(language, cache, [after[i:i + 1]], start=row + i) for i in range(4, 9)]  # one by one, as in decoding
    assert_close(np.concatenate(parts), at_once, tolerance)


def check_prompts_longer_than_one_call_are_cut(language: LanguageEngine, tolerance: float = TOLERANCE) -> None:
    count = 2 * language.spec.max_append + 3
    ids = random_ids(language, count, 4)
    at_once = read(language, language.new_cache(count + 1), [ids])
    cache = language.new_cache(count + 1)
    parts = [read(language, cache, [ids[begin:begin + 5]], start=1 + begin) for begin in range(0, count, 5)]
    assert_close(at_once, np.concatenate(parts), tolerance)


def check_setting_start_back_forgets_what_came_after(vision: VisionEngine, language: LanguageEngine,
                                                     tolerance: float = TOLERANCE) -> None:
    kept, frame = random_ids(language, 5, 5), a_frame(vision, 6)
    forgotten, after = random_ids(language, 20, 7), random_ids(language, 8, 8)
    cache = language.new_cache(64)
    read(language, cache, [kept, frame])
    row = 6 + frame.count
    first = read(language, cache, [after], start=row)
    read(language, cache, [forgotten], start=row)
    again = read(language, cache, [after], start=row)
    assert_close(again, first, 1e-6)  # nothing before these rows was touched
    never = read(language, language.new_cache(64), [kept, frame, after])[-len(after):]
    assert_close(again, never, tolerance)


def check_hidden_rows_are_as_if_never_read(vision: VisionEngine, language: LanguageEngine,
                                           tolerance: float = TOLERANCE) -> None:
    head, dropped = random_ids(language, 4, 9), a_frame(vision, 10)
    frame, question = a_frame(vision, 11), random_ids(language, 6, 12)
    cache = language.new_cache(64)
    read(language, cache, [head, dropped])
    row = 5 + dropped.count
    hidden = range(5, row)
    with_gap = read(language, cache, [frame, question], start=row, hidden_rows=hidden)
    without = language.new_cache(64)
    read(language, without, [head])
    needed = read(language, without, [frame, question], start=5, first_position=row - 1)  # positions stay as written
    assert_close(with_gap, needed, tolerance)


def check_moved_rows_answer_as_before(vision: VisionEngine, language: LanguageEngine, tolerance: float = TOLERANCE) -> None:
    """A gap closed in place, once by less than the rows moved (so that the places overlap)."""
    head, frame, question = random_ids(language, 9, 13), a_frame(vision, 14, windows=(3, 4)), random_ids(language, 6, 15)
    cache = language.new_cache(64)
    read(language, cache, [head, frame])
    row, gap = 10 + frame.count, 5
    needed = read(language, cache, [question], start=row, hidden_rows=range(5, 5 + gap))
    language.move_rows(cache, source=5 + gap, target=5, count=row - 5 - gap)
    found = read(language, cache, [question], start=row - gap, first_position=row - 1)
    assert_close(found, needed, tolerance)
    language.move_rows(cache, source=7, target=7, count=3)
    language.move_rows(cache, source=9, target=3, count=0)
    assert_close(read(language, cache, [question], start=row - gap, first_position=row - 1), needed, tolerance)


def check_logits_come_for_the_rows_asked_for(language: LanguageEngine) -> None:
    ids = random_ids(language, 11, 16)
    cache = language.new_cache(16)
    every = read(language, cache, [ids])
    assert every.dtype == np.float32
    assert every.shape == (11, language.spec.vocabulary)
    assert_close(read(language, cache, [ids], logits_for=[10, 0, 4]), every[[10, 0, 4]])
    assert read(language, cache, [ids], logits_for=[]).shape == (0, language.spec.vocabulary)
    assert read(language, cache, [ids[:0]]).shape == (0, language.spec.vocabulary)


def check_cache_buffers_never_move(vision: VisionEngine, language: LanguageEngine,
                                   addresses: Callable[[KVCache], Sequence[int]]) -> None:
    cache = language.new_cache(200)
    before = list(addresses(cache))
    assert len(set(before)) == len(before) == 2 * language.spec.layers
    read(language, cache, [random_ids(language, 20), a_frame(vision)])
    for row in range(27, 60):
        read(language, cache, [random_ids(language, 1, row)], start=row)
    language.move_rows(cache, source=30, target=10, count=20)
    read(language, cache, [random_ids(language, 5)], start=30)
    assert list(addresses(cache)) == before


def check_cache_says_its_size(language: LanguageEngine, item_bytes: int) -> None:
    cache, spec = language.new_cache(37), language.spec
    assert cache.capacity_rows == 37
    assert cache.row_bytes == 2 * spec.layers * spec.kv_heads * spec.head_dim * item_bytes


def check_inputs_are_not_changed(vision: VisionEngine, language: LanguageEngine) -> None:
    grid = 2 * vision.spec.merge, 2 * vision.spec.merge
    ids = random_ids(language, 6)
    arrays = [random_patches(vision, grid), ids, np.arange(6 + 4), np.array([False]), np.array([0, 9])]
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    patches, ids, positions, visible, logits_for = arrays
    frame = vision.encode(patches, grid)
    language.append(language.new_cache(16), [ids, frame], start=1, positions=positions, visible=visible, logits_for=logits_for)
    for array, copy in zip(arrays, copies):
        np.testing.assert_array_equal(array, copy)


def check_frames_do_not_depend_on_each_other(vision: VisionEngine, language: LanguageEngine) -> None:
    """Visual tokens stay as they were while further frames are encoded, also larger and smaller ones."""
    frame = a_frame(vision, 20)
    for seed, windows in enumerate([(4, 5), (1, 1), (2, 3)], start=21):
        other = a_frame(vision, seed, windows=windows)
        assert other.count == windows[0] * windows[1]
    same = a_frame(vision, 20)
    ids = random_ids(language, 3)
    first, second, third = (read(language, language.new_cache(32), [ids, tokens]) for tokens in (frame, same, other))
    assert_close(first, second, 1e-6)
    assert np.abs(first - third).max() > 1e-3 * np.abs(first).max()


def check_streams_do_not_share_rows(language: LanguageEngine) -> None:
    ids, other_ids, question = random_ids(language, 8, 30), random_ids(language, 8, 31), random_ids(language, 3, 32)
    cache, other = language.new_cache(16), language.new_cache(16)
    read(language, cache, [ids])
    needed = read(language, cache, [question], start=9)
    read(language, other, [other_ids])
    assert_close(read(language, cache, [question], start=9), needed, 1e-6)


def check_patches_that_do_not_fit_are_refused(vision: VisionEngine) -> None:
    m = vision.spec.merge
    patches = random_patches(vision, (2 * m, 2 * m))
    with pytest.raises(EngineError, match='do not fit a grid of'):
        vision.encode(patches, (2 * m, 3 * m))
    with pytest.raises(EngineError, match='do not fit a grid of'):
        vision.encode(patches[:, :-1], (2 * m, 2 * m))
    if m > 1:
        with pytest.raises(EngineError, match=f'sides divisible by {m}'):
            vision.encode(random_patches(vision, (m + 1, m)), (m + 1, m))
    columns = (vision.spec.max_patches // m + 1) * m
    too_many = np.broadcast_to(np.float32(0), (m * columns, 3 * vision.spec.patch_px**2))
    with pytest.raises(EngineError, match=f'the vision engine takes {vision.spec.max_patches}'):
        vision.encode(too_many, (m, columns))
    assert vision.encode(patches, (2 * m, 2 * m)).count == 4  # the next good frame works


def check_appends_that_cannot_be_are_refused(vision: VisionEngine, language: LanguageEngine) -> None:
    spec = language.spec
    cache = language.new_cache(16)
    ids = random_ids(language, 4)
    needed = read(language, cache, [ids])
    with pytest.raises(EngineError, match='do not fit a cache of 16 rows'):
        read(language, cache, [random_ids(language, 16)])
    with pytest.raises(EngineError, match='row 0 is reserved'):
        language.append(cache, [ids], start=0, positions=np.arange(4), visible=np.zeros(0, bool), logits_for=[])
    with pytest.raises(EngineError, match='3 positions were given for 4 new rows'):
        language.append(cache, [ids], start=1, positions=np.arange(3), visible=np.zeros(1, bool), logits_for=[])
    for visible in (np.ones(1, bool), np.zeros(2, bool)):
        with pytest.raises(EngineError, match='visible'):
            language.append(cache, [ids], start=1, positions=np.arange(4), visible=visible, logits_for=[])
    for row in (-1, 4):
        with pytest.raises(EngineError, match='there are rows 0 to 3'):
            read(language, cache, [ids], logits_for=[row])
    for wrong_id in (-1, spec.vocabulary):
        with pytest.raises(EngineError, match=f'the model has 0 to {spec.vocabulary - 1}'):
            read(language, cache, [np.array([wrong_id])])
    with pytest.raises(EngineError, match='rows only move down'):
        language.move_rows(cache, source=2, target=3, count=1)
    with pytest.raises(EngineError, match='2 is the least'):
        language.new_cache(1)
    assert_close(read(language, cache, [ids]), needed, 1e-6)  # the next good call works


def check_placeholders_without_visual_tokens_are_refused(language: LanguageEngine) -> None:
    written_out = np.array([1, language.spec.image_token_id, language.spec.image_token_id, 2])
    with pytest.raises(EngineError, match='2 placeholders'):
        read(language, language.new_cache(16), [written_out])


def check_visual_tokens_of_another_backend_are_refused(language: LanguageEngine) -> None:
    with pytest.raises(EngineError, match='Encode the frame with the vision engine of the same model and backend'):
        read(language, language.new_cache(16), [VisualTokens(3, 'not ours')])


def check_golden_case(vision_for: Callable[[int], VisionEngine], language: LanguageEngine, case: dict[str, np.ndarray], *,
                      row_of_tokens: Callable[[VisualTokens], np.ndarray], tolerance: float = TOLERANCE) -> None:
    """Visual tokens, logits and greedy continuation of a golden case through the engines alone."""
    made = run_case_on_engines(vision_for, language, case, row_of_tokens=row_of_tokens, greedy_steps=len(case['greedy_tokens']))
    np.testing.assert_array_equal(made['greedy_tokens'], case['greedy_tokens'])
    for name in {'projector', 'logits', 'greedy_logits'} & case.keys():
        assert_close(made[name], case[name], tolerance)
