"""penguin sim refuses what it cannot do with one explained line."""

from __future__ import annotations

from pathlib import Path

import pytest

from penguin_ros.cli.main import main


def test_a_recording_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed: pip install "penguin_ros[dds]"')
    target = tmp_path / 'drive.mcap'
    target.write_bytes(b'precious')
    assert main(['sim', 'record', str(target), '--seconds', '1']) == 1
    assert 'exists already' in capsys.readouterr().err
    assert target.read_bytes() == b'precious'


@pytest.mark.parametrize('arguments', [['--seconds', '0'], ['--rate', '-1']])
def test_a_recording_without_length_is_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        main(['sim', 'record', str(tmp_path / 'drive.mcap'), *arguments])
    assert refused.value.code == 2
