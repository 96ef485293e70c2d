"""Refuse what no engine can do, with the same words for every backend. Knows nothing of how an engine runs.

Each check is of shapes and small host arrays only; it costs microseconds beside a call of the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penguin_ros.core.engine import KVCache, LanguageSpec, Piece, VisionSpec, VisualTokens
from penguin_ros.core.errors import EngineError


def check_patches(spec: VisionSpec, patches: np.ndarray, grid: tuple[int, int]) -> None:
    """Raise EngineError unless the vision engine can encode these patches on this grid."""
    rows, columns = grid
    values = 3 * spec.patch_px**2
    if rows < 1 or columns < 1 or rows % spec.merge or columns % spec.merge or patches.shape != (rows * columns, values):
        raise EngineError(
            f'patches of shape {list(patches.shape)} do not fit a grid of {rows} x {columns} with merge {spec.merge}: '
            f'[{rows * columns}, {values}] and sides divisible by {spec.merge} were needed. '
            'Resize the frame to the grid first.')
    if len(patches) > spec.max_patches:
        raise EngineError(f'the frame has {len(patches)} patches, the vision engine takes {spec.max_patches}. '
                          'Lower the token budget, or build the engine for more patches.')


def check_append(spec: LanguageSpec, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray,
                 visible: np.ndarray, logits_for: Sequence[int]) -> int:
    """Return how many rows the pieces have; raise EngineError unless they can be appended so."""
    for piece in pieces:
        if not isinstance(piece, VisualTokens):
            _check_ids(spec, piece)
    count = sum(piece.count if isinstance(piece, VisualTokens) else len(piece) for piece in pieces)
    if not 1 <= start <= cache.capacity_rows - count:
        raise EngineError(f'{count} rows from row {start} do not fit a cache of {cache.capacity_rows} rows, of which row 0 is '
                          'reserved. Lower the token budget, or build the engine with more cache rows.')
    if len(positions) != count:
        raise EngineError(f'{len(positions)} positions were given for {count} new rows. Give one position per token.')
    if len(visible) != start or visible[0]:
        raise EngineError(f'visible says True or False for {len(visible)} rows and {bool(visible[:1].any())} for row 0; '
                          f'it must have {start} entries, one per earlier row, and False for the reserved row 0.')
    if any(not 0 <= row < count for row in logits_for):
        raise EngineError(f'logits were asked for of new rows {list(logits_for)}; there are rows 0 to {count - 1}.')
    return count


def check_move(cache: KVCache, *, source: int, target: int, count: int) -> None:
    """Raise EngineError unless the rows can be moved down so."""
    if not 1 <= target <= source or count < 0 or source + count > cache.capacity_rows:
        raise EngineError(f'{count} rows cannot move from row {source} to row {target} in a cache of '
                          f'{cache.capacity_rows} rows: rows only move down, stay inside the cache and leave row 0 alone.')


def _check_ids(spec: LanguageSpec, ids: np.ndarray) -> None:
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise EngineError(f'a piece is an array of {ids.dtype} with shape {list(ids.shape)}; '
                          'token ids are integers in one row.')
    if len(ids) and not 0 <= ids.min() <= ids.max() < spec.vocabulary:
        raise EngineError(f'token ids from {ids.min()} to {ids.max()} were given, the model has 0 to {spec.vocabulary - 1}. '
                          'Use the tokenizer that belongs to the model.')
    if placeholders := int((ids == spec.image_token_id).sum()):
        raise EngineError(f'the text has {placeholders} placeholders (id {spec.image_token_id}) with 0 visual tokens for them. '
                          'Pass the visual tokens of each frame as a piece of their own.')
