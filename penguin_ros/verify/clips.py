"""Golden cases of the published keyframe rule and the published token budget. Fields: tests/data/golden."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path

from penguin_ros.core.errors import BudgetError
from penguin_ros.core.keyframe import PublishedKeyframes, published_patches, published_similarity, published_size
from penguin_ros.core.token_budget import PublishedSizes, published_sizes
from penguin_ros.verify.findings import Findings, Record, read_arrays

_PATCH_PX = 14
_EXACT, _RESIZED = 1e-6, 0.02       # of a similarity; frames that had to be resized went through floats
_KEYFRAME_FIELDS = {'id', 'name', 'num_frames', 'height', 'width', 'resized_hw', 'frame_types', 'sim_to_current_key',
                    'sim_to_previous_frame', 'file', 'error'}
_BUDGET_FIELDS = {'id', 'note', 'num_frames', 'frame_types', 'height', 'width', 'patch_size', 'merge_size', 'factor',
                  'min_tokens', 'max_tokens', 'key_hw', 'inter_hw', 'key_grid', 'inter_grid', 'key_tokens', 'inter_tokens',
                  'tokens_per_frame_rle', 'total_tokens', 'over_max_tokens', 'error'}


def check_keyframes(record: Record, root: Path, findings: Findings) -> None:
    """Labels and similarities of one sequence."""
    findings.known_fields(record, _KEYFRAME_FIELDS)
    frames = read_arrays(root / record['file'])['frames']
    findings.equal('num_frames, height, width and channels',
                   [record['num_frames'], record['height'], record['width'], 3], list(frames.shape))
    size = published_size(*frames.shape[1:3])
    findings.equal('resized_hw', record['resized_hw'], list(size))
    detector = PublishedKeyframes()
    labels = [0 if detector.offer(frame).keyframe else 1 for frame in frames]
    # The reference fails on frames one patch high, and on nothing else; such sequences have no labels.
    findings.equal('whether the reference failed', 'error' in record, size[0] == _PATCH_PX)
    if 'error' in record:
        return
    findings.equal('frame_types', record['frame_types'], labels)
    patches = [published_patches(frame) for frame in frames]
    tolerance = _EXACT if size == frames.shape[1:3] else _RESIZED
    for name in ('sim_to_current_key', 'sim_to_previous_frame'):
        stored = record[name]
        findings.equal(f'the length of {name}', len(stored), len(frames))
        findings.equal(f'{name}[0]', stored[0], None)
        key = 0
        for index in range(1, len(frames)):
            against = key if name == 'sim_to_current_key' else index - 1
            computed = published_similarity(patches[against], patches[index])
            if math.isnan(computed) or stored[index] == 'nan':
                findings.equal(f'{name}[{index}]', stored[index], 'nan' if math.isnan(computed) else computed)
            else:
                findings.close(f'{name}[{index}]', stored[index], computed, tolerance)
            key = index if labels[index] == 0 else key


def check_budget(record: Record, root: Path, findings: Findings) -> None:
    """Sizes, grids and tokens of one clip."""
    findings.known_fields(record, _BUDGET_FIELDS)
    patch_px, merge, labels = record['patch_size'], record['merge_size'], record['frame_types']
    labels = '0' * record['num_frames'] if labels is None else labels
    findings.equal('num_frames', record['num_frames'], len(labels))
    findings.equal('patch_size', patch_px, _PATCH_PX)
    findings.equal('factor', record['factor'], patch_px * merge)
    try:
        sizes = published_sizes(
            record['height'], record['width'], keys=labels.count('0'), intermediates=labels.count('1'), patch_px=patch_px,
            merge=merge, min_tokens=record['min_tokens'], max_tokens=record['max_tokens'])
    except BudgetError:
        # Frames that do not fit and no keyframe to take tokens from: there the reference divides by zero.
        findings.equal('error', record.get('error'), 'ZeroDivisionError')
        return
    findings.equal('error', record.get('error'), None)
    _check_sizes(record, sizes, labels, findings)


def _check_sizes(record: Record, sizes: PublishedSizes, labels: str, findings: Findings) -> None:
    token_area = record['factor'] ** 2
    tokens = {}
    for kind, label, size in (('key', '0', sizes.key_px), ('inter', '1', sizes.intermediate_px)):
        tokens[label] = size[0] * size[1] // token_area if size else 0
        findings.equal(f'{kind}_hw', record[f'{kind}_hw'], list(size) if size else None)
        findings.equal(f'{kind}_grid', record[f'{kind}_grid'],
                       [side // record['patch_size'] for side in size] if size else None)
        findings.equal(f'{kind}_tokens', record[f'{kind}_tokens'], tokens[label] if size else None)
    each = [tokens[label] for label in labels]
    findings.equal('tokens_per_frame_rle', record['tokens_per_frame_rle'],
                   [[count, len(list(run))] for count, run in groupby(each)])
    findings.equal('total_tokens', record['total_tokens'], sum(each))
    findings.equal('over_max_tokens', record['over_max_tokens'], sum(each) > record['max_tokens'])
