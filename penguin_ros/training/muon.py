"""Muon (Jordan 2024) in the numbers a device is fast in, its work shared by the processes of a team.

torch.optim.Muon always multiplies in bfloat16, which CPUs without AVX-512 do many times slower than float32, and every
process would do all of it. A test holds the steps of both equal.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import overload

import torch

from penguin_ros.model.precision import fast_type
from penguin_ros.training.together import Team

_MOMENTUM = 0.95
# Jordan's quintic rises steeply at 0, at the price of singular values that end somewhere from 0.7 to 1.2 instead of at 1.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_RMS = 0.2      # of AdamW's updates, which these are scaled to (Liu et al. 2025, "Muon is scalable for LLM training")


class Muon(torch.optim.Optimizer):
    """Gradient descent in which every update of a matrix is made nearly orthogonal; Nesterov momentum, weight decay.

    Every process of ``team`` must hold the same gradients: each makes some of the updates and gets the others.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float, team: Team | None = None,
                 dtype: torch.dtype | None = None) -> None:
        """``dtype`` of the products, None for the fastest."""
        super().__init__(matrices, {'lr': lr, 'weight_decay': weight_decay})
        self._team, self._dtype = team or Team(), dtype

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Matrices without a gradient stay as they are. Returns what ``closure`` does, which works the gradients out first."""
        loss = closure() if closure else None
        self._step()
        return loss

    @torch.no_grad()
    def _step(self) -> None:
        moved = [(group, matrix) for group in self.param_groups for matrix in group['params'] if matrix.grad is not None]
        if not moved:
            return
        dtype = self._dtype or fast_type(moved[0][1].device)
        updates = [self._with_momentum(matrix).to(dtype) for _, matrix in moved]
        owners = self._team.owners([_cost(update) for update in updates])
        own = [index for index, owner in enumerate(owners) if owner == self._team.rank]
        for index, update in zip(own, orthogonal([updates[index] for index in own])):
            updates[index] = update
        for (group, matrix), update in zip(moved, self._team.exchange(updates, owners)):
            matrix.mul_(1.0 - group['lr'] * group['weight_decay'])
            matrix.add_(update, alpha=-group['lr'] * _RMS * math.sqrt(max(matrix.shape)))

    def _with_momentum(self, matrix: torch.Tensor) -> torch.Tensor:
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(gradient)
        state['momentum_buffer'].lerp_(gradient, 1.0 - _MOMENTUM)
        return gradient.lerp(state['momentum_buffer'], _MOMENTUM)


def orthogonal(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each [rows, columns] with its singular values all brought near 1, by Newton-Schulz; those of one shape go together."""
    alike: dict[torch.Size, list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        alike[matrix.shape].append(index)
    found: dict[int, torch.Tensor] = {}
    for (rows, columns), indices in alike.items():
        x = torch.stack([matrices[index] if rows <= columns else matrices[index].T for index in indices])
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        for _ in range(_ITERATIONS):
            gram = x @ x.transpose(1, 2)
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC), x, beta=_LINEAR)
        found.update(zip(indices, x if rows <= columns else x.transpose(1, 2)))
    return [found[index] for index in range(len(matrices))]


def _cost(matrix: torch.Tensor) -> int:
    """Multiplications of one iteration."""
    short, long = sorted(matrix.shape)
    return 2 * short * short * long + short ** 3
