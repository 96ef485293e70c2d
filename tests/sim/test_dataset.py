"""Shards: their format, and that a run can be interrupted, continued and repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from penguin_ros.core.errors import RecordingError
from penguin_ros.sim.dataset import generate_dataset, shard_plan
from penguin_ros.sim.render import Renderer


def test_no_shard_holds_more_frames_than_asked_and_none_is_lost() -> None:
    plan = shard_plan('train', 50, frames_per_shard=20)
    assert [seed for shard in plan for seed in shard] == list(range(50))
    assert all(shard for shard in plan)


def test_shards_hold_what_training_reads(renderer: Renderer, tmp_path: Path) -> None:
    frames = generate_dataset(tmp_path, 'unit test', 8, frames_per_shard=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'clips_000.json', 'clips_001.json', 'dataset.json', 'images_000.npy', 'images_001.npy']
    found = 0
    for shard in (0, 1):
        images = np.load(tmp_path / f'images_{shard:03d}.npy', mmap_mode='r')
        assert images.dtype == np.uint8
        assert images.shape[1:] == (240, 320, 3)
        for clip in json.loads((tmp_path / f'clips_{shard:03d}.json').read_text()):
            assert set(clip) == {'seed', 'camera', 'frames', 'events'}
            for frame in clip['frames']:
                assert frame['shard'] == shard
                assert images[frame['index']].std() > 1
                found += 1
                centres = [seen['box'][0] + seen['box'][2] for seen in frame['objects']]
                assert centres == sorted(centres)
                for seen in frame['objects']:
                    x_min, y_min, x_max, y_max = seen['box']
                    assert 0 <= x_min < x_max <= 320
                    assert 0 <= y_min < y_max <= 240
                    assert seen['pixels'] >= 192
                    assert seen['fraction'] >= 0.35
    assert found == frames


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(renderer: Renderer, tmp_path: Path) -> None:
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    generate_dataset(whole, 'unit test', 7, frames_per_shard=4)
    generate_dataset(parts, 'unit test', 5, frames_per_shard=4)
    untouched_ns = (parts / 'images_000.npy').stat().st_mtime_ns
    generate_dataset(parts, 'unit test', 7, frames_per_shard=4)
    assert (parts / 'images_000.npy').stat().st_mtime_ns == untouched_ns
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in parts.iterdir()}


def test_a_folder_of_another_split_is_refused(renderer: Renderer, tmp_path: Path) -> None:
    generate_dataset(tmp_path, 'unit test', 1)
    with pytest.raises(RecordingError, match='Choose another folder'):
        generate_dataset(tmp_path, 'another split', 1)


@pytest.mark.slow
def test_several_processes_write_the_same_shards_as_one(renderer: Renderer, tmp_path: Path) -> None:
    generate_dataset(tmp_path / 'one', 'unit test', 4, frames_per_shard=2)
    generate_dataset(tmp_path / 'two', 'unit test', 4, frames_per_shard=2, processes=2)
    for path in (tmp_path / 'one').iterdir():
        assert path.read_bytes() == (tmp_path / 'two' / path.name).read_bytes()
