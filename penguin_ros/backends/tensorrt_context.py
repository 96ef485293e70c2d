"""One TensorRT engine on the device: load it, check what goes in and out, bind, run. Knows nothing of what tensors mean.

Only names that are the same in TensorRT 10.3 (JetPack 6.2) to 11 are used, and every boolean the library returns is looked
at: it reports failure by False or None and tells the reason to its logger, so the last thing it said goes into the error.
Source: reference/tensorrt.md 1.2.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Mapping
from pathlib import Path

import tensorrt as trt

from penguin_ros.backends.cuda import ALIGNMENT
from penguin_ros.backends.manifest import GraphEntry, TensorPort
from penguin_ros.core.errors import EngineError, EngineMismatchError

NUMPY_NAMES = {trt.DataType.FLOAT: 'float32', trt.DataType.HALF: 'float16', trt.DataType.INT32: 'int32'}
_OLDEST = '10.3 (JetPack 6.1 or 6.2)'


def creation_flags() -> int:
    """The flags of a strongly typed network. Raises EngineError where TensorRT is too old to have them."""
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    if strongly_typed is None:
        raise EngineError(f'this machine has TensorRT {trt.__version__}; {_OLDEST} or later is needed, because the precision '
                          'of an engine is written in its graph. Install JetPack 6.2 or later, or use a recipe for onnx.')
    return 1 << int(strongly_typed)


class TensorRTLog(trt.ILogger):
    """Hands TensorRT's messages to a Python logger and keeps the last error. Called from TensorRT's threads; never raises."""

    def __init__(self, log: logging.Logger) -> None:
        trt.ILogger.__init__(self)
        self._log = log
        self._levels = {trt.ILogger.INTERNAL_ERROR: logging.ERROR, trt.ILogger.ERROR: logging.ERROR,
                        trt.ILogger.WARNING: logging.WARNING, trt.ILogger.INFO: logging.DEBUG}
        self.last_info = ''
        self._last_error = ''

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        level = self._levels.get(severity)
        if level is None:       # verbose: thousands a second while an engine is built
            return
        if level == logging.ERROR:
            self._last_error = msg
        elif severity == trt.ILogger.INFO:
            self.last_info = msg
        self._log.log(level, 'TensorRT: %s', msg)

    def reason(self) -> str:
        """What TensorRT said last of an error, as the end of a sentence; said once."""
        said, self._last_error = self._last_error, ''
        return f': {said.rstrip(". ")}.' if said else ' without saying why.'


def make_runtime(said: TensorRTLog) -> trt.Runtime:
    """What engines are loaded with. Raises EngineError where TensorRT cannot be started, as without a GPU."""
    try:
        return trt.Runtime(said)
    except TypeError as error:      # what the bindings raise where the library returns nothing
        raise EngineError(f'TensorRT {trt.__version__} cannot be started{said.reason()} Is the GPU there? '
                          '`penguin doctor` looks.') from error


class LoadedEngine:
    """An engine and its one execution context. Used by one thread at a time, with the device's context current."""

    def __init__(self, runtime: trt.Runtime, path: Path, entry: GraphEntry, *, said: TensorRTLog, remedy: str) -> None:
        self._path = path
        self._said = said
        with path.open('rb') as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineMismatchError(f'TensorRT {trt.__version__} cannot load {path}{said.reason()} {remedy}')
        _check_ports(engine, path, entry, remedy)
        context = engine.create_execution_context()
        if context is None:
            raise EngineError(f'{path} was loaded, but there is no execution context for it{said.reason()} If memory ran out, '
                              'close other programs, or lower max_append, cache_rows or max_patches in the recipe and build '
                              'again; `penguin plan RECIPE` tells what fits.')
        self._engine, self._context = engine, context
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def run(self, profile: int, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int], stream: int) -> None:
        """Put one run on the stream; ``shapes`` are those of the inputs. After an EngineError the next run is sound again."""
        try:
            self._bind(profile, shapes, addresses, stream)
            self._check(self._context.execute_async_v3(stream), 'running it')
        except BaseException:
            self._profile = None        # what is bound is not known for sure; the next run binds everything anew
            raise

    def _bind(self, profile: int, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int], stream: int) -> None:
        """Tell the context what differs from the last run: past rows lie where they lay, and much else stays too."""
        if profile != self._profile:
            self._check(self._context.set_optimization_profile_async(profile, stream), f'choosing profile {profile}')
            self._shapes.clear()
            self._addresses.clear()
            self._profile = profile
        for name, shape in shapes.items():
            if self._shapes.get(name) != shape:
                self._check(self._context.set_input_shape(name, shape), f'giving {name} the shape {list(shape)}')
                self._shapes[name] = shape
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                if address % ALIGNMENT:
                    raise EngineError(f'{name} would lie at {address:#x}, which is no multiple of {ALIGNMENT} bytes. '
                                      'This is a mistake in penguin_ros; please report it.')
                self._check(self._context.set_tensor_address(name, address), f'binding {name}')
                self._addresses[name] = address

    def _check(self, done: bool, doing: str) -> None:
        if not done:
            raise EngineError(f'{self._path.name} failed while {doing}{self._said.reason()} If it happens again, start the '
                              'node anew; `penguin doctor` looks at the device, and `penguin verify` at the engine.')

    def close(self) -> None:
        """Let go of context and engine, in this order."""
        del self._context
        del self._engine


def _check_ports(engine: trt.ICudaEngine, path: Path, entry: GraphEntry, remedy: str) -> None:
    """Names, types, shapes and profiles of the engine must be what the manifest says and the code counts on."""
    needed = {port.name: (trt.TensorIOMode.INPUT, port) for port in entry.inputs}
    needed |= {port.name: (trt.TensorIOMode.OUTPUT, port) for port in entry.outputs}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    problems = [f'{name} is {"missing" if name in needed else "not expected"}' for name in sorted(set(names) ^ set(needed))]
    for name in sorted(set(names) & set(needed)):
        mode, port = needed[name]
        dtype = NUMPY_NAMES.get(engine.get_tensor_dtype(name), str(engine.get_tensor_dtype(name)))
        sizes = _sizes(engine.get_tensor_shape(name))
        fits = len(sizes) == len(port.shape) and all(
            found == (-1 if isinstance(size, str) else size) for found, size in zip(sizes, port.shape))
        if engine.get_tensor_mode(name) != mode or dtype != port.dtype or not fits:
            problems.append(f'{name} is {dtype} {list(sizes)}, not {port.dtype} {list(port.shape)}')
        elif engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            problems.append(f'{name} is wanted in host memory')
    if engine.num_optimization_profiles != len(entry.profiles):
        problems.append(f'it has {engine.num_optimization_profiles} profiles, not {len(entry.profiles)}')
    if not problems:
        varying = [port for port in entry.inputs if any(isinstance(size, str) for size in port.shape)]
        problems = [f'profile {profile.name} takes other shapes of {port.name}' for number, profile in enumerate(entry.profiles)
                    for port in varying if _profile_shapes(engine, port, number) != profile.shapes(port)]
    if problems:
        raise EngineMismatchError(f'{path} is not the engine its manifest describes: {"; ".join(problems)}. {remedy}')


def _profile_shapes(engine: trt.ICudaEngine, port: TensorPort, number: int) -> tuple[tuple[int, ...], ...]:
    return tuple(_sizes(shape) for shape in engine.get_tensor_profile_shape(port.name, number))


def _sizes(shape: trt.Dims) -> tuple[int, ...]:
    return tuple(shape[index] for index in range(len(shape)))
