"""Grids for token counts, and regions between grid, thousandths and pixels."""

from dataclasses import astuple
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penguin_ros.core.errors import BudgetError, ImageError
from penguin_ros.core.frame import Region
from penguin_ros.core.grid import (
    fit_grid,
    floor_grid,
    grid_from_px,
    grid_tokens,
    native_grid,
    permille_from_px,
    px_from_grid,
    px_from_permille,
)

sides = st.integers(28, 8000)
merges = st.sampled_from([1, 2])


@given(sides, sides, merges)
def test_a_native_grid_never_enlarges(height_px: int, width_px: int, merge: int) -> None:
    rows, columns = native_grid(height_px, width_px, merge=merge)
    assert rows % merge == columns % merge == 0
    assert height_px - 14 * merge < rows * 14 <= height_px
    assert width_px - 14 * merge < columns * 14 <= width_px


def test_an_image_smaller_than_one_token_says_what_to_send() -> None:
    with pytest.raises(ImageError, match=r'16x16 px.*at least 28x28'):
        native_grid(16, 16)


@given(sides, sides, st.integers(1, 64), st.integers(0, 3000), merges)
def test_a_fitted_grid_keeps_every_limit(height_px: int, width_px: int, floor: int, spare: int, merge: int) -> None:
    native = native_grid(height_px, width_px, merge=merge)
    least = floor_grid(native, floor, merge=merge)
    limit = grid_tokens(least, merge) + spare
    grid = fit_grid(native, limit, min_tokens=floor, merge=merge)
    tokens = grid_tokens(grid, merge)
    assert min(floor, grid_tokens(native, merge)) <= tokens <= limit
    assert grid[0] <= native[0]
    assert grid[1] <= native[1]
    assert grid[0] % merge == grid[1] % merge == 0


@given(st.integers(280, 1400), st.integers(280, 1400), st.integers(24, 2000))
def test_a_fitted_grid_spends_its_tokens_and_nearly_keeps_the_shape(height_px: int, width_px: int, limit: int) -> None:
    native = native_grid(height_px, width_px)
    grid = fit_grid(native, limit, min_tokens=16)
    distortion = grid[0] * native[1] / (grid[1] * native[0])
    tokens, possible = grid_tokens(grid), min(limit, grid_tokens(native))
    thin = min(grid) // 2  # a grid of few rows can follow neither shape nor size closely
    assert max(distortion, 1 / distortion) <= 1 + 1.25 / thin
    assert tokens >= possible * (1 - 2 / thin)


def test_more_tokens_never_give_a_smaller_grid_for_a_camera() -> None:
    native = native_grid(720, 1280)
    counts = [grid_tokens(fit_grid(native, n, min_tokens=16)) for n in range(18, 1200)]
    assert counts[0] == 18
    assert counts[-1] == grid_tokens(native) == 25 * 45
    assert all(earlier <= later * 1.05 for earlier, later in pairwise(counts))


def test_the_floor_of_a_wide_image_keeps_its_shape_and_a_small_image_is_its_own_floor() -> None:
    assert floor_grid(native_grid(720, 1280), 16) == (6, 12)
    assert floor_grid(native_grid(480, 640), 16) == (8, 10)
    assert floor_grid(native_grid(60, 80), 16) == native_grid(60, 80) == (4, 4)


def test_a_limit_no_grid_can_meet_says_what_to_change() -> None:
    with pytest.raises(BudgetError, match='Lower min_frame_tokens or raise window_tokens'):
        fit_grid((50, 90), 15, min_tokens=16)


corners = st.tuples(*[st.floats(-0.2, 1.2) for _ in range(4)])


def ordered(corners: tuple) -> tuple:
    return (min(corners[0], corners[2]), min(corners[1], corners[3]), max(corners[0], corners[2]), max(corners[1], corners[3]))


@given(sides, sides, corners, merges)
def test_a_region_through_a_grid_and_back_is_off_by_less_than_a_pixel(height_px: int, width_px: int, corners: tuple,
                                                                      merge: int) -> None:
    grid = floor_grid(native_grid(height_px, width_px, merge=merge), 16, merge=merge)
    size = {'width_px': width_px, 'height_px': height_px}
    px = tuple(value * side for value, side in zip(corners, (width_px, height_px) * 2))
    clamped = tuple(min(max(value, 0), side) for value, side in zip(ordered(px), (width_px, height_px) * 2))
    back = px_from_grid(grid_from_px(Region(*px), grid, **size), grid, **size)
    assert astuple(back) == pytest.approx(clamped, abs=0.01)


@given(st.integers(28, 20000), st.integers(28, 20000), st.tuples(*[st.integers(0, 1000)] * 4))
def test_thousandths_become_the_pixels_they_name(height_px: int, width_px: int, corners: tuple) -> None:
    size = {'width_px': width_px, 'height_px': height_px}
    region = px_from_permille(corners, **size)
    named = tuple(value * side / 1000 for value, side in zip(ordered(corners), (width_px, height_px) * 2))
    assert astuple(region) == pytest.approx(named)
    assert permille_from_px(region, **size) == ordered(corners)


@given(st.integers(28, 2000), st.integers(28, 2000), st.tuples(*[st.floats(0, 1000)] * 4))
def test_pixels_survive_thousandths_within_one_pixel_up_to_2000(height_px: int, width_px: int, corners: tuple) -> None:
    size = {'width_px': width_px, 'height_px': height_px}
    region = px_from_permille(corners, **size)
    assert astuple(px_from_permille(permille_from_px(region, **size), **size)) == pytest.approx(astuple(region), abs=1.0)


def test_a_region_beyond_the_image_is_clamped_and_swapped_corners_are_put_in_order() -> None:
    assert px_from_permille((900, 700, -50, 1200), width_px=640, height_px=480) == Region(0, 336, 576, 480)
