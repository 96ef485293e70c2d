"""Ablation runs start alike, are not made twice, and are compared in pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from penguin_ros.cli import train
from penguin_ros.cli.main import main
from penguin_ros.core.errors import ConfigError
from penguin_ros.training import validation
from penguin_ros.training.ablations import BASE, COMPARED, VARIANTS, Study, run_study
from penguin_ros.training.comparison import compare, draw_comparison, markdown_tables
from penguin_ros.training.curriculum import pictures_only
from penguin_ros.training.dataset import open_split
from penguin_ros.training.nano import NanoRun, Trainer, write_model
from penguin_ros.training.network import TowerShape
from tests.training.drawn import draw_split

DOCS = Path(__file__).parents[2] / 'docs'
SMALL = TowerShape(width=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=48)
QUICK = pictures_only(main_grid=(2, 3), rows=2, warmup_steps=2)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has learnt nothing does not know when to stop."""
    monkeypatch.setattr(validation, 'MAX_NEW_TOKENS', {'tokens': 6, 'digits': 6})


@pytest.fixture(scope='module')
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp('study')
    for seed, name in enumerate(('train', 'valid', 'test')):
        draw_split(folder / 'data' / name, 6, seed=seed)
    teacher = Trainer(NanoRun(data=folder, out=folder, tower=replace(SMALL, width=48), curriculum=QUICK))
    write_model(folder / 'teacher', teacher.network, teacher.words)
    return Study(data=folder / 'data', out=folder / 'out', teacher=folder / 'teacher', steps=3, seeds=(1,), looks=1,
                 look_scenes=2, scenes=4, text_steps=2, tower=SMALL, curriculum=QUICK)


def test_runs_are_scored_and_are_not_made_twice(study: Study) -> None:
    variants = [BASE, 'llm-start', 'teacher-no-dense', 'digits']
    lines: list[tuple[str, int, int]] = []
    runs = run_study(study, variants, lambda variant, seed, step, figures: lines.append((variant, seed, step)))
    assert [run['variant'] for run in runs] == variants
    for run in runs:
        assert {'f1', 'iou', 'region', 'colour', 'count', 'answer_loss'} <= run['scores'].keys()
        assert ('dense_loss' in run['scores']) == ('no-dense' not in run['variant'])
        assert [look['step'] for look in run['curve']] == [3]
    lines.clear()
    assert run_study(study, variants, lambda variant, seed, step, figures: lines.append((variant, seed, step))) == runs
    assert lines == []
    assert str(study.data) not in (study.out / 'runs' / 'teacher-no-dense-1.json').read_text()


def test_runs_with_other_settings_are_not_mixed(study: Study) -> None:
    run_study(study, [BASE], lambda *line: None)
    with pytest.raises(ConfigError, match='other max_steps'):
        run_study(replace(study, steps=4), [BASE], lambda *line: None)


def test_an_unknown_variant_is_refused_with_the_names_there_are(study: Study) -> None:
    with pytest.raises(ConfigError, match='no-dense'):
        run_study(study, ['dense'], lambda *line: None)


def test_runs_of_one_seed_start_from_the_same_weights_and_see_the_same_pictures(study: Study) -> None:
    split = open_split(study.data / 'train')
    base = Trainer(study.run(BASE, 1))
    weights = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    seen = base.draw(split, base.deck()).batch
    for variant in set(VARIANTS) - {BASE, 'llm-start'}:
        other = Trainer(study.run(variant, 1))
        assert all(torch.equal(tensor, weights[name]) for name, tensor in other.network.state_dict().items()), variant
        shown = other.draw(split, other.deck()).batch
        assert all(torch.equal(one, two) for one, two in zip(shown.images, seen.images)), variant


def _runs(f1: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [{'variant': name, 'seed': seed, 'scores': {'f1': value}, 'cpu_s': 10.0,
             'curve': [{'step': 1, 'f1': 0.0}, {'step': 2, 'f1': value}]}
            for name, values in f1.items() for seed, value in enumerate(values)]


def test_differences_are_paired_by_seed_and_carry_students_interval() -> None:
    runs = _runs({'base': [0.1, 0.3, 0.5], 'better': [0.2, 0.41, 0.6], 'other': [0.2, 0.2, 0.6]})
    summary = compare(runs, what={'base': 'b', 'better': 'c', 'other': 'd', 'not run': 'e'},
                      pairs=[('better', 'base'), ('other', 'base'), ('not run', 'base')])
    assert set(summary['variants']) == {'base', 'better', 'other'}
    better, other = (found['scores']['f1'] for found in summary['differences'])
    assert better['by_seed'] == {'0': 0.1, '1': 0.11, '2': 0.1}
    assert better['mean'] == pytest.approx(0.1033, abs=1e-4)
    assert (better['low'], better['high']) == pytest.approx((0.089, 0.1177), abs=1e-4)     # 4.303 * 0.00577 / sqrt(3)
    assert summary['variants']['base']['scores']['f1_course']['mean'] == pytest.approx(0.15)
    tables = markdown_tables(summary)
    assert '| better minus base | **+0.103 (+0.089 to +0.118)** |' in tables
    assert '| base | 0.300 ± 0.200 |' in tables
    assert other['low'] < 0 < other['high']


def test_one_seed_has_no_interval() -> None:
    tables = markdown_tables(compare(_runs({'base': [0.1], 'other': [0.2]}), what={'base': 'b', 'other': 'c'},
                                     pairs=[('other', 'base')]))
    assert '| other minus base | +0.100 |' in tables


def test_the_plot_is_drawn_for_any_number_of_variants(tmp_path: Path) -> None:
    for names in (['base', 'a'], ['base', *'abcdefg']):
        draw_comparison(_runs({name: [0.1, 0.2] for name in names}), tmp_path / 'curves.png', base='base')
        assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_the_ablate_command_leaves_tables_and_a_plot(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in train._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)     # else the command would start itself again to get them
    out = tmp_path / 'out'
    assert main(['ablate', '--only', 'base', '--seeds', '1', '--steps', '1', '--scenes', '2', '--data', str(study.data),
                 '--teacher', str(study.teacher), '--out', str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {'runs', 'results.json', 'results.md', 'curves.png'}
    assert json.loads((out / 'results.json').read_text())['variants'].keys() == {BASE}
    assert '| base |' in capsys.readouterr().out


def test_the_documented_tables_are_those_of_the_shipped_results() -> None:
    results = json.loads((DOCS / 'ablations' / 'results.json').read_text())
    summary = compare(results['runs'], what=VARIANTS, pairs=COMPARED)
    assert summary == {name: results[name] for name in summary}
    assert markdown_tables(summary) in (DOCS / 'ablations.md').read_text()
