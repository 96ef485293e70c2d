"""A GPU of the tests, in host memory: does nothing before somebody waits for it, and is strict about everything else.

Stands in for penguin_ros.backends.cuda.Device. Work is queued and done only when it is waited for, so whoever reads a
result too early, or writes over an input that is still on its way, gets wrong numbers. Fresh memory holds NaN, blocks are
fenced, and every address is looked up before it is used.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from penguin_ros.core.errors import EngineError

FENCE_BYTES = 256
ALIGNMENT = 256
NAN = 0xFF          # as every byte: NaN in float16 and float32
FENCE = 0xA5


def memory_at(address: int, nbytes: int) -> np.ndarray:
    """The bytes themselves, uint8 [nbytes]."""
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8) if nbytes else np.empty(0, np.uint8)


class FakeGpu:
    """Keeps device_memory.Gpu."""

    name, compute_capability, multiprocessors, driver_version = 'Orin', '8.7', 16, '12.6'
    stream = 0x5EED

    def __init__(self, limit_bytes: int = 1 << 40) -> None:
        self.limit_bytes = limit_bytes
        self.calls: dict[str, int] = {}         # how often each kind of work was asked for
        self.waits = 0                          # how often the host waited for the device
        self.thread: int | None = None          # that has the context
        self.threads: set[int] = set()          # that ever had it
        self._lock = threading.RLock()
        self._depth = 0
        self._memory: dict[int, np.ndarray] = {}
        self._host: list[np.ndarray] = []
        self._queue: deque[Callable[[], None] | int] = deque()      # work, and events by number
        self._events = 0

    # -- what cuda.Device has ------------------------------------------------------------------------------------

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._lock:
            self._depth += 1
            self.thread = threading.get_ident()
            self.threads.add(self.thread)
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.thread = None

    def alloc(self, nbytes: int) -> int:
        self.check_current()
        assert nbytes > 0
        if self.held_bytes + nbytes > self.limit_bytes:
            raise EngineError(f'the GPU has no room left while reserving {nbytes / 1e6:.1f} MB (out of memory).')
        raw = np.full(nbytes + 2 * FENCE_BYTES + ALIGNMENT, FENCE, np.uint8)
        begin = FENCE_BYTES + -(raw.ctypes.data + FENCE_BYTES) % ALIGNMENT
        block = raw[begin:begin + nbytes]
        block[:] = NAN
        self._memory[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        self.check_current()
        self._run_all()         # as CUDA does
        self._check_fences(self._memory.pop(address))

    def host_array(self, nbytes: int) -> np.ndarray:
        self.check_current()
        self._host.append(np.full(nbytes, NAN, np.uint8))
        return self._host[-1]

    def upload(self, address: int, array: np.ndarray) -> None:
        self.check_span(address, array.nbytes)
        self._check_host(array)
        self._ask('upload', lambda: np.copyto(memory_at(address, array.nbytes), array.view(np.uint8).reshape(-1)))

    def download(self, array: np.ndarray, address: int) -> None:
        self.check_span(address, array.nbytes)
        self._check_host(array)
        self._ask('download', lambda: np.copyto(array.view(np.uint8).reshape(-1), memory_at(address, array.nbytes)))

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self.check_span(target, nbytes)
        self.check_span(source, nbytes)
        assert target + nbytes <= source or source + nbytes <= target, 'a copy onto itself'
        self._ask('copy', lambda: np.copyto(memory_at(target, nbytes), memory_at(source, nbytes)))

    def zero(self, address: int, nbytes: int) -> None:
        self.check_span(address, nbytes)
        self._ask('zero', lambda: memory_at(address, nbytes).fill(0))

    def event(self) -> int:
        self.check_current()
        self._events += 1
        return self._events

    def record(self, event: int) -> None:
        self.check_current()
        self._queue.append(event)

    def wait(self, event: int) -> None:
        self.check_current()
        while event in self._queue:
            self._run_one()

    def synchronize(self) -> None:
        self.check_current()
        self.waits += 1
        self._run_all()

    def memory_bytes(self) -> tuple[int, int]:
        return self.limit_bytes - self.held_bytes, self.limit_bytes

    def free_host(self, array: np.ndarray) -> None:
        self.check_current()
        self._run_all()
        self._host = [kept for kept in self._host if kept is not array]

    # -- what tests and the fake TensorRT look at ----------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        return sum(block.nbytes for block in self._memory.values())

    def check_current(self) -> None:
        assert self.thread == threading.get_ident(), 'the context is not current in this thread'

    def check_span(self, address: int, nbytes: int) -> None:
        """These bytes lie inside of one block."""
        self.check_current()
        assert nbytes > 0
        assert any(begin <= address and address + nbytes <= begin + block.nbytes for begin, block in self._memory.items()), (
            f'{nbytes} bytes at {address:#x} are not in any block')

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        assert stream == self.stream, 'not our stream'
        self._ask('run', work)

    @property
    def held_host_bytes(self) -> int:
        return sum(array.nbytes for array in self._host)

    def _ask(self, kind: str, work: Callable[[], None]) -> None:
        self.calls[kind] = self.calls.get(kind, 0) + 1
        self._queue.append(work)

    def _run_one(self) -> None:
        work = self._queue.popleft()
        if not isinstance(work, int):
            work()

    def _run_all(self) -> None:
        while self._queue:
            self._run_one()

    def _check_host(self, array: np.ndarray) -> None:
        begin, end = array.ctypes.data, array.ctypes.data + array.nbytes
        assert array.flags.c_contiguous
        assert any(host.ctypes.data <= begin and end <= host.ctypes.data + host.nbytes for host in self._host), (
            'only page-locked memory is copied while the host goes on')

    @staticmethod
    def _check_fences(block: np.ndarray) -> None:
        for begin in (block.ctypes.data - FENCE_BYTES, block.ctypes.data + block.nbytes):
            assert (memory_at(begin, FENCE_BYTES) == FENCE).all(), 'somebody wrote beside a block'
