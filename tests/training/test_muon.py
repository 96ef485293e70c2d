"""Our Muon steps as PyTorch's does, in any numbers, and processes that share its work come to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from penguin_ros.training.muon import Muon, orthogonal
from penguin_ros.training.together import Team, team_of

SHAPES = ((24, 64), (64, 24), (24, 64), (16, 16))


def _matrices(seed: int = 0) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]


def _learn(optimizer: torch.optim.Optimizer, matrices: list[torch.nn.Parameter], steps: int = 4, *, first: int = 0) -> None:
    for step in range(first, first + steps):
        for matrix, gradient in zip(matrices, _matrices(seed=100 + step)):
            matrix.grad = gradient.detach() * 0.01
        optimizer.step()


@pytest.mark.parametrize(('dtype', 'off'), [(torch.bfloat16, 0.02), (torch.float32, 0.05)])
def test_it_steps_as_torch_does(dtype: torch.dtype, off: float) -> None:
    ours, theirs, start = _matrices(), _matrices(), _matrices()
    _learn(Muon(ours, lr=0.02, weight_decay=0.05, dtype=dtype), ours)
    _learn(torch.optim.Muon(theirs, lr=0.02, weight_decay=0.05, adjust_lr_fn='match_rms_adamw'), theirs)
    for one, other, before in zip(ours, theirs, start):
        assert torch.linalg.norm(one - other) < off * torch.linalg.norm(other - before)


def test_an_update_has_singular_values_near_one_and_keeps_its_directions() -> None:
    for before, after in zip(_matrices(), orthogonal([matrix.detach() for matrix in _matrices()])):
        values = torch.linalg.svdvals(after)
        assert before.shape == after.shape
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.3
        left, _, right = torch.linalg.svd(before.detach(), full_matrices=False)
        turned = left.T @ after @ right.T
        assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-3), 'the directions are those of the gradient'


def test_a_matrix_without_a_gradient_does_not_even_decay() -> None:
    still, moved = _matrices()[:2]
    before = still.detach().clone()
    moved.grad = torch.ones_like(moved)
    Muon([still, moved], lr=0.02, weight_decay=0.05).step()
    assert torch.equal(still, before)
    assert not torch.equal(moved, _matrices()[1])


def test_a_run_goes_on_from_a_saved_state_as_if_it_had_never_stopped() -> None:
    through, stopped = _matrices(), _matrices()
    optimizer = Muon(through, lr=0.02, weight_decay=0.05, dtype=torch.float32)
    _learn(optimizer, through, 2)
    first = Muon(stopped, lr=0.02, weight_decay=0.05, dtype=torch.float32)
    _learn(first, stopped, 2)
    second = Muon(stopped, lr=0.5, weight_decay=0.0, dtype=torch.float32)
    second.load_state_dict(first.state_dict())
    _learn(optimizer, through, 2, first=2)
    _learn(second, stopped, 2, first=2)
    assert all(torch.equal(one, other) for one, other in zip(through, stopped))


def _follow(team: Team, folder: Path) -> None:
    matrices = _matrices()
    _learn(Muon(matrices, lr=0.02, weight_decay=0.05, team=team, dtype=torch.float32), matrices)
    save_file({str(index): matrix.detach() for index, matrix in enumerate(matrices)}, folder / 'other.safetensors')


def test_processes_that_share_the_work_come_to_the_weights_of_one_that_does_it_all(tmp_path: Path) -> None:
    alone, shared = _matrices(), _matrices()
    _learn(Muon(alone, lr=0.02, weight_decay=0.05, dtype=torch.float32), alone)
    with team_of(2, _follow, tmp_path) as team:
        _learn(Muon(shared, lr=0.02, weight_decay=0.05, team=team, dtype=torch.float32), shared)
    other = load_file(tmp_path / 'other.safetensors')
    for index, (one, two) in enumerate(zip(alone, shared)):
        assert torch.equal(two, other[str(index)]), 'both processes hold the same weights'
        assert torch.allclose(one, two, atol=1e-5)
