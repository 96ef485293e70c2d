"""How device memory is lent and taken back, and how small inputs get there. Knows nothing of engines or TensorRT.

Both engines work on one stream, so memory that Python has let go of may be lent again at once: whatever still reads it on
the device was asked for earlier. Nothing is given back to CUDA while there is room, because that waits for the device.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from penguin_ros.backends.cuda import ALIGNMENT
from penguin_ros.core.errors import EngineError

_GRAIN_BYTES = 1 << 16          # sizes are rounded up to this, so that frames of about one size can follow one another


class Gpu(Protocol):
    """What is asked of cuda.Device, so that a test can stand in for it."""

    name: str
    compute_capability: str
    multiprocessors: int
    driver_version: str
    stream: int                 # handle of the one stream that all work goes to

    def current(self) -> Any: ...
    def alloc(self, nbytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def host_array(self, nbytes: int) -> np.ndarray: ...
    def free_host(self, array: np.ndarray) -> None: ...
    def upload(self, address: int, array: np.ndarray) -> None: ...
    def download(self, array: np.ndarray, address: int) -> None: ...
    def copy(self, target: int, source: int, nbytes: int) -> None: ...
    def zero(self, address: int, nbytes: int) -> None: ...
    def event(self) -> int: ...
    def record(self, event: int) -> None: ...
    def wait(self, event: int) -> None: ...
    def synchronize(self) -> None: ...
    def memory_bytes(self) -> tuple[int, int]: ...


class Memory:
    """What one pair of engines has reserved on a GPU, so that all of it can be given back."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.closed = False
        self._addresses: set[int] = set()
        self._host_arrays: list[np.ndarray] = []

    def alloc(self, nbytes: int) -> int:
        address = self.gpu.alloc(nbytes)
        self._addresses.add(address)
        return address

    def free(self, address: int) -> None:
        self._addresses.remove(address)
        self.gpu.free(address)

    def host_array(self, nbytes: int) -> np.ndarray:
        """Page-locked memory on the host, uint8 [nbytes]."""
        array = self.gpu.host_array(nbytes)
        self._host_arrays.append(array)
        return array

    def close(self) -> None:
        """Give everything back; what lies there is gone."""
        self.closed = True
        while self._addresses:
            self.gpu.free(self._addresses.pop())
        while self._host_arrays:
            self.gpu.free_host(self._host_arrays.pop())


class Block:
    """Device memory on loan: it goes back when the last reference to it is dropped, in whatever thread that happens."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes


class Pool:
    """Lends blocks and lends them again."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._idle: list[tuple[int, int]] = []                  # size and address
        self._returned: deque[tuple[int, int]] = deque()        # filled by finalizers, perhaps of other threads

    def lend(self, nbytes: int) -> Block:
        """Memory of at least ``nbytes``, its content whatever it was."""
        nbytes = aligned(max(nbytes, 1), _GRAIN_BYTES)
        self._take_back()
        fitting = [entry for entry in self._idle if nbytes <= entry[0] <= 2 * nbytes]
        if fitting:
            size, address = min(fitting)
            self._idle.remove((size, address))
        else:
            size, address = nbytes, self._reserve(nbytes)
        block = Block(address, size)
        weakref.finalize(block, self._returned.append, (size, address)).atexit = False
        return block

    def _reserve(self, nbytes: int) -> int:
        try:
            return self.memory.alloc(nbytes)
        except EngineError:
            if not self._idle:
                raise
        self.memory.gpu.synchronize()
        while self._idle:
            self.memory.free(self._idle.pop()[1])
        return self.memory.alloc(nbytes)

    def _take_back(self) -> None:
        while self._returned:
            self._idle.append(self._returned.popleft())


class Inbox:
    """Small arrays on their way to the device: written side by side into page-locked memory, sent in one copy.

    A call places what it needs, sends, and binds the addresses it was given. The next call may write again as soon as the
    copy is done, while the device still computes.
    """

    def __init__(self, memory: Memory, nbytes: int) -> None:
        self._gpu = memory.gpu
        self.nbytes = aligned(nbytes)
        self.address = memory.alloc(self.nbytes)
        self._host = memory.host_array(self.nbytes)
        self._sent = self._gpu.event()
        self._used = 0

    @staticmethod
    def room_for(arrays: Sequence[tuple[tuple[int, ...], np.dtype]]) -> int:
        """Bytes that arrays of these shapes and types need side by side."""
        return sum(aligned(int(np.prod(shape)) * dtype.itemsize) for shape, dtype in arrays)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Place arrays inside of this; they are sent at the end."""
        self._gpu.wait(self._sent)
        self._used = 0
        yield
        self._gpu.upload(self.address, self._host[:self._used])
        self._gpu.record(self._sent)

    def place(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, int]:
        """An array to fill, and where on the device it will be."""
        nbytes = int(np.prod(shape)) * dtype.itemsize
        begin, self._used = self._used, self._used + aligned(nbytes)
        if self._used > self.nbytes:
            raise EngineError(f'inputs of {self._used} bytes do not fit the {self.nbytes} set aside for them. '
                              'This is a mistake in penguin_ros; please report it.')
        return self._host[begin:begin + nbytes].view(dtype).reshape(shape), self.address + begin

    def put(self, array: np.ndarray) -> int:
        """Place a copy of an array; returns where on the device it will be."""
        room, address = self.place(array.shape, array.dtype)
        room[...] = array
        return address


def aligned(nbytes: int, grain_bytes: int = ALIGNMENT) -> int:
    """The next multiple."""
    return -(-nbytes // grain_bytes) * grain_bytes
