"""penguin replay says what came of a recording, and fails where the recording was not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from penguin_ros.cli.main import main
from tests.dds.plain_perception import plain_perception
from tests.dds.recordings import write_recording


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('penguin_ros.assemble.assemble', plain_perception)


def test_the_summary_and_the_captions_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_recording(tmp_path / 'drive.mcap', ['red', 'red', 'blue']), tmp_path / 'out.mcap'
    assert main(['replay', str(source), str(target), '--captions']) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ['1760000000.000 front: a red scene [another colour]',
                         '1760000000.200 front: a blue scene [another colour]',
                         '3 images of front: 2 captions, 1 unchanged, 2 keyframes, 0 refused']
    assert shown[-1] == str(target)
    assert target.exists()


def test_a_program_reads_the_summary_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red', 'red', 'blue'])
    assert main(['replay', str(source), str(tmp_path / 'out.mcap'), '--json', '--captions']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary['images'], summary['captions'], summary['damage']) == (3, 2, '')
    assert summary['cameras'] == {'front': '/front/image_raw'}


def test_a_recording_that_is_cut_off_is_used_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red'] * 20, height=240, width=320)
    source.write_bytes(source.read_bytes()[:3_000_000])
    assert main(['replay', str(source), str(tmp_path / 'out.mcap')]) == 1
    shown = capsys.readouterr()
    assert 'images of front' in shown.out
    assert 'drive.mcap is cut off' in shown.err
    assert 'out.mcap holds what could be read' in shown.err


def test_nothing_is_written_over_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_recording(tmp_path / 'drive.mcap', ['red']), tmp_path / 'out.mcap'
    target.write_bytes(b'precious')
    assert main(['replay', str(source), str(target)]) == 1
    assert target.read_bytes() == b'precious'
    assert 'would be lost' in capsys.readouterr().err
    assert main(['replay', str(source), str(target), '--force']) == 0
    assert target.read_bytes() != b'precious'


def test_cameras_and_settings_are_taken_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red'], rear=True)
    config = tmp_path / 'config.yaml'
    config.write_text('penguin:\n  ros__parameters:\n    window: {frames: 3}\n')
    target = tmp_path / 'out.mcap'
    assert main(['replay', str(source), str(target), '--camera', 'back=/rear/image_raw/compressed', '--config', str(config),
                 '--set', 'caption.drafted=false']) == 0
    assert '1 images of back' in capsys.readouterr().out
    for bad, words in ((['--set', 'window.frame=3'], 'did you mean window.frames'),
                       (['--camera', 'x=/none'], 'no images on /none'), (['--set', 'frames'], 'is not NAME=VALUE'),
                       (['--config', 'none.yaml'], 'cannot be read'),
                       (['--set', 'window.frames=0'], 'window.frames is 0; it can be 1 to')):
        assert main(['replay', str(source), str(target), '--force', *bad]) == 1
        assert words in capsys.readouterr().err
