"""What every runtime of the exported graphs is fed: rows of words, the mask. Knows no runtime (onnx.py, tensorrt.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from penguin_ros.backends.manifest import TableEntry

HIDDEN = np.float32(-1e4)       # added to the scores of rows that may not be seen; finite, so that no row becomes NaN


def map_embeddings(folder: Path, table: TableEntry) -> np.ndarray:
    """The embedding table as a read-only array on the file; bfloat16 as the uint16 it is stored in."""
    dtype = np.dtype('<u2' if table.dtype == 'bfloat16' else table.dtype)
    return np.memmap(folder / table.file, dtype, mode='r', offset=table.offset, shape=table.shape)


def word_rows(table: np.ndarray, ids: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The rows of some token ids, [T, width] as ``dtype``; only these are read from the file."""
    rows = table[ids]
    if rows.dtype == np.uint16:     # bfloat16, the upper half of a float32
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(dtype)


def fill_mask(mask: np.ndarray, visible: np.ndarray, past_rows: int) -> None:
    """Write the mask [T, past_rows + T] of T new rows: 0 where a row may be seen, HIDDEN elsewhere.

    ``visible`` speaks of the first rows; those between them and the new ones may be seen, and the new ones are causal.
    """
    count = len(mask)
    mask[:, :len(visible)] = np.where(visible, np.float32(0), HIDDEN)
    mask[:, len(visible):past_rows] = 0
    mask[:, past_rows:] = np.triu(np.full((count, count), HIDDEN), 1)
