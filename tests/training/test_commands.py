"""penguin train and penguin eval: from drawn scenes to a model and its scores, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penguin_ros.cli import train
from penguin_ros.cli.main import main
from tests.training.drawn import draw_split


def test_the_train_command_leaves_a_model_its_log_and_its_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in train._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)     # else the command would start itself again to get them
    draw_split(tmp_path / 'data' / 'train', 32, seed=1)
    draw_split(tmp_path / 'data' / 'valid', 8, seed=2)
    out = tmp_path / 'out'
    assert main(['train', 'nano', '--fast', '--hours', '0.0001', '--data', str(tmp_path / 'data'), '--out', str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        'config.json', 'curves.png', 'dialect.json', 'log.jsonl', 'model.safetensors', 'preprocessor_config.json', 'state.pt',
        'tokenizer.json'}
    assert 'answer' in capsys.readouterr().out


def test_the_eval_command_writes_scores_as_json_and_as_a_table(tmp_path: Path) -> None:
    draw_split(tmp_path / 'test', 4, seed=3)
    written = tmp_path / 'scores.json'
    assert main(['eval', 'nano', '--scenes', '3', '--data', str(tmp_path), '--json', str(written), '--captions-only']) == 0
    result = json.loads(written.read_text())
    assert result['pictures'] == 3
    assert set(result['scores']) == {'f1', 'iou', 'set_exact'}
    assert 'kind+colour set F1' in (tmp_path / 'scores.md').read_text()


@pytest.mark.parametrize(('arguments', 'said'), [
    (['eval', 'no/such/engine'], 'holds no built engine'),
    (['eval', 'nano', '--scenes', '0'], 'at least one scene')])
def test_eval_says_what_is_wrong(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


def test_too_few_scenes_are_an_error_not_a_smaller_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_split(tmp_path / 'test', 4, seed=3)
    assert main(['eval', 'nano', '--scenes', '5', '--data', str(tmp_path)]) == 1
    assert 'holds 4 single pictures' in capsys.readouterr().err


def test_a_grid_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['eval', 'nano', '--grid', '6by8'])
    assert '6x8' in capsys.readouterr().err
