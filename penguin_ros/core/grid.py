"""Token counts become grids, grid cells become pixels again. Knows nothing of pixel values or of budgets over frames.

A grid is (rows, columns) of patches, both multiples of the merge; merge x merge patches make one visual token.
A Region is in pixels of the original image. The same box as four corners (x_min, y_min, x_max, y_max) can be in patches of
a grid (`_grid`) or in what the model writes, 0 to 1000 over each axis (`_permille`). A frame is resized along each axis by
itself, so no conversion needs an offset (reference/penguin_vl.md 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from penguin_ros.core.errors import BudgetError, ImageError
from penguin_ros.core.frame import Region

Grid = tuple[int, int]
Corners = tuple[float, float, float, float]

PERMILLE = 1000

# How much a grid's shape counts against its size when one is chosen: above 1, so that no token is bought by distortion.
_SHAPE_WEIGHT = 1.25


def native_grid(height_px: int, width_px: int, *, patch_px: int = 14, merge: int = 2) -> Grid:
    """The finest grid that enlarges nothing: as many whole visual tokens as fit into the image each way."""
    token_px = patch_px * merge
    if height_px < token_px or width_px < token_px:
        raise ImageError(
            f'the image is {width_px}x{height_px} px; one visual token covers {token_px}x{token_px} px. '
            f'Publish images of at least {token_px}x{token_px} px.')
    return height_px // token_px * merge, width_px // token_px * merge


def grid_tokens(grid: Grid, merge: int = 2) -> int:
    """Visual tokens of a frame cut into this grid."""
    return grid[0] * grid[1] // merge ** 2


def fit_grid(native: Grid, max_tokens: int, *, min_tokens: int = 1, merge: int = 2) -> Grid:
    """The grid that makes the most of ``max_tokens`` for an image of this native grid.

    At most ``max_tokens`` and at least ``min_tokens`` visual tokens (or all the image has, if that is fewer), never more
    rows or columns than the native grid, and nearly its shape: among what is allowed, the largest grid after a penalty
    for distortion. Raises BudgetError where no grid of whole tokens lies between the two limits.
    """
    cells = _fit_cells(native[0] // merge, native[1] // merge, min_tokens, max_tokens)
    if cells is None:
        raise BudgetError(
            f'no grid of {min_tokens} to {max_tokens} tokens fits a frame of {native[0]}x{native[1]} patches; '
            f'its smallest has {grid_tokens(floor_grid(native, min_tokens, merge=merge), merge)}. '
            'Lower min_frame_tokens or raise window_tokens.')
    return cells[0] * merge, cells[1] * merge


def floor_grid(native: Grid, min_tokens: int, *, merge: int = 2) -> Grid:
    """The smallest well-shaped grid of at least ``min_tokens`` tokens; the native one where the image has no more.

    16 tokens of a 16:9 image would be 4x4 or 2x8, both badly distorted, so its floor is 3x6: 18 tokens.
    """
    cells = _floor_cells(native[0] // merge, native[1] // merge, min_tokens)
    return cells[0] * merge, cells[1] * merge


def _candidates(rows: int, columns: int, min_tokens: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    """For each number of rows the few numbers of columns that can be best: beside the true shape, or at a limit."""
    for r in range(1, min(rows, max_tokens) + 1):
        most, least = min(columns, max_tokens // r), -(-min_tokens // r)
        if least <= most:
            shape = r * columns / rows
            yield from ((r, max(least, min(most, c))) for c in (math.floor(shape), math.ceil(shape)))


def _distortion(cells: tuple[int, int], rows: int, columns: int) -> float:
    return _SHAPE_WEIGHT * abs(math.log(cells[1] * rows / (cells[0] * columns)))


@lru_cache(maxsize=4096)
def _fit_cells(rows: int, columns: int, min_tokens: int, max_tokens: int) -> tuple[int, int] | None:
    found = list(_candidates(rows, columns, min(min_tokens, rows * columns), max_tokens))
    return max(found, key=lambda c: math.log(c[0] * c[1]) - _distortion(c, rows, columns)) if found else None


@lru_cache(maxsize=4096)
def _floor_cells(rows: int, columns: int, min_tokens: int) -> tuple[int, int]:
    found = _candidates(rows, columns, min(min_tokens, rows * columns), rows * columns)
    return min(found, key=lambda c: math.log(c[0] * c[1]) + _distortion(c, rows, columns))


def px_from_grid(corners_grid: Corners, grid: Grid, *, width_px: int, height_px: int) -> Region:
    """Corners in patches of a grid, as a region of the original image; clamped to it, corners put in order."""
    return Region(*_scaled(corners_grid, (grid[1], grid[0]), (width_px, height_px)))


def grid_from_px(region: Region, grid: Grid, *, width_px: int, height_px: int) -> Corners:
    """A region of the original image, as corners in (fractional) patches of a grid."""
    return _scaled(_corners(region), (width_px, height_px), (grid[1], grid[0]))


def px_from_permille(corners_permille: Corners, *, width_px: int, height_px: int) -> Region:
    """Corners as the model writes them, 0 to 1000 over each axis, as a region of the original image."""
    return Region(*_scaled(corners_permille, (PERMILLE, PERMILLE), (width_px, height_px)))


def permille_from_px(region: Region, *, width_px: int, height_px: int) -> tuple[int, int, int, int]:
    """A region, as the whole numbers 0 to 1000 the model reads; off by at most half a thousandth of a side."""
    x_min, y_min, x_max, y_max = _scaled(_corners(region), (width_px, height_px), (PERMILLE, PERMILLE))
    return round(x_min), round(y_min), round(x_max), round(y_max)


def _corners(region: Region) -> Corners:
    return region.x_min, region.y_min, region.x_max, region.y_max


def _scaled(corners: Corners, from_size: tuple[float, float], to_size: tuple[float, float]) -> Corners:
    def axis(low: float, high: float, from_side: float, to_side: float) -> tuple[float, float]:
        first, last = (min(max(value * to_side / from_side, 0.0), float(to_side)) for value in (low, high))
        return min(first, last), max(first, last)

    x_min, x_max = axis(corners[0], corners[2], from_size[0], to_size[0])
    y_min, y_max = axis(corners[1], corners[3], from_size[1], to_size[1])
    return x_min, y_min, x_max, y_max
