"""One GPU through pycuda: memory, one stream, copies. Knows nothing of engines; the only file that imports pycuda.

Addresses are plain integers. All work goes to one stream, in the order it was asked for, and nothing waits for it but
``wait`` and ``synchronize``. The GPU's primary context is used, which other libraries of the process share; it is current
only in the thread that is inside of ``current()``, and one thread at a time can be (no pycuda.autoinit, which would bind it
to whatever thread imported it first). Source: reference/tensorrt.md 5.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from penguin_ros.core.errors import EngineError

ALIGNMENT = 256         # bytes; what TensorRT asks of every address, and what CUDA gives


@lru_cache(maxsize=1)
def the_gpu() -> Device:
    """The first GPU; it and its stream last as long as the process, whatever is loaded and let go of meanwhile."""
    return Device()


class Device:
    """A GPU and one stream on it. Every method but ``current`` wants the context to be current."""

    def __init__(self, index: int = 0) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise EngineError(
                f'pycuda cannot be imported ({error}). On a Jetson install it with the CUDA toolkit of JetPack: '
                'sudo apt install nvidia-jetpack; PATH=/usr/local/cuda/bin:$PATH pip install pycuda') from error
        self._cuda = cuda
        self._lock = threading.RLock()
        self._depth = 0
        with self._explained('looking for a GPU'):
            cuda.init()
            device = cuda.Device(index)
            self._context = device.retain_primary_context()
            self.name = str(device.name())
            self.compute_capability = '{}.{}'.format(*device.compute_capability())
            self.multiprocessors = int(device.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT))
        version = int(cuda.get_driver_version())
        self.driver_version = f'{version // 1000}.{version % 1000 // 10}'
        self._allocations: dict[int, Any] = {}
        self._events: list[Any] = []
        with self.current(), self._explained('making a stream'):
            self._stream = cuda.Stream()
        self.stream = int(self._stream.handle)
        atexit.register(self._release)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's context current in this thread meanwhile; another thread waits for its turn."""
        with self._lock:
            if self._depth == 0:
                with self._explained('entering its context'):
                    self._context.push()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._context.pop()

    def alloc(self, nbytes: int) -> int:
        """Reserve device memory; the address is a multiple of ALIGNMENT."""
        with self._explained(f'reserving {nbytes / 1e6:.1f} MB'):
            allocation = self._cuda.mem_alloc(nbytes)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        """Give memory back; waits for all work on the device."""
        with self._explained('giving memory back'):
            self._allocations.pop(address).free()

    def host_array(self, nbytes: int) -> np.ndarray:
        """Page-locked host memory, uint8 [nbytes], which copies read and write while the host goes on."""
        with self._explained(f'reserving {nbytes / 1e6:.1f} MB of page-locked memory'):
            return self._cuda.pagelocked_empty(nbytes, np.uint8)

    def free_host(self, array: np.ndarray) -> None:
        with self._explained('giving page-locked memory back'):
            array.base.free()  # type: ignore[union-attr]

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy page-locked memory to the device; it may be changed again after a ``wait`` for an event recorded later."""
        with self._explained('copying to the device'):
            self._cuda.memcpy_htod_async(address, array, self._stream)

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy into page-locked memory; it holds the result after ``synchronize``."""
        with self._explained('copying from the device'):
            self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy on the device; the two places must not overlap."""
        with self._explained('copying on the device'):
            self._cuda.memcpy_dtod_async(target, source, nbytes, self._stream)

    def zero(self, address: int, nbytes: int) -> None:
        with self._explained('clearing memory'):
            self._cuda.memset_d8_async(address, 0, nbytes, self._stream)

    def event(self) -> int:
        """The number of something to record and wait for; nobody waits for it until it is recorded. It is kept for good."""
        with self._explained('making an event'):
            self._events.append(self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING))
        return len(self._events) - 1

    def record(self, event: int) -> None:
        """Put the event behind all that was asked for so far."""
        with self._explained('recording an event'):
            self._events[event].record(self._stream)

    def wait(self, event: int) -> None:
        """Wait until the device has got to where the event was recorded last."""
        with self._explained('waiting for the device'):
            self._events[event].synchronize()

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked for; what failed meanwhile is raised here."""
        with self._explained('waiting for the device'):
            self._stream.synchronize()

    def memory_bytes(self) -> tuple[int, int]:
        """Free and total."""
        with self._explained('asking for free memory'):
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def _release(self) -> None:
        """Give the context back as the process ends; pycuda can do so only while it is current."""
        self._context.push()
        self._context.detach()

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.MemoryError as error:
            raise EngineError(
                f'the GPU has no room left while {doing} ({error}). Lower max_append, cache_rows or max_patches in the '
                'recipe and build again, use fewer cameras, or close other programs. `penguin plan RECIPE` tells what '
                'fits.') from error
        except self._cuda.Error as error:
            raise EngineError(f'CUDA failed while {doing}: {error}. If the next call fails too, start the node again; '
                              '`penguin doctor` looks at driver and GPU.') from error
