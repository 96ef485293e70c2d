"""The oracle says what stands where, the decoder learns from it without a picture, and the encoder learns to say the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from penguin_ros.training.curriculum import ClipDeck, Curriculum
from penguin_ros.training.dataset import Split, open_split
from penguin_ros.training.nano import NanoRun, Trainer, train_nano
from penguin_ros.training.network import TowerShape
from penguin_ros.training.objective import decoder_loss, encode_batch, encoder_loss, step_loss
from penguin_ros.training.oracle import Oracle, blurred, reconstruction_loss
from penguin_ros.training.rows import Batch, Layout, build_batch
from tests.training.drawn import draw_split

SMALL = TowerShape(width=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=48)
STAGES = Curriculum(main_grid=(3, 4), low_grid=(3, 4), rows=4, warmup_steps=2, decoder_until=0.3, encoder_until=0.6,
                    low_until=0.4, single_until=0.6)
GRIDS = ((3, 4), (3, 4), (4, 5))


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    draw_split(folder / 'train', 24, seed=1, frames=12)
    draw_split(folder / 'valid', 4, seed=2, frames=4)
    return folder


@pytest.fixture
def split(data: Path) -> Split:
    return open_split(data / 'train')


@pytest.fixture
def trainer(data: Path, tmp_path: Path) -> Trainer:
    return Trainer(_run(data, tmp_path, 10))


def _run(data: Path, out: Path, steps: int) -> NanoRun:
    return NanoRun(data=data, out=out, minutes=60, max_steps=steps, tower=SMALL, curriculum=STAGES, compile_blocks=False,
                   look_scenes=4, look_every_s=0.0)


def _batch(split: Split, trainer: Trainer, *, pictures: bool = True) -> Batch:
    return build_batch(split, split.clips[:3], Layout(grids=GRIDS, pictures=pictures), trainer.words, random.Random(4))


def _learnt(module: torch.nn.Module) -> bool:
    return any(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in module.parameters())


def test_tokens_differ_where_and_only_where_the_truth_does(split: Split, trainer: Trainer) -> None:
    batch = _batch(split, trainer)
    oracle = Oracle(32)
    targets = batch.dense[2]
    before = oracle(targets, 5)
    stands = targets.kind > 0
    assert stands.any()
    assert not stands.all()
    others = (targets.colour[stands] + 1) % 6
    after = oracle(replace(targets, colour=targets.colour.masked_scatter(stands, others)), 5)
    assert torch.equal((before - after).abs().sum(dim=-1) > 1e-4, stands)


def test_middles_mark_each_thing_once(split: Split, trainer: Trainer) -> None:
    batch = build_batch(split, split.clips, Layout(grids=((8, 11),)), trainer.words, random.Random(4))
    for row, kinds in enumerate(batch.dense[0].kind):
        boxes = {tuple(box.tolist()) for box in batch.dense[0].box[row][kinds > 0]}
        assert batch.dense[0].centre[row].sum() == len(boxes)


def test_the_decoder_learns_without_pictures_and_leaves_the_encoder_alone(split: Split, trainer: Trainer) -> None:
    batch = _batch(split, trainer, pictures=False)
    assert batch.images == []
    assert batch.image_count == 9
    assert trainer.oracle is not None
    loss = decoder_loss(trainer.network, trainer.oracle, batch, weights=trainer.weights)
    loss.total.backward()
    assert loss.dense is None
    assert _learnt(trainer.oracle)
    assert _learnt(trainer.network.decoder)
    assert not _learnt(trainer.network.encoder)
    assert not _learnt(trainer.network.projector)


def test_the_encoder_learns_alone_and_comes_nearer_to_the_oracle(split: Split, trainer: Trainer) -> None:
    assert trainer.oracle is not None
    batch = _batch(split, trainer)
    optimizer = torch.optim.AdamW([*trainer.network.encoder.parameters(), *trainer.network.projector.parameters(),
                                   *trainer.network.patch.parameters()], lr=3e-3)
    losses = []
    for _ in range(25):
        loss = encoder_loss(trainer.network, trainer.head, trainer.oracle, batch, dense_weight=0.0, oracle_weight=1.0)
        losses.append(float(loss.total.detach()))
        loss.total.backward()
        assert not _learnt(trainer.network.decoder)
        assert not _learnt(trainer.oracle)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


def test_tokens_of_captions_and_places_are_not_those_of_short_answers(split: Split, trainer: Trainer) -> None:
    batch = _batch(split, trainer)
    for row, skills in enumerate(batch.skills):
        for skill, first, last in skills:
            assert batch.short[row, first:last].all() == (skill not in ('caption', 'where'))
    once, thrice = (step_loss(trainer.network, trainer.head, batch, weights=trainer.weights, dense_weight=0.0,
                              short_weight=weight).answer for weight in (1.0, 3.0))
    assert once is not None
    assert once != thrice


def test_frames_of_one_size_are_encoded_together_to_the_same_end(split: Split, trainer: Trainer) -> None:
    batch = _batch(split, trainer)
    with torch.no_grad():
        together = encode_batch(trainer.network, batch)
        alone = [trainer.network.encode(images) for images in batch.images]
    for ours, theirs in zip(together, alone):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_old_frames_may_be_left_out_of_the_encoders_lesson(split: Split, trainer: Trainer) -> None:
    features = encode_batch(trainer.network, _batch(split, trainer), old_frames_learn=False)
    assert [found.requires_grad for found in features] == [False, False, True]
    loss = step_loss(trainer.network, trainer.head, _batch(split, trainer), weights=trainer.weights, dense_weight=1.0,
                     oracle=trainer.oracle, oracle_weight=1.0, old_frames_learn=False)
    loss.total.backward()
    assert _learnt(trainer.network.encoder)
    assert _learnt(trainer.network.decoder)


def test_noise_is_a_share_of_each_tokens_own_size() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(4, 50, 64) * torch.rand(4, 50, 1) * 10
    noise = (blurred(tokens) - tokens).pow(2).mean(-1).sqrt() / tokens.pow(2).mean(-1).sqrt()
    assert noise.mean() == pytest.approx(0.3, abs=0.01)


def test_the_reconstruction_is_nothing_for_the_oracles_own_tokens() -> None:
    tokens = torch.randn(2, 6, 16)
    assert float(reconstruction_loss(tokens, tokens)) == pytest.approx(0.0, abs=1e-5)
    assert float(reconstruction_loss(-tokens, tokens)) > 1.0


def test_a_run_goes_through_its_three_stages_and_goes_on_in_the_middle(data: Path, tmp_path: Path) -> None:
    run = _run(data, tmp_path, 10)
    trainer, split = Trainer(run), open_split(data / 'train')
    deck = ClipDeck(trainer.rng)
    for _ in range(5):
        trainer.train_step(split, deck)
    trainer.save()
    train_nano(run, resume=True)
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    steps = [line for line in lines if 'step' in line]
    assert lines[0]['resumed_at_step'] == 5
    assert [line['stage'] for line in steps] == ['encoder', *(['both'] * 4)]
    assert steps[0]['answer_loss'] is None
    assert steps[0]['dense_loss'] > 0
    assert steps[1]['answer_loss'] > 0
    assert steps[1]['dense_loss'] > 0
    again = Trainer(run)
    assert again.load()
    assert (again.stage, again.stage_step) == ('both', 4)


def test_while_only_the_decoder_learns_looks_are_taken_at_the_oracles_tokens(data: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    train_nano(_run(data, tmp_path, 2), report=lines.append)
    first, last = (line['valid'] for line in lines if 'step' in line)
    assert 'count' in first
    assert 'f1' not in first
    assert 'f1' in last
