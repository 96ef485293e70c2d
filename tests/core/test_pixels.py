"""Resizing, normalising and cutting against golden/preprocess; bit for bit, whatever the Pillow version."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from penguin_ros.core.pixels import cut_patches, patches_for_grid, resize

FOLDER = Path(__file__).parents[1] / 'data/golden/preprocess'
CASES = json.loads((FOLDER / 'cases.json').read_text())


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def picture(case: dict) -> np.ndarray:
    """The input of one case: stored, or drawn by the formulas of golden/README.md."""
    if case['image_stored']:
        return np.load(FOLDER / Path(case['file']).name)['image_u8']
    w, h = case['width'], case['height']
    y, x = np.mgrid[:h, :w]
    if case['kind'] == 'gradient':
        planes = (x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), (x + y) * 255 // max(w + h - 2, 1))
    else:
        planes = (x ^ y, 2 * x, 2 * y)
    return (np.stack(planes, axis=2) & 255).astype(np.uint8)


@pytest.mark.parametrize('case', CASES, ids=lambda case: f'{case["width"]}x{case["height"]} {case["kind"]}')
def test_patches_and_resized_pictures_equal_the_golden_bytes(case: dict) -> None:
    rgb = picture(case)
    assert sha256(rgb) == case['image_sha256']
    _, rows, columns = case['grid']
    resized = resize(rgb, *case['resized_hw'])
    patches = cut_patches(resized, merge=case['merge_size'])
    assert sha256(resized) == case['resized_u8_sha256']
    assert patches.dtype == np.float32
    assert sha256(patches) == case['patches_sha256']
    assert np.array_equal(patches, patches_for_grid(rgb, (rows, columns), merge=case['merge_size']))


def test_a_view_with_gaps_between_rows_gives_the_same_patches() -> None:
    padded = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    view = padded[:, 10:90]
    assert np.array_equal(patches_for_grid(view, (4, 4)), patches_for_grid(view.copy(), (4, 4)))


def test_patches_come_by_merge_window_and_channel_first() -> None:
    rgb = np.zeros((28, 56, 3), np.uint8)
    rgb[0, 14, 1] = 255  # row 0, second patch column, first pixel, green
    patches = cut_patches(rgb, merge=2)
    assert patches.shape == (8, 588)
    assert np.argwhere(patches > 0).tolist() == [[1, 196]]
