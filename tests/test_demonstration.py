"""The demonstration's judge and its pictures; the demonstration itself is run as `make demo` runs it, on a few seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip('cyclonedds', reason='the demonstration plays its recording over Cyclone DDS')

from penguin_ros.demonstration import Demonstration, _sheet, _things_of, _tile  # noqa: E402
from penguin_ros.sim.recording import RecordedFrame  # noqa: E402
from penguin_ros.training.texts import Thing  # noqa: E402


def phrase(text: str, *box: float) -> SimpleNamespace:
    x_min, y_min, x_max, y_max = box or (0.0, 0.0, 0.0, 0.0)
    return SimpleNamespace(text=text, begin=0, end=len(text), has_box=bool(box), x_min=x_min, y_min=y_min, x_max=x_max,
                           y_max=y_max, confidence=0.9, track_id=1)


def scene(stamp_ns: int, *phrases: SimpleNamespace, **changes) -> SimpleNamespace:
    fields = {
        'header': SimpleNamespace(stamp=SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9), frame_id='lens'),
        'caption_stamp': SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9),
        'camera': 'camera', 'caption': 'a red crate.', 'phrases': list(phrases), 'keyframe': True, 'unchanged': False,
        'confidence': 0.9, 'status': 0, 'age_ms': 40.0, 'model': 'tiny', 'engine': '0',
        'tokens': SimpleNamespace(limit=256, used=88, encoded=88)}
    return SimpleNamespace(**{**fields, **changes})


def test_a_published_phrase_is_read_as_the_thing_it_names() -> None:
    person = phrase('a person in blue', 32, 24, 64, 48)
    assert _things_of(person, 240, 320) == [Thing('person', 'blue', None, (0.1, 0.1, 0.2, 0.2))]
    assert _things_of(phrase('a red sign saying 7'), 240, 320)[0].digit == 7


def test_the_score_compares_each_caption_with_the_truth_of_its_own_frame(tmp_path: Path) -> None:
    pixels = np.zeros((240, 320, 3), dtype=np.uint8)
    truth = {'objects': [{'kind': 'crate', 'colour': 'red', 'digit': None, 'box': [0, 0, 160, 120]},
                         {'kind': 'ball', 'colour': 'blue', 'digit': None, 'box': [200, 100, 240, 140]}]}
    it = Demonstration(Path('r.mcap'), tmp_path, 'nano', lambda line: None)
    it._frames = {5: RecordedFrame(5, 'lens', pixels, truth)}
    it._played = {1005: 5}
    it._answers = []
    it._scenes = [scene(1005, phrase('a red crate', 0, 0, 160, 60), phrase('a green cone', 1, 1, 9, 9)),
                  scene(1005, phrase('a red crate', 0, 0, 160, 120), unchanged=True, caption_stamp=None), scene(1005, status=2)]
    summary = it._judge(sent=3)
    assert (summary.frames, summary.scenes, summary.captions, summary.unchanged) == (3, 2, 1, 1)
    assert summary.f1 == pytest.approx(0.5)            # one of two named, one of two true
    assert summary.mean_iou == pytest.approx(0.5)
    assert summary.age_median_ms == 40.0
    it._write(summary)
    assert json.loads((tmp_path / 'summary.json').read_text())['tokens_used_most'] == 88
    assert (tmp_path / 'contact_sheet.png').stat().st_size > 1000


def test_the_contact_sheet_holds_every_tile() -> None:
    tile = _tile(np.full((240, 320, 3), 90, dtype=np.uint8), scene(1, phrase('a red crate', 10, 10, 100, 100)))
    sheet = _sheet([tile] * 5)
    assert tile.shape[1] == 480
    assert sheet.shape[0] > 2 * tile.shape[0]
    assert sheet.shape[1] > 3 * tile.shape[1]


@pytest.mark.skipif(not (ROOT / 'engines/nano/manifest.json').exists(), reason='engines/nano is not built')
def test_the_demonstration_sees_asks_and_ends_by_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, '-m', 'penguin_ros', 'demo', '--out', str(tmp_path), '--seconds', '8'], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['captions'] > 0
    assert summary['unchanged'] > 0
    assert summary['tokens_used_most'] <= summary['tokens_limit']
    assert [answer['success'] for answer in summary['answers']] == [True, True]
    assert (tmp_path / 'contact_sheet.png').exists()
    assert 'age of results' in done.stdout
