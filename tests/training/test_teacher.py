"""The warm-up: the encoder comes nearer to its teacher while it lasts, and goes its own way afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penguin_ros.cli import train
from penguin_ros.cli.main import main
from penguin_ros.core.errors import ConfigError
from penguin_ros.core.pixels import cut_patches
from penguin_ros.model.checkpoint import load_model
from penguin_ros.training.curriculum import pictures_only
from penguin_ros.training.dataset import open_split
from penguin_ros.training.nano import NanoRun, Trainer, train_nano, write_model
from penguin_ros.training.network import Network, NetworkShape, TowerShape
from penguin_ros.training.rows import Words, shown
from penguin_ros.training.teacher import Reconstruction, WarmUp
from penguin_ros.training.tokenizer import build_tokenizer
from tests.training.drawn import draw_split

QUICK = pictures_only(main_grid=(3, 4), rows=4, warmup_steps=5)
SMALL = TowerShape(width=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=48)
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 56, 84, 3), np.uint8))


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of another width than the student's."""
    torch.manual_seed(3)
    words = Words(build_tokenizer())
    tower = TowerShape(width=48, layers=2, heads=2, kv_heads=1, head_dim=24, ffn=64)
    network = Network(NetworkShape(vocabulary=words.tokenizer.get_vocab_size(), image_token_id=words.image_id,
                                   encoder=tower, decoder=SMALL))
    folder = tmp_path_factory.mktemp('teacher')
    write_model(folder, network, words)
    return folder


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    draw_split(folder / 'train', 24, seed=1)
    draw_split(folder / 'valid', 4, seed=2)
    return folder


def _reconstruction(teacher: Path, **changes: Any) -> Reconstruction:
    return Reconstruction(WarmUp(teacher=teacher, steps=10, **changes), student_width=32, device=torch.device('cpu'))


def _run(data: Path, out: Path, **changes: Any) -> NanoRun:
    return NanoRun(data=data, out=out, minutes=60, tower=SMALL, curriculum=QUICK, compile_blocks=False, look_scenes=4,
                   look_every_s=0.0, **changes)


def test_the_teachers_features_are_its_merged_ones_before_the_projector(teacher: Path) -> None:
    found = _reconstruction(teacher).features(PICTURES)
    assert found.shape == (2, 6, 48)
    patches = torch.stack([torch.from_numpy(cut_patches(picture.numpy())) for picture in PICTURES])
    with torch.no_grad():
        expected = load_model(teacher, dtype=torch.float32).encoder(patches, (4, 6), 2)
    assert torch.allclose(found, expected, atol=0.05)       # the teacher runs in bfloat16


def test_the_reconstruction_reaches_the_student_but_not_the_teacher(teacher: Path) -> None:
    tied = _reconstruction(teacher)
    features = torch.randn(2, 6, 32, requires_grad=True)
    total = tied.added_to(torch.tensor(1.0), [PICTURES], [features], step=0)
    total.backward()
    assert float(total.detach()) > 1.0
    assert features.grad is not None
    assert float(features.grad.abs().sum()) > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in tied.teacher.parameters())


def test_without_the_relation_loss_the_total_is_smaller_and_after_the_warm_up_nothing_is_added(teacher: Path) -> None:
    loss, features = torch.tensor(1.0), torch.randn(2, 6, 32)
    torch.manual_seed(0)
    with_relation = _reconstruction(teacher).added_to(loss, [PICTURES], [features], step=0)
    torch.manual_seed(0)
    without = _reconstruction(teacher, relation=False).added_to(loss, [PICTURES], [features], step=0)
    assert without.item() < with_relation.item()
    assert _reconstruction(teacher).added_to(loss, [PICTURES], [features], step=10) is loss


def test_an_encoder_that_warms_up_comes_nearer_to_its_teacher(teacher: Path, data: Path, tmp_path: Path) -> None:
    split = open_split(data / 'train')
    trainer = Trainer(_run(data, tmp_path, max_steps=40, warm_up=WarmUp(teacher=teacher, steps=40)))
    assert trainer.reconstruction is not None

    def distance() -> float:
        with torch.no_grad():
            features = trainer.network.encode(pictures)
            return float(trainer.reconstruction.added_to(torch.tensor(0.0), [pictures], [features], step=0))

    pictures = torch.from_numpy(np.stack([shown(split.image(clip.frames[0]), (3, 4), False) for clip in split.clips[:4]]))
    before, deck = distance(), trainer.deck()
    for _ in range(40):
        trainer.train_step(trainer.draw(split, deck))
    assert distance() < 0.85 * before


def test_a_teacher_changes_nothing_but_the_encoders_first_steps(teacher: Path, data: Path, tmp_path: Path) -> None:
    with_teacher = Trainer(_run(data, tmp_path, max_steps=2, warm_up=WarmUp(teacher=teacher, steps=1)))
    alone = Trainer(_run(data, tmp_path, max_steps=2))
    for name, tensor in alone.network.state_dict().items():
        assert torch.equal(with_teacher.network.state_dict()[name], tensor)
    assert set(with_teacher.network.checkpoint()) == set(alone.network.checkpoint())


def test_a_run_with_a_teacher_goes_on_only_with_one(teacher: Path, data: Path, tmp_path: Path) -> None:
    warm_up = WarmUp(teacher=teacher, steps=3)
    train_nano(_run(data, tmp_path, max_steps=2, warm_up=warm_up))
    train_nano(_run(data, tmp_path, max_steps=4, warm_up=warm_up), resume=True)
    with pytest.raises(ConfigError, match='with a teacher'):
        train_nano(_run(data, tmp_path, max_steps=5), resume=True)


def test_the_train_command_warms_up_on_request(teacher: Path, data: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in train._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)     # else the command would start itself again to get them
    assert main(['train', 'nano', '--fast', '--hours', '0.0001', '--data', str(data), '--out', str(tmp_path), '--teacher',
                 str(teacher), '--warm-up-steps', '5', '--no-relation-loss', '--optimizer', 'adamw']) == 0
    begun = json.loads((tmp_path / 'log.jsonl').read_text().splitlines()[0])['run']
    assert begun['warm_up'] == {'teacher': str(teacher), 'steps': 5, 'relation': False}
    assert begun['muon'] is False


def test_a_warm_up_of_no_steps_is_refused(teacher: Path) -> None:
    with pytest.raises(ConfigError, match='--warm-up-steps'):
        WarmUp(teacher=teacher, steps=0)
