"""penguin train and penguin eval: from drawn scenes to a model and its scores, and what they refuse."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from penguin_ros.assemble import engine_folder
from penguin_ros.backends.manifest import hash_files, load_manifest, read_manifest
from penguin_ros.cli import train
from penguin_ros.cli.main import main
from penguin_ros.core.confidence import ConfidenceScale, read_confidence, weights_fitted_on
from penguin_ros.training.nano import NanoRun, decoder_layers_of
from penguin_ros.training.network import TowerShape
from tests.training.drawn import draw_split

eval_command = importlib.import_module('penguin_ros.cli.eval')


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


def test_the_train_command_trains_six_times_and_can_go_on_from_any_model(tmp_path: Path,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in train._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    narrow = partial(TowerShape, width=96, heads=3, ffn=128)        # of as many layers as ever
    monkeypatch.setattr('penguin_ros.training.network.TowerShape', narrow)
    data, out, more = tmp_path / 'data', tmp_path / 'out', tmp_path / 'more'
    for seed, split in enumerate(('train', 'train-video', 'valid', 'valid-video')):
        draw_split(data / split, 14, seed=seed, frames=12)
    quick = ['--hours', '0.00005', '--no-compile', '--processes', '1', '--data', str(data)]
    assert main(['train', 'nano', '--out', str(out), *quick]) == 0
    assert main(['train', 'nano', '--from', str(out / 'second'), '--runs', 'sixth', '--out', str(more), *quick]) == 0

    def began(folder: Path) -> tuple[str | None, int]:
        run = json.loads((folder / 'log.jsonl').read_text().splitlines()[0])['run']
        return run['start_from'], run['seed']

    folders = [out / 'first', out / 'second', out / 'third', out / 'fourth', out / 'fifth', out, more]
    assert [began(folder) for folder in folders] == [
        (None, 7), (str(out / 'first'), 8), (str(out / 'second'), 9), (str(out / 'third'), 10), (str(out / 'fourth'), 11),
        (str(out / 'fifth'), 12), (str(out / 'second'), 12)]
    assert [decoder_layers_of(folder) for folder in folders] == [4, 4, 6, 6, 6, 6, 6]
    assert not [path for path in more.iterdir() if path.is_dir()]
    assert main(['train', 'nano', '--from', str(tmp_path / 'nothing'), '--data', str(tmp_path / 'none')]) == 1
    assert not (tmp_path / 'none').exists(), 'nothing is rendered for a run that cannot begin'
    once = tmp_path / 'once'
    assert main(['train', 'nano', '--at-once', '--llm-start', '1', *quick, '--out', str(once)]) == 0
    assert (began(once), decoder_layers_of(once)) == ((None, 7), 6)
    assert not [path for path in once.iterdir() if path.is_dir()]


@pytest.mark.parametrize(('words', 'remedy'), [
    ('--fast --at-once', 'Give one or the other'), ('--fast --from engines/nano', 'Give one or the other'),
    ('--from engines/nano --teacher engines/nano', 'begins with random weights; with --from it does not'),
    ('--from engines/nano --llm-start 5', 'begins with random weights; with --from it does not'),
    ('--at-once --runs first', 'Give one or the other'), ('--runs second', 'Name the first in --runs or give --from'),
    ('--from engines/nano --runs first sixth', 'Name the first in --runs or give --from'),
    ('--hours 0', '--hours is more than 0'), ('--by-steps --hours 1', '--by-steps takes its place')])
def test_options_that_do_not_go_together_are_refused_before_anything_is_done(
        words: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in train._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert main(['train', 'nano', '--data', str(tmp_path / 'data'), *words.split()]) == 1
    assert remedy in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_hours_given_are_shared_by_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[NanoRun] = []
    for name, value in train._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr('penguin_ros.training.nano.train_nano', lambda run, **_: begun.append(run))
    monkeypatch.setattr('penguin_ros.training.curves.draw_curves', lambda *_: None)
    monkeypatch.setattr(train, 'render_missing', lambda *_: None)
    data = ['--data', str(tmp_path)]
    assert main(['train', 'nano', *data]) == main(['train', 'nano', '--hours', '9.8', *data]) == 0
    assert [round(run.minutes) for run in begun] == [39, 12, 36, 90, 51, 66, 78, 24, 72, 180, 102, 132]
    begun.clear()
    assert main(['train', 'nano', '--by-steps', '--runs', 'second', 'first', *data]) == 0
    assert [(run.max_steps, run.curriculum.peak_lr) for run in begun] == [(6690, 1.1e-3), (1685, 4e-4)], 'in their own order'


def test_the_fast_run_clearly_learns_from_nothing_but_a_seed(tmp_path: Path) -> None:
    """The whole command as a newcomer types it: it renders its scenes, trains a small model and tells how it does."""
    pytest.importorskip('mujoco')
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'penguin_ros', 'train', 'nano', '--fast', '--by-steps', '--threads', '1',
               '--data', str(tmp_path / 'data'), '--out', str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]
    steps = [line for line in lines if 'step' in line]
    assert steps[-1]['answer_loss'] < 0.75 * steps[0]['answer_loss']
    # A model that has learnt nothing names nothing right: in held-out pictures it finds less than 3 in 100 things.
    assert steps[-1]['valid']['f1'] > 0.12, steps[-1]['valid']
    assert f'F1 {steps[-1]["valid"]["f1"]:.3f}' in done.stdout


def _told_of_a_run_of(per_s: float, capsys: pytest.CaptureFixture[str], *, first_min: int = 1,
                      max_steps: int | None = None) -> str:
    run = NanoRun(data=Path('data'), out=Path('out'), minutes=100.0, max_steps=max_steps)
    lines = train._Lines(run, train._Course(hours=100 / 60, steps=100, pictures=420_000, purpose=''))
    lines({'run': {}})
    for minute in range(first_min, 101):
        lines({'step': minute, 'images': int(minute * 60 * per_s), 'images_per_s': per_s, 'trained_s': minute * 60.0,
               'answer_loss': 1.0, 'dense_loss': 1.0, 'memory_loss': 0.0, 'pointer_loss': 0.0})
    shown = capsys.readouterr().out.splitlines()
    assert sum('images/s' in line for line in shown) == 101 - first_min
    return '\n'.join(line for line in shown if 'images/s' not in line)


def test_a_slow_machine_is_told_in_time_what_would_mend_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert _told_of_a_run_of(20.0, capsys) == (
        'at 20 pictures a second this run will see about 120,000; the one whose scores are in engines/nano/README.md saw '
        '420,000. For as many: stop it and go on with --resume --by-steps, which takes this machine 3.5 times as long')
    assert not _told_of_a_run_of(60.0, capsys), 'it sees six in seven of them'
    assert not _told_of_a_run_of(20.0, capsys, first_min=31), 'resumed after it was told'
    assert not _told_of_a_run_of(20.0, capsys, max_steps=100), 'it makes its steps'


def test_only_what_is_missing_of_the_scenes_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr('penguin_ros.sim.dataset.generate_dataset',
                        lambda folder, split, clips, **_: asked.append((split, clips)))
    for split in ('whole', 'begun', 'brought'):
        draw_split(tmp_path / split, 2, seed=1)
    for split in ('whole', 'begun'):        # rendered by us, where a number of clips is known to be meant
        (tmp_path / split / 'dataset.json').write_text(json.dumps({'split': split}))
    train.render_missing(tmp_path, {'whole': 2, 'begun': 3, 'brought': 3, 'missing': 3})
    assert asked == [('begun', 3), ('missing', 3)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few held-out scenes of every split."""
    for seed, (split, clips) in enumerate((('test', 4), ('test-video', 2), ('valid', 3), ('valid-video', 1))):
        draw_split(tmp_path / 'data' / split, clips, seed=3 + seed, frames=3 if split.endswith('video') else 1)
    return tmp_path / 'data'


