"""Appends of a few words, recorded once and replayed with other numbers. Knows nothing of who appends or why (torch.py).

A new token makes several hundred small kernels, and launching them one by one takes longer than running them. A CUDA graph
launches all at once. It repeats exactly what was recorded, at the addresses recorded: so numbers go into tensors that never
move, and what a call may vary (how many rows, how many cached rows are looked at) comes in few sizes, the rest masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from penguin_ros.core.rotary import decoder_tables
from penguin_ros.model.definition import Decoder, LayerCache

_LEAST_LOOKED_AT = 256      # cached rows; every further size is twice the one before


class Recorder(Protocol):
    """One way to do the same work again without Python."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What does ``work`` again, and the tensor in which its result lies each time; it holds nothing until then."""
        ...


class CudaRecorder:
    """CUDA graphs; all of them share one pool of memory, since one is never run beside another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        with torch.cuda.device(self._device):
            # Libraries choose kernels and reserve memory when they first run, which may not be recorded.
            current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                work()
            current.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Only this thread is recorded: others may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
                result = work()
        return graph.replay, result


def rows_looked_at(end: int, capacity_rows: int) -> int:
    """How many cached rows a recorded append looks at when rows up to ``end`` are in use: few sizes, at most all."""
    rows = _LEAST_LOOKED_AT
    while rows < end:
        rows *= 2
    return min(rows, capacity_rows)


class RecordedAppend:
    """Up to ``rows`` words behind a cache of which the first ``looked_at`` rows can be seen."""

    def __init__(self, decoder: Decoder, layers: Sequence[LayerCache], *, rows: int, looked_at: int, unused_row: int,
                 recorder: Recorder) -> None:
        config, like = decoder.config, decoder.norm.weight.detach()
        self._head_dim, self._theta = config.head_dim, config.rope_theta
        self._unused_row = unused_row
        # What the recording reads. Until the first call: words nobody asked for, written where nobody looks.
        self._ids = torch.zeros(rows, dtype=torch.long, device=like.device)
        self._rows = torch.full((rows,), unused_row, dtype=torch.long, device=like.device)
        self._cos, self._sin = (like.new_zeros(rows, 1, config.head_dim) for _ in range(2))
        self._mask = torch.ones(rows, looked_at, dtype=torch.bool, device=like.device)

        def work() -> Tensor:
            hidden = decoder.states(decoder.embed_tokens(self._ids)[None], (self._cos, self._sin), self._mask[None, None],
                                    cache=layers, rows=self._rows)
            return decoder.logits(hidden[0])

        self._replay, self._logits = recorder.record(work)

    def run(self, ids: np.ndarray, *, start: int, positions: np.ndarray, visible: np.ndarray) -> Tensor:
        """Logits [len(ids), V], which the next call overwrites; the arguments are those of LanguageEngine.append."""
        count = len(ids)
        rows, looked_at = self._mask.shape
        all_ids, places = np.zeros(rows, np.int64), np.full(rows, self._unused_row, np.int64)
        all_ids[:count], places[:count] = ids, np.arange(start, start + count)
        mask = np.zeros((rows, looked_at), dtype=bool)
        mask[:count, :start] = visible
        mask[:count, start:start + count] = np.tri(count, dtype=bool)
        mask[count:] = mask[count - 1]      # a row that sees nothing would be NaN
        all_positions = np.zeros(rows, np.int64)
        all_positions[:count] = positions
        tables = decoder_tables(all_positions, head_dim=self._head_dim, theta=self._theta)
        for tensor, values in zip((self._ids, self._rows, self._cos, self._sin, self._mask), (all_ids, places, *tables, mask)):
            tensor.copy_(torch.from_numpy(values))
        self._replay()
        return self._logits[:count]
