"""A few seconds of training learn something, go on where they stopped, and leave a model the node can load."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penguin_ros.core.dialect import read_dialect
from penguin_ros.core.errors import RecordingError
from penguin_ros.core.words import read_words
from penguin_ros.model.checkpoint import load_model
from penguin_ros.training.curriculum import Curriculum, pictures_only
from penguin_ros.training.curves import draw_curves
from penguin_ros.training.nano import NanoRun, nano_dialect, train_nano
from penguin_ros.training.network import TowerShape
from tests.training.drawn import draw_split

QUICK = pictures_only(main_grid=(4, 5), rows=8, warmup_steps=15)


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    draw_split(folder / 'train', 240, seed=1)
    draw_split(folder / 'valid', 16, seed=2)
    return folder


def _run(data: Path, out: Path, **changes: Any) -> NanoRun:
    return NanoRun(data=data, out=out, minutes=60, tower=TowerShape(layers=2), curriculum=QUICK, compile_blocks=False,
                   look_scenes=8, look_every_s=0.0, **changes)


def _losses(log: Path, name: str) -> list[float]:
    return [line[name] for line in map(json.loads, log.read_text().splitlines()) if 'step' in line]


def test_a_hundred_steps_clearly_learn_to_see_and_to_answer(data: Path, tmp_path: Path) -> None:
    run = replace(_run(data, tmp_path, max_steps=100), look_every_s=1e9)
    lines: list[dict[str, Any]] = []
    train_nano(replace(run, line_every_s=1.0), report=lines.append)
    dense, answer = (_losses(tmp_path / 'log.jsonl', name) for name in ('dense_loss', 'answer_loss'))
    # Without having learnt anything the answers cost log(584) = 6.4 a token, and the dense loss starts above 5.
    assert answer[-1] < 2.6
    assert dense[-1] < 0.6 * dense[0]
    assert lines[-1]['valid'].keys() >= {'f1', 'iou', 'colour', 'count'}


def test_a_run_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    train_nano(_run(data, tmp_path, max_steps=3))
    train_nano(_run(data, tmp_path, max_steps=5), resume=True)
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [line['resumed_at_step'] for line in lines if 'run' in line] == [0, 3]
    assert [line['step'] for line in lines if 'step' in line] == [1, 2, 3, 4, 5]


def test_what_comes_out_is_a_checkpoint_with_its_tokenizer_and_dialect(data: Path, tmp_path: Path) -> None:
    train_nano(_run(data, tmp_path, max_steps=1))
    model = load_model(tmp_path)
    words = read_words(tmp_path)
    assert model.config.decoder.vocabulary > words.end_id
    assert read_dialect(tmp_path) == nano_dialect()
    draw_curves(tmp_path / 'log.jsonl', tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_without_scenes_it_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match='penguin sim dataset'):
        train_nano(_run(tmp_path / 'nothing', tmp_path / 'out', max_steps=1))


def test_the_stages_follow_each_other_and_sizes_grow() -> None:
    course, rng = Curriculum(), random.Random(3)
    assert [course.stage(progress) for progress in (0.0, 0.3, 0.9)] == ['decoder', 'encoder', 'both']
    assert {len(course.layout(rng, 0.05)[0].grids) for _ in range(50)} == {1}
    imagined = [course.layout(rng, 0.15)[0] for _ in range(400)]
    assert not any(layout.pictures for layout in imagined)
    assert {len(layout.grids) for layout in imagined} == set(range(1, 13))
    assert {course.layout(rng, 0.185)[0].grids for _ in range(50)} == {(course.low_grid,)}
    seen = [course.layout(rng, 0.3)[0] for _ in range(200)]
    assert all(len(layout.grids) == 1 and layout.pictures and not layout.questions for layout in seen)
    assert len({layout.grids for layout in seen}) > 10
    later = [course.layout(rng, 0.7) for _ in range(400)]
    assert {len(layout.grids) for layout, _ in later} == set(range(1, 13))
    assert all(4 <= rows <= course.rows and layout.pictures for layout, rows in later)
    assert max(sum(rows * columns for rows, columns in layout.grids) for layout, _ in later) < 500


def test_the_end_of_the_course_takes_the_longer() -> None:
    course = Curriculum()
    time, done = course.knee
    assert time < done
    assert [course.course_at(progress) for progress in (0.0, time / 2, time, 1.0)] == pytest.approx([0.0, done / 2, done, 1.0])
    assert course.course_at(0.9) - course.course_at(0.8) < course.course_at(0.2) - course.course_at(0.1)
    assert pictures_only().course_at(0.3) == pytest.approx(0.3)


def test_short_answers_count_more_until_late() -> None:
    course = Curriculum()
    assert course.short_weight_at(0.0) == course.short_weight_at(0.5) == 3.0
    assert course.short_weight_at(1.0) == 1.0
    assert 1.0 < course.short_weight_at(0.9) < 3.0


def test_losses_towards_the_oracle_fade_and_without_its_stages_there_is_none() -> None:
    course = Curriculum()
    assert course.oracle_weight_at(0.1) == pytest.approx(course.oracle_weight)
    assert course.oracle_weight_at(1.0) == 0.0
    assert not pictures_only().has_oracle
    assert pictures_only().oracle_weight_at(0.5) == 0.0
    assert pictures_only().stage(0.0) == 'both'


def test_learning_rate_warms_up_and_falls_and_the_dense_loss_fades() -> None:
    course = Curriculum()
    assert course.lr_share(0, 0.0) < 0.02
    assert course.lr_share(10_000, 0.0) == pytest.approx(1.0)
    assert course.lr_share(10_000, 1.0) == pytest.approx(course.last_lr_share)
    assert course.dense_weight_at(0.0) == 1.0
    assert course.dense_weight_at(1.0) == pytest.approx(0.2)
