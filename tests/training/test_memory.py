"""What the decoder should know at each frame is what the truth says, and asking for it teaches the decoder."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from penguin_ros.training.dataset import Clip, Event, Mount, SceneFrame, SeenObject, open_split
from penguin_ros.training.memory import CHANGES, COUNTED, UNTOLD, FrameMemory, MemoryHead, _told_loss, frame_memory, stacked
from penguin_ros.training.network import Network, NetworkShape, TowerShape, grown_layers
from penguin_ros.training.objective import DenseHead, StepLoss, batch_rows, step_loss, word_weights
from penguin_ros.training.rows import Layout, Words, build_batch
from penguin_ros.training.texts import COLOURS, KINDS
from penguin_ros.training.tokenizer import build_tokenizer
from tests.training.drawn import draw_split

CRATE = SeenObject(1, 'crate', 'red', None, 0.0, (0.1, 0.5, 0.3, 0.8), 2.0)
GREEN_CRATE = replace(CRATE, colour='green')
BALL = SeenObject(2, 'ball', 'blue', None, 0.0, (0.6, 0.6, 0.7, 0.7), 3.0)
CONE = SeenObject(3, 'cone', 'white', None, 0.0, (0.4, 0.1, 0.5, 0.5), 2.5)


def _frame(*objects: SeenObject, faint: tuple[SeenObject, ...] = ()) -> SceneFrame:
    return SceneFrame(0, 0, 0.0, True, objects, faint)


# The ball is there from the first frame on and moves; the crate comes in the second, painted in the fourth; the cone leaves.
CLIP = Clip(0, (_frame(BALL, CONE), _frame(CRATE, BALL, CONE), _frame(CRATE, BALL), _frame(GREEN_CRATE, BALL)),
            (Event(1, 'appeared', 1), Event(2, 'left', 3), Event(2, 'moved', 2), Event(3, 'changed_colour', 1)))
CRATE_NOTHING_BALL = np.array([0, -1, 1])
STAMPS_S = [598.5, 599.5, 600.5, 601.5]


def _look(thing: SeenObject) -> int:
    return KINDS.index(thing.kind) * len(COLOURS) + COLOURS.index(thing.colour)


def test_every_token_knows_since_when_its_thing_is_in_view_and_what_became_of_it() -> None:
    memory = frame_memory(CLIP, [0, 1, 2, 3], STAMPS_S[:4], CRATE_NOTHING_BALL, whole=True)
    assert memory.ago.tolist() == [2, UNTOLD, 3]
    assert memory.changed.tolist() == [[1.0, 0.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 1.0, 0.0]]
    assert CHANGES == ('came', 'moved', 'painted')
    some = frame_memory(CLIP, [1, 3], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True)
    assert some.ago.tolist() == [1, UNTOLD, 1], 'only frames that are shown count'
    assert some.changed[0].tolist() == [0.0, 0.0, 1.0], 'it came before the first frame shown'


def test_the_end_of_a_frame_knows_counts_path_and_what_is_gone() -> None:
    memory = frame_memory(CLIP, [0, 1, 2], STAMPS_S[:3], CRATE_NOTHING_BALL, whole=True)
    assert memory.counts[0] == 2
    assert memory.counts[1 + KINDS.index('ball')] == memory.counts[1 + len(KINDS) + COLOURS.index('red')] == 1
    assert len(memory.counts) == COUNTED
    assert int(memory.path) == 1
    assert np.flatnonzero(memory.here).tolist() == sorted([_look(CRATE), _look(BALL)])
    assert np.flatnonzero(memory.gone).tolist() == [_look(CONE)]
    painted = frame_memory(CLIP, [2, 3], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True)
    assert np.flatnonzero(painted.gone).tolist() == [_look(CRATE)], 'no red crate any more'


def test_a_frame_knows_what_came_and_went_with_it_and_its_stamp() -> None:
    first, second, third = (frame_memory(CLIP, list(range(count)), STAMPS_S[:count], CRATE_NOTHING_BALL, whole=True)
                            for count in (1, 2, 3))
    assert np.flatnonzero(first.came > 0).tolist() == sorted([_look(BALL), _look(CONE)]), 'the first frame brings all it shows'
    assert (first.went == -1.0).all()
    assert (first.before == UNTOLD).all()
    assert np.flatnonzero(second.came > 0).tolist() == [_look(CRATE)]
    assert not (second.went > 0).any()
    assert np.flatnonzero(third.went > 0).tolist() == [_look(CONE)]
    assert not (third.came > 0).any()
    assert (first.stamp.tolist(), third.stamp.tolist(), third.before.tolist()) == ([5, 9, 8, 5], [6, 0, 0, 5], [5, 9, 9, 5])
    assert third.first.tolist() == [[5, 9, 9, 5], [UNTOLD] * 4, [5, 9, 8, 5]], 'crate, nothing, ball'


def test_the_end_of_a_frame_knows_how_many_things_changed_and_what_went_by_the_thing() -> None:
    memory = frame_memory(CLIP, [0, 1, 2, 3], STAMPS_S[:4], CRATE_NOTHING_BALL, whole=True)
    assert memory.changes.tolist() == [1, 1, 1, 1], 'the crate came and was painted, the ball moved, the cone went'
    assert np.flatnonzero(memory.left > 0).tolist() == [_look(CONE)]
    painted = frame_memory(CLIP, [2, 3], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True)
    assert painted.changes.tolist() == [0, 0, 1, 0]
    assert not painted.left.any(), 'no red crate any more, but it did not leave'
    unclear = frame_memory(replace(CLIP, events=()), [0, 1], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True)
    assert (unclear.left == -1.0).all()
    assert (unclear.changes == UNTOLD).all()


def test_a_token_knows_where_its_thing_was_at_first_and_the_frame_how_the_robot_went() -> None:
    was_left = replace(BALL, box=(0.1, 0.6, 0.2, 0.7))
    clip = replace(CLIP, frames=(replace(_frame(was_left, CONE), pose=(1.0, 2.0, 1.5)),
                                 replace(_frame(CRATE, BALL, CONE), pose=(1.0, 2.5, 1.8))))
    for flipped, box, turned_rad in ((False, was_left.box, 0.3), (True, (0.8, 0.6, 0.9, 0.7), -0.3)):
        memory = frame_memory(clip, [0, 1], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True, flipped=flipped)
        assert np.isnan(memory.was[:2]).all(), 'the crate has only just come'
        assert memory.was[2] == pytest.approx(box)
        assert memory.ride == pytest.approx([0.5 * np.sin(1.5), turned_rad])
    assert np.isnan(frame_memory(clip, [0, 1], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=False).ride).all()
    assert np.isnan(frame_memory(CLIP, [0, 1], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True).ride).all(), 'no pose'


@pytest.mark.parametrize(('gaps_m', 'is_clear', 'told_m'), [
    ((0.4, 0.07), True, 0.07), ((0.4, -0.2), False, -0.2), ((), True, 1.0), ((2.5,), True, 1.0), ((-1.5,), False, -1.0),
    ((0.4,), False, None), ((float('nan'),), True, None), ((float('nan'),), False, None)])
def test_the_end_of_a_frame_knows_how_clear_the_path_is(gaps_m: tuple[float, ...], is_clear: bool,
                                                        told_m: float | None) -> None:
    """Unknown where no thing blocks it but a shelf or a wall, and in clips rendered before gaps were noted."""
    things = [replace(CRATE, id=number, path_gap_m=gap_m) for number, gap_m in enumerate(gaps_m)]
    for listed in (len(things), 0):
        frame = replace(_frame(*things[:listed], faint=tuple(things[listed:])), path_clear=is_clear)
        memory = frame_memory(Clip(0, (frame,), ()), [0], [1.0], np.array([-1]), whole=True)
        assert memory.path_gap == pytest.approx([np.nan if told_m is None else told_m], nan_ok=True)


def test_the_end_of_a_frame_knows_how_the_camera_sits() -> None:
    frame = replace(_frame(CRATE), mount=Mount(height_m=0.7, pitch_rad=0.1, fovy_rad=1.05))
    memory = frame_memory(Clip(0, (frame,), ()), [0], [1.0], np.array([-1]), whole=True)
    assert memory.camera == pytest.approx([np.log(0.7), 0.1, 1.05])
    unknown = frame_memory(CLIP, [0], STAMPS_S[:1], CRATE_NOTHING_BALL, whole=True)
    assert np.isnan(unknown.camera).all()


def test_nothing_is_told_that_is_not_clear() -> None:
    first = frame_memory(CLIP, [0], STAMPS_S[:1], CRATE_NOTHING_BALL, whole=True)
    thinned = frame_memory(CLIP, [0, 1, 2], STAMPS_S[:3], CRATE_NOTHING_BALL, whole=False)
    for memory in (first, thinned):
        assert (memory.ago == UNTOLD).all()
        assert (memory.changed == -1.0).all()
        assert (memory.gone == -1.0).all()
        assert (memory.first == UNTOLD).all()
        assert memory.here.max() == 1.0
    assert (thinned.came == -1.0).all()
    assert (thinned.went == -1.0).all()
    half_seen = Clip(0, (_frame(CONE, faint=(CRATE,)), _frame(CRATE, BALL, faint=(CONE,))), ())
    memory = frame_memory(half_seen, [0, 1], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True)
    assert memory.ago.tolist() == [UNTOLD, UNTOLD, 0]
    assert memory.gone[_look(CONE)] == 0.0, 'half seen is not gone'
    assert memory.gone[_look(CRATE)] == -1.0
    assert memory.here[_look(CONE)] == memory.came[_look(CRATE)] == memory.went[_look(CONE)] == -1.0
    assert (memory.changed[0] == -1.0).all(), 'without an event the crate came at no clear moment'


@pytest.fixture(scope='module')
def words() -> Words:
    return Words(build_tokenizer())


def _network(words: Words, layers: int) -> Network:
    torch.manual_seed(0)
    tower = TowerShape(width=48, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96)
    return Network(NetworkShape(vocabulary=words.tokenizer.get_vocab_size(), image_token_id=words.image_id, encoder=tower,
                                decoder=replace(tower, layers=layers, rope_theta=1e4)))


def test_remembering_teaches_the_decoder_and_at_first_only_its_own_head(words: Words, tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 8, seed=6, frames=4)
    split = open_split(tmp_path / 'clips')
    layout = Layout(grids=((2, 3), (2, 3), (3, 4)), questions=2)
    batch = build_batch(split, split.clips, layout, words, random.Random(2), with_memory=True)
    assert (batch.memory[2].ago > 0).any()
    network, head = _network(words, 4), MemoryHead(48)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=2e-3)

    def loss(memory_weight: float, *, only_heads: bool = False) -> StepLoss:
        return step_loss(network, DenseHead(48), batch, dense_weight=0.0, weights=word_weights(words), memory_head=head,
                         memory_weight=memory_weight, only_heads=only_heads, dtype=torch.float32)

    inner = network.decoder[1].qkv.weight
    of_answers, with_head_alone, with_memory = (
        torch.autograd.grad(loss(weight, only_heads=alone).total, inner)[0]
        for weight, alone in ((0.0, False), (5.0, True), (5.0, False)))
    torch.testing.assert_close(with_head_alone, of_answers)
    assert float((with_memory - of_answers).norm()) > float(of_answers.norm()) > 0.0
    before = loss(1.0).memory
    for _ in range(30):
        optimizer.zero_grad()
        loss(1.0).total.backward()
        optimizer.step()
    assert loss(1.0).memory < 0.7 * before


def test_seldom_answers_count_as_much_as_common_ones() -> None:
    """One yes among many noes, and one thing that came later among many that were there from the start."""
    told = torch.tensor([1.0, *[0.0] * 99, -1.0])
    said = torch.tensor([-3.0] * 101)
    yes, no = functional.softplus(torch.tensor(3.0)), functional.softplus(torch.tensor(-3.0))
    torch.testing.assert_close(_told_loss(said, told), yes + no)
    assert _told_loss(said, torch.full((101,), -1.0)) == 0.0
    head, states = MemoryHead(16), torch.zeros(1, 4, 16)
    first = frame_memory(CLIP, [0], STAMPS_S[:1], CRATE_NOTHING_BALL, whole=True)
    later = frame_memory(CLIP, [0, 1], STAMPS_S[:2], CRATE_NOTHING_BALL, whole=True)
    untold = replace(later, ago=np.full_like(later.ago, UNTOLD), first=np.full_like(later.first, UNTOLD))
    starts = torch.tensor([[0, 1]])

    def loss(*memories: FrameMemory) -> float:
        return float(head([states] * 3, starts, [stacked([memory]) for memory in memories]).detach())

    assert later.ago.tolist() == [0, UNTOLD, 1], 'the crate came just now, the ball was there'
    one_token = replace(first, ago=first.ago[:1], changed=first.changed[:1], first=first.first[:1], was=first.was[:1])
    both, came, stayed = (loss(one_token, replace(later, ago=np.where(keep, later.ago, UNTOLD),
                                                  first=np.where(keep[:, None], later.first, UNTOLD)))
                          for keep in (np.array([True] * 3), np.array([True, False, False]), np.array([False, False, True])))
    nothing = loss(one_token, untold)
    assert both - nothing == pytest.approx((came - nothing) + (stayed - nothing), rel=1e-4)


def test_a_grown_decoder_says_at_first_what_it_said_before(words: Words, tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 2, seed=6, frames=2)
    split = open_split(tmp_path / 'clips')
    batch = build_batch(split, split.clips, Layout(grids=((2, 3), (3, 4))), words, random.Random(2))
    small = _network(words, 3)
    for layers in (3, 4, 5):
        grown = _network(words, layers)
        grown.load_checkpoint(small.checkpoint())
        torch.testing.assert_close(batch_rows(grown, batch)[0], batch_rows(small, batch)[0])
        trained = {name for name, tensor in grown.named_parameters() if name.startswith('decoder.')}
        assert len(trained) == layers * len(list(small.decoder[0].parameters()))
    with pytest.raises(RuntimeError, match='cannot grow'):
        _network(words, 2).load_checkpoint(small.checkpoint())


def test_new_layers_come_between_old_ones() -> None:
    assert [grown_layers(4, layers) for layers in (4, 5, 6, 7)] == [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 3, 5], [0, 2, 4, 6]]
    for layers in (3, 8):
        with pytest.raises(RuntimeError, match='cannot grow'):
            grown_layers(4, layers)
