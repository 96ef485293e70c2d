import pytest

from penguin_ros.cli.main import main


def test_help_names_the_policies_and_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(['bench', '--help'])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for word in ('recording', 'drive', 'drafts', 'forgetting', 'ageing', 'c, the published TRA', '--real-size'):
        assert word in text


def test_an_engine_that_is_nowhere_is_told_before_anything_is_measured(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    pytest.importorskip('onnxruntime')
    assert main(['bench', '--engine', 'nowhere/at/all', '--out', str(tmp_path / 'out')]) == 1
    assert 'penguin build' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
