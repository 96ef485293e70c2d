"""A few seconds of training learn something, go on where they stopped, and leave a model the node can load."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from penguin_ros.core.dialect import read_dialect
from penguin_ros.core.errors import ConfigError, RecordingError
from penguin_ros.core.words import read_words
from penguin_ros.model.checkpoint import load_model
from penguin_ros.training.curriculum import (
    Curriculum,
    at_once,
    going_deeper,
    going_on,
    looking_back,
    looking_closer,
    measuring,
    pictures_only,
)
from penguin_ros.training.curves import draw_curves
from penguin_ros.training.dataset import open_split
from penguin_ros.training.nano import NanoRun, Trainer, decoder_layers_of, nano_dialect, train_nano
from penguin_ros.training.network import TowerShape
from penguin_ros.training.rows import Layout
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
    draw_curves([tmp_path / 'log.jsonl'], tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_a_second_run_starts_from_the_weights_of_the_first(data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / 'first', tmp_path / 'second'
    train_nano(_run(data, first, max_steps=2))
    trainer = Trainer(_run(data, second))
    trainer.start_from_weights(first)
    ours, theirs = trainer.network.checkpoint(), load_file(first / 'model.safetensors')
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name].float()).all()) for name in theirs)
    train_nano(_run(data, second, max_steps=1, start_from=first))
    assert json.loads((second / 'log.jsonl').read_text().splitlines()[0])['run']['start_from'] == str(first)


@pytest.mark.parametrize(('change', 'said'), [
    (lambda folder: (folder / 'model.safetensors').unlink(), 'no nano model of this shape'),
    (lambda folder: (folder / 'model.safetensors').write_bytes(b'no tensors'), 'no nano model of this shape'),
    (lambda folder: (folder / 'tokenizer.json').write_text(
        (folder / 'tokenizer.json').read_text().replace('<box>', '<b0x>')), 'other words')])
def test_weights_that_do_not_fit_are_refused(data: Path, tmp_path: Path, change: Callable[[Path], Any], said: str) -> None:
    train_nano(_run(data, tmp_path / 'first', max_steps=1))
    change(tmp_path / 'first')
    with pytest.raises(ConfigError, match=said):
        train_nano(_run(data, tmp_path / 'second', max_steps=1, start_from=tmp_path / 'first'))


def test_without_clips_long_enough_for_the_course_it_says_so(data: Path, tmp_path: Path) -> None:
    course = replace(looking_back(), low_until=0.0, single_until=0.0, main_share=0.0, video_share=1.0, montage_share=0.0)
    with pytest.raises(RecordingError, match=r'holds \d+ frames'):
        train_nano(replace(_run(data, tmp_path, max_steps=1), curriculum=course))


def test_without_scenes_it_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match='penguin sim dataset'):
        train_nano(_run(tmp_path / 'nothing', tmp_path / 'out', max_steps=1))


def test_sizes_grow_and_videos_join_as_the_run_goes_on() -> None:
    course, rng = Curriculum(), random.Random(3)
    assert {course.layout(rng, 0.01)[0].grids for _ in range(50)} == {(course.low_grid,)}
    assert {course.layout(rng, 0.1)[0].grids for _ in range(50)} == {(course.main_grid,)}
    later = [course.layout(rng, 0.5) for _ in range(400)]
    assert {len(layout.grids) for layout, _ in later} == set(range(1, 13))
    assert all(4 <= rows <= course.rows for _, rows in later)
    assert max(sum(rows * columns for rows, columns in layout.grids) for layout, _ in later) < 400


def test_a_run_that_goes_on_asks_more_about_videos() -> None:
    course, rng = going_on(), random.Random(3)
    layouts = [course.layout(rng, 0.0) for _ in range(400)]
    videos = [layout for layout, _ in layouts if len(layout.grids) > 1]
    assert 0.4 < len(videos) / len(layouts) < 0.6
    assert all(layout.time_questions == 8 and len(set(layout.grids[:-1])) <= 2 for layout in videos)
    assert not any(layout.is_montage for layout in videos)
    assert all(4 <= rows <= course.rows for _, rows in layouts)
    assert course.short_weight_at(0.0) == course.short_weight_at(course.short_answers_fall_from) == 3.0
    assert 1.0 < course.short_weight_at(0.9) < 3.0
    assert course.short_weight_at(1.0) == Curriculum().short_weight_at(0.0) == 1.0


def test_a_run_that_looks_back_has_fewer_montages_in_time() -> None:
    course, rng = looking_back(), random.Random(3)

    def videos(progress: float) -> list[Layout]:
        layouts = [course.layout(rng, progress) for _ in range(600)]
        assert all(4 <= rows <= course.rows for _, rows in layouts)
        return [layout for layout, _ in layouts if len(layout.grids) > 1]

    early, late = videos(0.15), videos(1.0)
    for found, share in ((early, 0.54), (late, 0.2)):
        assert 0.43 < len(found) / 600 < 0.57
        assert sum(layout.is_montage for layout in found) / len(found) == pytest.approx(share, abs=0.1)


def test_a_run_that_looks_closer_asks_more_about_changes_and_shows_clips_backwards() -> None:
    course, rng = looking_closer(), random.Random(3)
    videos = [layout for layout, _ in (course.layout(rng, 0.5) for _ in range(400)) if len(layout.grids) > 1]
    assert all(layout.change_weight == 2.0 for layout in videos)
    assert 0.1 < sum(layout.is_montage for layout in videos) / len(videos) < 0.35
    assert course.backwards_share > 0.0 == looking_back().backwards_share


def test_a_run_that_measures_sees_more_single_pictures_of_the_main_size() -> None:
    def share(course: Curriculum) -> float:
        rng = random.Random(4)
        return sum(course.layout(rng, 0.5)[0].grids == (course.main_grid,) for _ in range(2000)) / 2000

    assert share(measuring()) > share(looking_closer()) + 0.05


def test_what_is_asked_besides_the_answers_fades_until_they_decide() -> None:
    course = looking_back()
    assert going_deeper().memory_weight_at(0.0) > 0.0
    for weight_at, peak in ((course.memory_weight_at, course.memory_weight), (course.pointer_weight_at, course.pointer_weight)):
        assert weight_at(0.0) == weight_at(course.dense_falls_from) == peak > 0.0
        assert weight_at(1.0) == pytest.approx(peak / 4)
    assert going_on().memory_weight_at(0.0) == going_deeper().pointer_weight_at(0.0) == 0.0


def test_a_run_that_looks_back_learns_from_clips_and_montages_and_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    draw_split(tmp_path / 'data' / 'train', 20, seed=5, frames=5)
    draw_split(tmp_path / 'data' / 'valid', 4, seed=6, frames=4)
    train_nano(_run(data, tmp_path / 'first', max_steps=1))
    course = replace(looking_closer(), main_grid=(4, 5), rows=4, video_share=0.6, long_share=0.0, heads_alone_steps=1)
    run = replace(_run(tmp_path / 'data', tmp_path / 'out', start_from=tmp_path / 'first', decoder_layers=3, max_steps=6),
                  curriculum=course)
    train_nano(run)
    train_nano(replace(run, max_steps=8), resume=True)
    assert _losses(tmp_path / 'out' / 'log.jsonl', 'step') == list(range(1, 9))
    for name in ('memory_loss', 'pointer_loss', 'dense_loss'):
        told = [loss > 0 for loss in _losses(tmp_path / 'out' / 'log.jsonl', name)]
        assert all(told) or (name == 'pointer_loss' and sum(told) > 4), 'four pictures of nothing point nowhere'
    assert decoder_layers_of(tmp_path / 'out') == load_model(tmp_path / 'out').config.decoder.layers == 3
    draw_curves([tmp_path / 'out' / 'log.jsonl'], tmp_path / 'curves.png')


def test_at_first_the_encoder_learns_alone(tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips' / 'train', 20, seed=5)
    course = replace(at_once(), low_grid=(3, 4), main_grid=(4, 5), rows=4, low_until=0.2, sees_until=0.6, single_until=1.0,
                     warmup_steps=1)
    trainer = Trainer(replace(_run(tmp_path / 'clips', tmp_path, decoder_layers=3, max_steps=5), curriculum=course))
    split, deck = open_split(tmp_path / 'clips' / 'train'), trainer.deck()

    def taught() -> set[str]:
        before = {name: tensor.detach().clone() for name, tensor in trainer.network.named_parameters()}
        loss = trainer.train_step(trainer.draw(split, deck))
        changed = {name.split('.')[0] for name, tensor in trainer.network.named_parameters() if not tensor.equal(before[name])}
        assert loss.dense > 0
        assert (loss.answer > 0) == ('embedding' in changed)
        return changed

    steps = [taught() for _ in range(5)]
    eye = {'patch', 'encoder', 'encoder_norm'}
    assert steps == [eye] * 3 + [eye | {'projector', 'embedding', 'decoder', 'decoder_norm'}] * 2


def test_a_run_that_stops_while_the_encoder_learns_alone_goes_on_with_the_decoder(tmp_path: Path) -> None:
    for seed, split in enumerate(('train', 'valid')):
        draw_split(tmp_path / 'clips' / split, 12, seed=seed)
    course = replace(at_once(), low_grid=(3, 4), main_grid=(4, 5), rows=4, sees_until=0.6, single_until=1.0)
    run = replace(_run(tmp_path / 'clips', tmp_path / 'out', decoder_layers=3), curriculum=course)
    train_nano(replace(run, max_steps=2))
    train_nano(replace(run, max_steps=5), resume=True)
    assert [loss > 0 for loss in _losses(tmp_path / 'out' / 'log.jsonl', 'answer_loss')] == [False] * 3 + [True] * 2


def test_one_run_asks_for_all_that_six_ask_for() -> None:
    course, last, rng = at_once(), measuring(), random.Random(3)
    later = [course.layout(rng, 0.5)[0] for _ in range(400)]
    assert {len(layout.grids) for layout in later} == set(range(1, 13))
    videos = [layout for layout in later if len(layout.grids) > 1]
    assert all((layout.time_questions, layout.change_weight) == (last.time_questions, last.change_weight) for layout in videos)
    assert {layout.is_montage for layout in videos} == {True, False}
    assert min(course.memory_weight, course.pointer_weight, course.dense_weight, course.backwards_share) > 0.0
    assert course.dense_distance


def test_learning_rate_warms_up_and_falls_and_the_dense_loss_fades() -> None:
    course = Curriculum()
    assert course.lr_share(0, 0.0) < 0.02
    assert course.lr_share(10_000, 0.0) == pytest.approx(1.0)
    assert course.lr_share(10_000, 1.0) == pytest.approx(course.last_lr_share)
    assert course.dense_weight_at(0.0) == 1.0
    assert course.dense_weight_at(1.0) == pytest.approx(0.2)
