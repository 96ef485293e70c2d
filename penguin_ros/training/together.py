"""Several processes train one network: each has its own share of a batch, and gradients are averaged after every step.

A small network's steps are thousands of small operations: two processes of one thread did half as much again in a second as
one process of two. Knows nothing of data, losses or schedules.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

_PATIENCE = timedelta(minutes=30)       # others wait while the first process looks at held-out scenes


class Team:
    """The processes of one run as one of them sees them; a team of one does nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def share(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Every process's gradients become the mean of all; one without a gradient counts as 0."""
        if self.size == 1:
            return
        parts = [torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
                 for parameter in parameters]
        flat = torch.cat(parts)
        distributed.all_reduce(flat)
        flat /= self.size
        for parameter, mean in zip(parameters, flat.split([part.numel() for part in parts])):
            parameter.grad = mean.view_as(parameter)

    def owners(self, costs: Sequence[float]) -> list[int]:
        """Which process does which of some jobs, so that all have about as much to do; the same answer in every process."""
        load, owners = [0.0] * self.size, [0] * len(costs)
        for job in sorted(range(len(costs)), key=lambda job: -costs[job]):
            owners[job] = min(range(self.size), key=lambda rank: load[rank])
            load[owners[job]] += costs[job]
        return owners

    def exchange(self, results: Sequence[torch.Tensor], owners: Sequence[int]) -> list[torch.Tensor]:
        """Every job's result as its owner has it; the others need something of that shape and type."""
        if self.size == 1:
            return list(results)
        found = list(results)
        for rank in range(self.size):
            jobs = [job for job, owner in enumerate(owners) if owner == rank]
            if jobs:
                flat = torch.cat([found[job].flatten() for job in jobs])
                distributed.broadcast(flat, src=rank)
                for job, part in zip(jobs, flat.split([found[job].numel() for job in jobs])):
                    found[job] = part.view_as(found[job])
        return found

    def hears(self, told: Sequence[float]) -> list[float]:
        """What the first process tells, in all of them."""
        if self.size == 1:
            return list(told)
        said = torch.tensor(told, dtype=torch.float64)
        distributed.broadcast(said, src=0)
        return [float(value) for value in said]

    def agree(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Everyone takes over the first process's weights."""
        if self.size > 1:
            for parameter in parameters:
                distributed.broadcast(parameter.data, src=0)


@contextmanager
def team_of(size: int, follow: Callable[..., None], *arguments: Any) -> Iterator[Team]:
    """The team as its first process sees it; ``follow(team, *arguments)`` runs in each of the others, which end with it.

    Talks over the loopback interface only. ``follow`` and its arguments are pickled.
    """
    if size == 1:
        yield Team()
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / 'meeting'
        context = multiprocessing.get_context('spawn')      # threads of torch do not survive a fork
        others = [context.Process(target=_join, args=(meeting, rank, size, follow, arguments), daemon=True)
                  for rank in range(1, size)]
        threads = torch.get_num_threads()
        for other in others:
            other.start()
        try:
            _meet(meeting, 0, size)
            yield Team(0, size)
            distributed.barrier()
        finally:
            distributed.destroy_process_group()
            torch.set_num_threads(threads)
            for other in others:
                other.join(timeout=10.0)
                other.kill()


def _join(meeting: Path, rank: int, size: int, follow: Callable[..., None], arguments: Sequence[Any]) -> None:
    _meet(meeting, rank, size)
    follow(Team(rank, size), *arguments)
    distributed.barrier()


def _meet(meeting: Path, rank: int, size: int) -> None:
    os.environ['GLOO_SOCKET_IFNAME'] = 'lo'
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{meeting}', rank=rank, world_size=size, timeout=_PATIENCE)
