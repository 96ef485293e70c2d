"""Real pycuda over a CUDA driver in host memory (host_cuda.c): penguin_ros.backends.cuda.Device itself, with a test's eyes.

Import it only in a process whose LD_LIBRARY_PATH has that driver as libcuda.so.1; test_pycuda.py starts such a one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from penguin_ros.backends.cuda import Device

_flags = sys.getdlopenflags()
sys.setdlopenflags(os.RTLD_LAZY)        # pycuda names more of CUDA than the driver in host memory has
import pycuda.driver  # noqa: E402, F401

sys.setdlopenflags(_flags)
_driver = ctypes.CDLL('libcuda.so.1')
_driver.host_cuda_held.restype = ctypes.c_size_t
_driver.host_cuda_limit.argtypes = [ctypes.c_size_t]
_driver.host_cuda_span.argtypes = [ctypes.c_uint64, ctypes.c_size_t]


class HostGpu(Device):
    """Has what fake_gpu.FakeGpu shows to tests; work is done at once, so nothing is ever queued."""

    def __init__(self, limit_bytes: int = 1 << 40) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}
        self.waits = 0
        self._sizes: dict[int, int] = {}
        self._pinned: dict[int, int] = {}
        self._queue: tuple[()] = ()
        self.limit_bytes = limit_bytes

    @property
    def held_bytes(self) -> int:
        return sum(self._sizes.values())

    @property
    def held_host_bytes(self) -> int:
        return sum(self._pinned.values())

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        _driver.host_cuda_limit(limit_bytes + _driver.host_cuda_held() - self.held_bytes)

    @property
    def thread(self) -> None:
        assert not self._depth
        assert not _driver.host_cuda_current()

    def alloc(self, nbytes: int) -> int:
        address = super().alloc(nbytes)
        self._sizes[address] = nbytes
        return address

    def free(self, address: int) -> None:
        super().free(address)
        del self._sizes[address]

    def host_array(self, nbytes: int) -> np.ndarray:
        array = super().host_array(nbytes)
        self._pinned[id(array)] = nbytes
        return array

    def free_host(self, array: np.ndarray) -> None:
        super().free_host(array)
        del self._pinned[id(array)]

    def upload(self, address: int, array: np.ndarray) -> None:
        self._count('upload', super().upload, address, array)

    def download(self, array: np.ndarray, address: int) -> None:
        self._count('download', super().download, array, address)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self._count('copy', super().copy, target, source, nbytes)

    def zero(self, address: int, nbytes: int) -> None:
        self._count('zero', super().zero, address, nbytes)

    def synchronize(self) -> None:
        self.waits += 1
        super().synchronize()

    def check_current(self) -> None:
        assert _driver.host_cuda_current(), 'the context is not current in this thread'

    def check_span(self, address: int, nbytes: int) -> None:
        self.check_current()
        assert _driver.host_cuda_span(address, nbytes), f'{nbytes} bytes at {address:#x} are not in any block'

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        assert stream == self.stream
        self._count('run', work)

    def _count(self, kind: str, work: Callable[..., None], *args: Any) -> None:
        self.calls[kind] = self.calls.get(kind, 0) + 1
        work(*args)
