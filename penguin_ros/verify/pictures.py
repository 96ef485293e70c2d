"""Golden cases of preprocessing: pictures resized and cut into patches. Formulas and fields: tests/data/golden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from penguin_ros.core.pixels import cut_patches, resize
from penguin_ros.core.token_budget import published_sizes
from penguin_ros.verify.findings import Arrays, Findings, Record, read_arrays, sha256

_PATCH_PX = 14
_MEAN_TOLERANCE = 1e-6
_FIELDS = {'id', 'width', 'height', 'kind', 'seed', 'merge_size', 'min_tokens', 'max_tokens', 'resized_hw', 'grid',
           'num_patches', 'llm_tokens', 'dtype', 'patches_sha256', 'resized_u8_sha256', 'image_sha256', 'mean', 'std',
           'chw_path_identical', 'image_stored', 'file', 'arrays', 'resized_u8_sha256_pillow13', 'pillow13_differs'}


def check_picture(record: Record, root: Path, findings: Findings) -> None:
    """One picture from its bytes to its patches."""
    findings.known_fields(record, _FIELDS)
    stored = read_arrays(root / record['file'])
    findings.equal('arrays', sorted(record['arrays']), sorted(stored))
    findings.equal('image_stored', record['image_stored'], 'image_u8' in stored)
    rgb = _picture(record, stored)
    findings.equal('width and height', [record['width'], record['height']], [rgb.shape[1], rgb.shape[0]])
    findings.equal('image_sha256', record['image_sha256'], sha256(rgb))

    merge = record['merge_size']
    size = published_sizes(record['height'], record['width'], keys=1, intermediates=0, patch_px=_PATCH_PX, merge=merge,
                           min_tokens=record['min_tokens'], max_tokens=record['max_tokens']).key_px
    assert size is not None     # one key frame always has a size
    height, width = size
    rows, columns = height // _PATCH_PX, width // _PATCH_PX
    findings.equal('resized_hw', record['resized_hw'], [height, width])
    findings.equal('grid', record['grid'], [1, rows, columns])
    findings.equal('num_patches', record['num_patches'], rows * columns)
    findings.equal('llm_tokens', record['llm_tokens'], rows * columns // merge ** 2)

    resized = resize(rgb, height, width)
    patches = cut_patches(resized, patch_px=_PATCH_PX, merge=merge)
    findings.equal('resized_u8_sha256', record['resized_u8_sha256'], sha256(resized))
    findings.equal('patches_sha256', record['patches_sha256'], sha256(patches))
    findings.equal('dtype', record['dtype'], str(patches.dtype))
    findings.close('mean', record['mean'], patches.mean(dtype=np.float64), _MEAN_TOLERANCE)
    findings.close('std', record['std'], patches.std(dtype=np.float64), _MEAN_TOLERANCE)
    computed = {'first64': patches.reshape(-1)[:64], 'last64': patches.reshape(-1)[-64:], 'patches': patches,
                'resized_u8': resized, 'image_u8': rgb}
    for name, array in stored.items():
        findings.close(name, array, computed[name], 0.0)

    planar = np.ascontiguousarray(rgb.transpose(2, 0, 1))  # a picture that comes channels first, seen channels last
    same = sha256(resize(planar.transpose(1, 2, 0), height, width)) == sha256(resized)
    findings.equal('chw_path_identical', record['chw_path_identical'], same)
    other_order = _cheapest_order(rgb, height, width)
    findings.equal('resized_u8_sha256_pillow13', record['resized_u8_sha256_pillow13'], sha256(other_order))
    findings.equal('pillow13_differs', record['pillow13_differs'], not np.array_equal(other_order, resized))


def _picture(record: Record, stored: Arrays) -> np.ndarray:
    """The input: stored, or drawn by an integer formula."""
    if 'image_u8' in stored:
        return stored['image_u8']
    width, height = record['width'], record['height']
    y, x = np.mgrid[:height, :width]
    formulas = {
        'gradient': (x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 255 // max(width + height - 2, 1)),
        'xor': (x ^ y, 2 * x, 2 * y),
    }
    return (np.stack(formulas[record['kind']], axis=2) & 255).astype(np.uint8)


def _cheapest_order(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """The resize as Pillow 13 does it by itself: the vertical pass first where that leaves less for the other one."""
    if rgb.shape[1] * height >= width * rgb.shape[0]:
        return resize(rgb, height, width)
    tall = Image.fromarray(rgb).resize((rgb.shape[1], height), Image.Resampling.BICUBIC)
    return np.asarray(tall.resize((width, height), Image.Resampling.BICUBIC))
