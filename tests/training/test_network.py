"""The training form of the model computes what the model's definition computes, and rows are what the stream would write."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from penguin_ros.core.pixels import cut_patches
from penguin_ros.model.checkpoint import load_model
from penguin_ros.training.dataset import open_split
from penguin_ros.training.nano import write_model
from penguin_ros.training.network import MASKED, Network, NetworkShape, TowerShape
from penguin_ros.training.objective import DenseHead, batch_rows, step_loss, word_weights
from penguin_ros.training.rows import Layout, Words, build_batch
from penguin_ros.training.tokenizer import build_tokenizer
from tests.training.drawn import draw_split


@pytest.fixture(scope='module')
def words() -> Words:
    return Words(build_tokenizer())


@pytest.fixture(scope='module')
def network(words: Words) -> Network:
    torch.manual_seed(0)
    small = TowerShape(width=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, rope_theta=100.0)
    made = Network(NetworkShape(
        vocabulary=words.tokenizer.get_vocab_size(), image_token_id=words.image_id, encoder=small,
        decoder=TowerShape(width=48, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, rope_theta=1e4)))
    for parameter in made.parameters():     # norms and biases too, so that each is seen to be used
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def test_training_form_and_definition_give_the_same_numbers(network: Network, words: Words, tmp_path: Path) -> None:
    write_model(tmp_path, network, words)
    model = load_model(tmp_path, dtype=torch.float32)
    network = _as_stored(network)
    picture = np.random.default_rng(1).integers(0, 256, (3 * 28, 4 * 28, 3), np.uint8)
    with torch.no_grad():
        visual = network.projector(network.encode(torch.from_numpy(picture)[None]))[0]
        expected = model.encode_frames(torch.from_numpy(cut_patches(picture))[None], (6, 8), 2)
        assert torch.allclose(visual, expected.reshape(visual.shape), atol=1e-4)
        ids = torch.tensor([[1, 5, *([words.image_id] * 12), 300, 301]])
        patches = torch.from_numpy(cut_patches(picture))
        logits = model(ids, patches, torch.tensor([[1, 6, 8]]), torch.tensor([2]))
        embeddings = network.embedding(ids).clone()
        embeddings[0, 2:14] = visual
        causal = torch.full((16, 16), MASKED).triu(1)[None, None]
        mine = network.logits(network.decode_rows(embeddings, np.arange(16)[None], causal))
    assert torch.allclose(mine.reshape(-1), logits.reshape(-1), atol=2e-3)


def _as_stored(network: Network) -> Network:
    """The weights as they come back from a float16 file."""
    import copy
    rounded = copy.deepcopy(network)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.half().float()
    return rounded


def test_a_turn_in_a_row_is_answered_as_if_it_were_asked_alone(network: Network, words: Words, tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 2, seed=3, frames=3)
    split = open_split(tmp_path / 'clips')
    batch = build_batch(split, split.clips, Layout(grids=((2, 3), (2, 2), (3, 4)), captions=2), words, random.Random(5))
    with torch.no_grad():
        rows, _ = batch_rows(network, batch)
        visual = [network.projector(network.encode(images)) for images in batch.images]
        for row in range(2):
            for _, first, last in batch.skills[row]:
                seen = torch.cat([torch.nonzero(batch.mask[row, 0, first] == 0)[:, 0], torch.arange(first + 1, last)])
                embeddings = network.embedding(batch.ids[row, seen])[None].clone()
                for slot, start in enumerate(batch.starts[row].tolist()):
                    for token in range(visual[slot].shape[1]):
                        embeddings[0, seen == start + token] = visual[slot][row, token]
                alone = network.decode_rows(embeddings, batch.positions[row, seen][None],
                                            torch.full((len(seen), len(seen)), MASKED).triu(1)[None, None])
                # What old frames saw of each other before they were hidden may differ, so only rows without such compare.
                if _nothing_hidden(batch, row, first):
                    assert torch.allclose(alone[0, -(last - first):], rows[row, first:last], atol=1e-4)


def _nothing_hidden(batch: object, row: int, first: int) -> bool:
    stream = batch.mask[row, 0, first, :first] == 0  # type: ignore[attr-defined]
    last_seen = int(torch.nonzero(stream).max())
    own = int(torch.nonzero(batch.mask[row, 0, last_seen] == 0).max()) + 1  # type: ignore[attr-defined]
    return bool(stream[:own].all())


def test_flipped_rows_mirror_boxes_and_keep_the_order(words: Words, tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 40, seed=4)
    split = open_split(tmp_path / 'clips')
    two = [clip for clip in split.clips if len(clip.frames[0].objects) == 2]
    plain = build_batch(split, two, Layout(grids=((3, 4),), questions=0), words, random.Random(1), augment=False)
    mixed = build_batch(split, two, Layout(grids=((3, 4),), questions=0), words, random.Random(1))
    flipped = [row for row in range(len(two)) if not torch.equal(plain.images[0][row], mixed.images[0][row])]
    assert flipped
    for row in flipped:
        assert torch.equal(plain.images[0][row], mixed.images[0][row].flip(1))
        assert torch.equal(plain.dense[0].kind[row].view(3, 4), mixed.dense[0].kind[row].view(3, 4).flip(1))


def test_every_frame_stands_where_its_row_says(words: Words, tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 3, seed=6, frames=2)
    split = open_split(tmp_path / 'clips')
    batch = build_batch(split, split.clips, Layout(grids=((2, 3), (3, 4))), words, random.Random(2))
    for row in range(3):
        for slot, count in enumerate((6, 12)):
            start = int(batch.starts[row, slot])
            assert (batch.ids[row, start:start + count] == words.image_id).all()
            assert batch.ids[row, start - 1] != words.image_id
            assert batch.ids[row, start + count] != words.image_id


def test_frames_of_one_size_are_encoded_together_and_old_ones_may_teach_nothing(network: Network, words: Words,
                                                                                tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 3, seed=6, frames=3)
    split = open_split(tmp_path / 'clips')
    batch = build_batch(split, split.clips, Layout(grids=((2, 3), (2, 3), (3, 4))), words, random.Random(2))
    _, features = batch_rows(network, batch)
    assert all(found.requires_grad for found in features)
    for found, images in zip(features, batch.images):
        torch.testing.assert_close(found, network.encode(images), atol=1e-5, rtol=1e-4)
    rows, features = batch_rows(network, batch, old_frames_learn=False)
    assert [found.requires_grad for found in features] == [False, False, True]
    assert rows.requires_grad


def test_places_in_an_answer_about_change_count_no_more_than_in_a_caption(words: Words, tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 8, seed=6, frames=8)
    split = open_split(tmp_path / 'clips')
    layout = Layout(grids=((3, 4),) * 3, questions=0, time_questions=6, change_weight=5.0)
    batch = build_batch(split, split.clips, layout, words, random.Random(2))
    found = {True: 0, False: 0}
    for row, skills in enumerate(batch.skills):
        for skill, first, last in skills:
            if skill == 'change':
                for target, short in zip(batch.targets[row, first:last].tolist(), batch.short[row, first:last].tolist()):
                    assert short == (target not in words.coordinate_ids)
                    found[short] += 1
    assert min(found.values()) > 4


def test_short_answers_are_told_from_captions_and_places_and_count_more(network: Network, words: Words,
                                                                        tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 8, seed=6)
    split = open_split(tmp_path / 'clips')
    batch = build_batch(split, split.clips, Layout(grids=((3, 4),), questions=6), words, random.Random(2))
    for row, skills in enumerate(batch.skills):
        for skill, first, last in skills:
            assert bool(batch.short[row, first:last].all()) == (skill not in ('caption', 'where'))
    weights, head = word_weights(words), DenseHead(64)
    once, thrice = (step_loss(network, head, batch, dense_weight=0.0, weights=weights, short_weight=weight,
                              dtype=torch.float32).answer for weight in (1.0, 3.0))
    only_captions = step_loss(network, head, batch, dense_weight=0.0, weights=weights, short_weight=0.0, dtype=torch.float32)
    assert (thrice - once) * (once - only_captions.answer) > 0, 'what counts more moves the mean its way'
