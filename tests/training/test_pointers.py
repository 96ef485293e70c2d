"""Answers are told where they can be read off: the right tokens, and a decoder that learns to look there."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from penguin_ros.training.dataset import Split, open_split
from penguin_ros.training.network import MASKED, Network, NetworkShape, TowerShape
from penguin_ros.training.objective import DenseHead, StepLoss, batch_states, pointer_loss, step_loss, word_weights
from penguin_ros.training.rows import Layout, Words, build_batch
from penguin_ros.training.tokenizer import build_tokenizer
from tests.training.drawn import draw_split


@pytest.fixture(scope='module')
def words() -> Words:
    return Words(build_tokenizer())


@pytest.fixture
def split(tmp_path: Path) -> Split:
    draw_split(tmp_path / 'clips', 10, seed=6, frames=3)
    return open_split(tmp_path / 'clips')


@pytest.fixture
def network(words: Words) -> Network:
    torch.manual_seed(0)
    tower = TowerShape(width=48, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96)
    return Network(NetworkShape(vocabulary=words.tokenizer.get_vocab_size(), image_token_id=words.image_id, encoder=tower,
                                decoder=replace(tower, layers=4, rope_theta=1e4)))


def test_the_words_of_a_captions_items_point_at_the_tokens_that_show_them(words: Words, split: Split) -> None:
    layout = Layout(grids=((6, 8),), questions=0)
    clips = [replace(clip, frames=clip.frames[:1]) for clip in split.clips if len(clip.frames[0].objects) == 2]
    batch = build_batch(split, clips, layout, words, random.Random(1), augment=False)
    pointers = batch.pointers
    for row in range(len(clips)):
        start = int(batch.starts[row, 0])
        boxes = batch.dense[0].box[row]
        said: dict[tuple[float, ...], list[int]] = {}
        for number in (pointers.rows == row).nonzero().flatten().tolist():
            place = int(pointers.places[number])
            tokens = pointers.sources[number].nonzero().flatten() - start
            assert (batch.dense[0].kind[row, tokens] > 0).all()
            assert len({tuple(box) for box in boxes[tokens].tolist()}) == 1, 'all of one thing'
            said.setdefault(tuple(boxes[tokens[0]].tolist()), []).append(int(batch.targets[row, place]))
        left, right = sorted(said, key=lambda box: box[0])
        for box, seen in zip((left, right), clips[row].frames[0].objects):
            text = words.tokenizer.decode(said[box], skip_special_tokens=False)
            assert f'{seen.colour} {seen.kind}<box>' in text
        assert float(pointers.weights[pointers.rows == row].sum()) == pytest.approx(1.0), 'one turn'


def test_a_moment_points_at_the_frame_whose_stamp_it_is(words: Words, split: Split) -> None:
    layout = Layout(grids=((2, 3), (2, 3), (3, 4)), questions=0, time_questions=6)
    batch = build_batch(split, split.clips, layout, words, random.Random(3), augment=False)
    checked = 0
    for row, skills in enumerate(batch.skills):
        for skill, first, last in skills:
            if skill != 'when':
                continue
            answer = words.tokenizer.decode([token for token in batch.targets[row, first:last].tolist()
                                             if token not in (-100, words.end_id)])
            mine = (batch.pointers.rows == row) & (batch.pointers.places >= first) & (batch.pointers.places < last)
            for place in batch.pointers.sources[mine].nonzero()[:, 1].tolist():
                slot = int((batch.starts[row] <= place).sum()) - 1
                lead = words.tokenizer.decode(batch.ids[row, :int(batch.starts[row, slot])].tolist())
                assert lead.rsplit('Time ', 1)[1] == f'{answer}:'
                checked += 1
    assert checked > 20


def test_pointing_is_learnt_and_is_no_part_of_a_loss_without_it(words: Words, split: Split, network: Network) -> None:
    layout = Layout(grids=((2, 3), (2, 3), (3, 4)), questions=2)
    batch = build_batch(split, split.clips, layout, words, random.Random(2))

    def loss(pointer_weight: float) -> StepLoss:
        return step_loss(network, DenseHead(48), batch, dense_weight=0.0, weights=word_weights(words),
                         pointer_weight=pointer_weight, dtype=torch.float32)

    assert loss(0.0).pointer == 0.0
    before = loss(1.0)
    assert float(before.total.detach()) == pytest.approx(before.answer + before.pointer, rel=1e-5)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss(1.0).total.backward()
        optimizer.step()
    assert loss(1.0).pointer < 0.5 * before.pointer


def test_the_pointer_loss_is_that_of_the_attention_the_layer_has(words: Words, split: Split, network: Network) -> None:
    """The first head's weights, worked out as the block itself does, give the same loss."""
    batch = build_batch(split, split.clips[:3], Layout(grids=((2, 3), (3, 4)), questions=1), words, random.Random(2))
    states, _ = batch_states(network, batch)
    cos, sin = network.decoder_tables(batch.positions, states[0])
    pointers, losses = batch.pointers, []
    for layer in (2, 3):
        q, k, _ = network.decoder_block(layer)._project(states[layer - 1], cos, sin)
        scores = q[:, :, 0] @ k[:, :, 0].transpose(1, 2) * network.shape.decoder.head_dim ** -0.5
        attention = (scores + batch.mask[:, 0]).softmax(dim=-1)[pointers.rows, pointers.places]
        there = (attention * pointers.sources).sum(dim=-1)
        losses.append(-(there.log() * pointers.weights).sum() / pointers.weights.sum())
    assert (batch.mask[pointers.rows, 0, pointers.places][pointers.sources] > MASKED / 2).all(), 'nothing hidden is pointed at'
    torch.testing.assert_close(pointer_loss(network, batch, states), torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
