"""Rotary position tables for encoder and decoder, made on the host in float32. Knows nothing of attention itself.

Source: reference/penguin_vl.md 1.4 (encoder, two axes, deliberately not a rotation) and 1.8 (decoder, one axis).
"""

from __future__ import annotations

import numpy as np


def frequencies(head_dim: int, theta: float) -> np.ndarray:
    """The full ladder of head_dim/2 angular frequencies, float32."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return (np.float32(1.0) / np.power(np.float32(theta), exponents, dtype=np.float32)).astype(np.float32)


def decoder_tables(positions: np.ndarray, *, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, float32 [T, 1, head_dim], for int positions [T]; both halves use the same angles."""
    angles = np.asarray(positions, dtype=np.float32)[:, None] * frequencies(head_dim, theta)[None, :]
    angles = np.concatenate([angles, angles], axis=1)[:, None, :]
    return np.cos(angles), np.sin(angles)


def patch_positions(grid: tuple[int, int], merge: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every patch, int [N] each, in merge-window order (reference/penguin_vl.md 1.5)."""
    rows, columns = grid
    index = np.arange(rows * columns).reshape(rows // merge, merge, columns // merge, merge)
    order = index.transpose(0, 2, 1, 3).reshape(-1)
    return order // columns, order % columns


def encoder_tables(grid: tuple[int, int], *, merge: int, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, float32 [N, 1, head_dim]: the first half carries the row's angle, the second half the column's."""
    y, x = patch_positions(grid, merge)
    ladder = frequencies(head_dim, theta)[None, :]
    angles = np.concatenate([y.astype(np.float32)[:, None] * ladder, x.astype(np.float32)[:, None] * ladder], axis=1)
    return np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
