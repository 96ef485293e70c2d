"""Frames are chosen because they differ, with a reason each, and a list is good only for the recording it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from penguin_ros.calibration.frames import (
    CAPTION,
    FrameList,
    choose_frames,
    decoded_frames,
    read_frames,
    read_prompts,
    write_frames,
)
from penguin_ros.core.errors import CalibrationError

ROOT = Path(__file__).parents[2]
PROMPTS = {CAPTION: '', 'count': 'How many?', 'path': 'Is the path clear?'}


def choose(source: Path, count: int = 8) -> FrameList:
    return choose_frames(source, count, max_tokens=12, patch_px=14, merge=2, prompts=list(PROMPTS))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures: ten shades with a bar that moves on, one all black, one of noise, and copies of the first."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for number in range(10):
        picture = np.full((120, 160, 3), 60 + 12 * number, np.uint8)
        picture[:, 15 * number:15 * number + 10] = 250
        cv2.imwrite(str(folder / f'{number:02d}.png'), picture)
    cv2.imwrite(str(folder / '20.png'), np.zeros((120, 160, 3), np.uint8))
    cv2.imwrite(str(folder / '21.png'), np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))
    for copy in range(30, 34):
        cv2.imwrite(str(folder / f'{copy}.png'), cv2.imread(str(folder / '00.png')))
    return folder


def test_extremes_come_first_and_each_frame_has_a_reason(pictures: Path) -> None:
    listed = choose(pictures)
    reasons = {frame.name: frame.reason for frame in listed.frames}
    assert len(listed.frames) == 8
    assert reasons['20.png'] == 'darkest'
    assert reasons['21.png'] == 'sharpest'
    assert all(reasons.values())
    assert [frame.stamp_ns for frame in listed.frames] == sorted(frame.stamp_ns for frame in listed.frames)


def test_frames_that_look_like_those_chosen_are_not_taken(pictures: Path) -> None:
    assert len(choose(pictures, count=100).frames) == 12    # of five equal ones, one


def test_the_same_source_gives_the_same_frames(pictures: Path) -> None:
    assert choose(pictures) == choose(pictures)


def test_frames_cost_different_tokens_and_are_asked_different_things(pictures: Path) -> None:
    listed = choose(pictures)
    assert {frame.grid[0] * frame.grid[1] // 4 for frame in listed.frames} == {12, 6, 2}
    assert {frame.prompts for frame in listed.frames} == {(CAPTION, 'count'), (CAPTION, 'path')}


def test_a_list_is_read_as_it_was_written_and_names_its_source_from_where_it_lies(pictures: Path) -> None:
    listed = choose(pictures)
    write_frames(pictures.parent / 'made', listed, PROMPTS)
    assert json.loads((pictures.parent / 'made' / 'frames.json').read_text())['source'] == '../pictures'
    found = read_frames(pictures.parent / 'made' / 'frames.json')
    assert found.frames == listed.frames
    assert read_prompts(pictures.parent / 'made' / 'prompts.jsonl') == PROMPTS
    decoded = list(decoded_frames(found))
    assert [frame for frame, _ in decoded] == list(listed.frames)
    assert decoded[0][1].shape == (120, 160, 3)


@pytest.mark.parametrize('change, text', [('changed', 'is not the frame that the list describes'), ('missing', 'lacks 1 of')])
def test_a_frame_that_is_no_longer_what_it_was_is_an_error(pictures: Path, change: str, text: str) -> None:
    listed = choose(pictures)
    victim = pictures / listed.frames[2].name
    if change == 'changed':
        cv2.imwrite(str(victim), np.full((120, 160, 3), 7, np.uint8))
    else:
        victim.unlink()
    with pytest.raises(CalibrationError, match=text):
        list(decoded_frames(listed))


def test_a_broken_picture_is_left_out_and_told(pictures: Path) -> None:
    (pictures / '22.png').write_bytes(b'not a picture')
    told: list[str] = []
    choose_frames(pictures, 8, max_tokens=12, patch_px=14, merge=2, prompts=[CAPTION], progress=told.append)
    assert any('22.png is left out' in line for line in told)


def test_nothing_to_choose_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match='holds no images'):
        choose(tmp_path)
    (tmp_path / 'list.json').write_text('{}')
    with pytest.raises(CalibrationError, match='is no list of frames'):
        read_frames(tmp_path / 'list.json')
    (tmp_path / 'prompts.jsonl').write_text('count\n')
    with pytest.raises(CalibrationError, match=r'prompts\.jsonl cannot be read'):
        read_prompts(tmp_path / 'prompts.jsonl')


def test_the_committed_list_is_of_the_shipped_recording() -> None:
    pytest.importorskip('rosbags', reason='needs rosbags: pip install rosbags')
    listed = read_frames(ROOT / 'calibration' / 'nano' / 'frames.json')
    prompts = read_prompts(ROOT / 'calibration' / 'nano' / 'prompts.jsonl')
    assert len(listed.frames) > 60
    assert sum(1 for _ in decoded_frames(listed)) == len(listed.frames)
    assert {prompt for frame in listed.frames for prompt in frame.prompts} <= set(prompts)