def test_the_eval_command_writes_scores_as_json_table_and_plots(data: Path, tmp_path: Path) -> None:
    written = tmp_path / 'out' / 'scores.json'
    assert main(['eval', 'nano', '--scenes', '3', '--data', str(data), '--json', str(written)]) == 0
    result = json.loads(written.read_text())
    assert (result['pictures'], result['clips'], result['name'], result['backend']) == (3, 2, 'nano', 'onnx')
    assert {'f1', 'iou', 'set_exact', 'video_f1', 'region', 'time'} <= set(result['scores'])
    assert {'value', 'low', 'high', 'count'} <= set(result['scores']['f1'])
    assert {'phrase', 'choice', 'answer', 'caption'} == set(result['reliability'])
    assert 'kind+colour set F1' in written.with_suffix('.md').read_text()
    assert {path.name for path in written.parent.iterdir()} == {
        'scores.json', 'scores.md', 'scores.png', 'scores_reliability.png'}


def test_eval_compares_each_backend_at_each_size(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / 'out' / 'compared.json'
    assert main(['eval', 'nano', '--scenes', '2', '--clips', '0', '--captions-only', '--data', str(data), '--backend', 'onnx',
                 '--backend', 'torch', '--grid', '4x5', '--grid', '6x8', '--json', str(written)]) == 0
    runs = json.loads(written.read_text())['runs']
    assert [(run['backend'], run['token_grid']) for run in runs] == [
        ('onnx', '4x5'), ('onnx', '6x8'), ('torch', '4x5'), ('torch', '6x8')]
    by_backend = [[run['scores'] for run in runs if run['backend'] == backend] for backend in ('onnx', 'torch')]
    assert by_backend[0] == by_backend[1], 'the same weights see the same'
    assert '| what | nano fp32, onnx, 4x5 | nano fp32, onnx, 6x8 |' in capsys.readouterr().out
    assert (written.parent / 'compared_budgets.png').exists()


def test_eval_fits_confidences_and_keeps_them_with_the_engine(data: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_command, '_FIT_PICTURES', 3)
    engine = tmp_path / 'engine'
    shutil.copytree(engine_folder('nano'), engine)
    before = read_manifest(engine).engine_hash
    assert main(['eval', str(engine), '--scenes', '3', '--data', str(data), '--fit-confidence',
                 '--json', str(tmp_path / 'scores.json')]) == 0
    manifest = load_manifest(engine, backend='onnx')        # every file as its manifest has it
    assert 'confidence.json' in manifest.files
    assert manifest.engine_hash != before
    assert read_confidence(engine) != ConfidenceScale()
    assert weights_fitted_on(engine) == {'model.safetensors': manifest.files['model.safetensors'].sha256}
    assert json.loads((tmp_path / 'scores.json').read_text())['engine'] == manifest.engine_hash, 'scored with the scale'


def test_scales_of_confidence_are_not_carried_to_other_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / 'checkpoint'
    shutil.copytree(engine_folder('nano'), checkpoint)
    weights = hash_files(checkpoint, ['model.safetensors'])['model.safetensors'].sha256
    recipe = tmp_path / 'nano.yaml'
    recipe.write_text('model: penguin-nano\ncheckpoint: checkpoint\noutput: engine\nbackend: onnx\n')

    def carried(fitted_on: str) -> bool:
        stated = json.loads((checkpoint / 'confidence.json').read_text())
        stated['fitted']['weights'] = {'model.safetensors': fitted_on}
        (checkpoint / 'confidence.json').write_text(json.dumps(stated))
        assert main(['build', str(recipe)]) == 0
        manifest = load_manifest(tmp_path / 'engine', backend='onnx')
        assert ('confidence.json' in manifest.files) == (tmp_path / 'engine' / 'confidence.json').exists()
        return 'confidence.json' in manifest.files

    assert carried(weights)
    assert not carried('0' * 64)
    assert '--fit-confidence' in capsys.readouterr().out


def test_eval_shows_what_visual_tokens_buy(data: Path, tmp_path: Path) -> None:
    written = tmp_path / 'out' / 'streams.json'
    assert main(['eval', 'nano', '--streams', '--clips', '2', '--budget', '96', '--data', str(data),
                 '--json', str(written)]) == 0
    streams = json.loads(written.read_text())['streams']
    points = {one['policy']: one for one in streams['points']}
    assert list(points) == ['a', 'c', 'e']
    assert points['a']['tokens_per_minute'] > points['e']['tokens_per_minute'] > 0
    assert points['e']['tokens_held_mean'] <= 96
    assert points['a']['scores']['f1']['count'] == 6
    assert points['a']['scores']['time']['count'] == points['e']['scores']['time']['count'] > 0, 'the same questions'
    assert {path.name for path in written.parent.iterdir()} == {'streams.json', 'streams.md', 'streams.png'}


@pytest.mark.parametrize(('arguments', 'said'), [
    (['eval', 'no/such/engine'], 'holds no built engine'),
    (['eval', 'nano', '--scenes', '0'], 'at least one scene'),
    (['eval', 'nano', '--clips', '-1'], 'give 0 or more'),
    (['eval', 'nano', 'nano', '--fit-confidence'], 'one engine and one backend'),
    (['eval', 'nano', '--captions-only', '--fit-confidence'], 'needs captions and answers'),
    (['eval', 'nano', '--streams', '--budget', '0'], '1 or more')])
def test_eval_says_what_is_wrong(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, '--data', 'no/such/folder']) == 1
    assert said in capsys.readouterr().err


def test_too_few_scenes_are_an_error_not_a_smaller_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_split(tmp_path / 'test', 4, seed=3)
    assert main(['eval', 'nano', '--scenes', '5', '--data', str(tmp_path)]) == 1
    assert 'holds 4 single pictures' in capsys.readouterr().err


def test_a_grid_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['eval', 'nano', '--grid', '6by8'])
    assert '6x8' in capsys.readouterr().err
