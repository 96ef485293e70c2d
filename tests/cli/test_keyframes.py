"""`penguin keyframes` on a small folder: both outputs, and what it says of folders it cannot read."""

import json
import shutil
from pathlib import Path

import pytest

from penguin_ros.cli.main import main

GOLDEN = Path(__file__).parents[1] / 'data/golden_streaming'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cases = [case for case in json.loads((GOLDEN / 'cases.json').read_text())['cases'] if case['name'] == 'grey_camera_cut']
    (tmp_path / 'cases.json').write_text(json.dumps({'cases': cases}))
    (tmp_path / 'sequences').mkdir()
    shutil.copy(GOLDEN / cases[0]['file'], tmp_path / 'sequences')
    return tmp_path


def test_json_names_the_keyframes_of_each_sequence(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['keyframes', str(folder), '--json']) == 0
    assert json.loads(capsys.readouterr().out) == {'grey_camera_cut': [0, 5]}


def test_the_table_gives_reasons(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['keyframes', str(folder)]) == 0
    out = capsys.readouterr().out
    assert 'grey_camera_cut: 2 of 10 frames' in out
    assert '0.50 s  cut: ' in out


def test_the_published_rule_can_be_run_for_comparison(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['keyframes', str(folder), '--mode', 'published']) == 0
    assert 'of the patches differ' in capsys.readouterr().out


def test_a_folder_without_cases_and_a_cut_off_file_are_explained(folder: Path, capsys: pytest.CaptureFixture) -> None:
    path = folder / 'sequences/grey_camera_cut.npz'
    path.write_bytes(path.read_bytes()[:5000])
    assert main(['keyframes', str(folder)]) == 1
    assert 'It may be cut off' in capsys.readouterr().err
    (folder / 'cases.json').write_text('{}')
    assert main(['keyframes', str(folder)]) == 1
    assert 'laid out like' in capsys.readouterr().err
