"""A TensorRT of the tests: engines that run the very ONNX file they were built from in ONNX Runtime, on any machine.

It has the names penguin_ros uses, with the library's own signatures and habits (failures are False or None, reasons go to
the logger), and is stricter than the library: everything is checked that would be undefined there. The names are held to
those of the real bindings by test_tensorrt_names.py.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from fake_gpu import ALIGNMENT, memory_at

__version__ = '10.3.0'
_MAGIC = b'fake engine\n'


class Machine(Protocol):
    """The GPU as far as TensorRT sees it."""

    def check_current(self) -> None: ...
    def check_span(self, address: int, nbytes: int) -> None: ...
    def enqueue(self, stream: int, work: Callable[[], None]) -> None: ...


machine: Machine | None = None          # what engines run on; set by the test
fail_next: set[str] = set()             # names of calls that shall fail once
calls: list[str] = []                   # names of calls in order


def reset() -> None:
    global machine
    machine = None
    fail_next.clear()
    calls.clear()


def _called(name: str, logger: ILogger | None = None) -> bool:
    """Note a call; True when it shall fail."""
    calls.append(name)
    if name not in fail_next:
        return False
    fail_next.discard(name)
    if logger is not None:
        logger.log(ILogger.ERROR, f'IExecutionContext::{name}: Error Code 3: API Usage Error (a test wants it so).')
    return True


def _machine() -> Machine:
    assert machine is not None, 'the test has not set fake_tensorrt.machine'
    machine.check_current()
    return machine


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None: ...

    def log(self, severity: Severity, msg: str) -> None:
        raise AssertionError('to be overridden')


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class Dims(tuple):
    """The library's is no tuple; nothing is used of it but its length and its items."""


class MemoryPoolType(enum.Enum):
    WORKSPACE, DLA_MANAGED_SRAM = range(2)


class BuilderFlag(enum.Enum):
    TF32, DEBUG = range(2)


class LayerInformationFormat(enum.Enum):
    ONELINE, JSON = range(2)


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY, DETAILED, NONE = range(3)


_DTYPES = {onnx.TensorProto.FLOAT: DataType.FLOAT, onnx.TensorProto.FLOAT16: DataType.HALF,
           onnx.TensorProto.INT32: DataType.INT32}
_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT32: np.int32}


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.dtype = _DTYPES[value.type.tensor_type.elem_type]
        self.shape = tuple(-1 if size.dim_param else size.dim_value for size in value.type.tensor_type.shape.dim)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self.onnx_file = Path()
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self.num_layers = 0

    def _read(self, path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        self.onnx_file = path.resolve()
        self._inputs = [ITensor(value) for value in model.graph.input]
        self._outputs = [ITensor(value) for value in model.graph.output]
        self.num_layers = len(model.graph.node)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    def parse_from_file(self, model: str) -> bool:
        if _called('parse_from_file'):
            self._errors.append(ParserError('In node 7 (importSwish): UNSUPPORTED_NODE: no importer'))
            return False
        self._network._read(Path(model))
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
        for low, usual, high in zip(min, opt, max, strict=True):
            assert 0 < low <= usual <= high
        self.shapes[input] = min, opt, max


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.content)


class IBuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[IOptimizationProfile] = []
        self.limits: dict[MemoryPoolType, int] = {}
        self.flags = {BuilderFlag.TF32}
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self._cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if _called('add_optimization_profile'):
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if _called('set_timing_cache'):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        _machine()
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        self._logger.log(ILogger.INFO, 'Compiler backend is used during engine build.')
        if _called('build_serialized_network', self._logger):
            return None
        assert not config.flags
        session = _session(network.onnx_file)
        for profile in config.profiles:
            _check_corners(session, network, profile)
        cache = config.get_timing_cache()
        if cache is not None:
            cache.content += b'timed ' + network.onnx_file.name.encode() + b'\n'
        self._logger.log(ILogger.INFO, 'Engine generation completed in 0.1 seconds.')
        return IHostMemory(_MAGIC + json.dumps({
            'tensorrt': __version__, 'onnx': str(network.onnx_file),
            'sha256': hashlib.sha256(network.onnx_file.read_bytes()).hexdigest(),
            'profiles': [profile.shapes for profile in config.profiles]}).encode())


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def _check_corners(session: onnxruntime.InferenceSession, network: INetworkDefinition, profile: IOptimizationProfile) -> None:
    """Every corner of a profile must be possible by itself, as TensorRT wants it ("not self-consistent" otherwise)."""
    for corner in range(3):
        feeds = {}
        for index in range(network.num_inputs):
            port = network.get_input(index)
            shape = profile.shapes[port.name][corner]
            assert all(fixed in (-1, size) for fixed, size in zip(port.shape, shape, strict=True))
            feeds[port.name] = np.zeros(shape, _NUMPY[port.dtype])
        session.run(None, feeds)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        _machine()
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        _machine()
        content = bytes(serialized_engine)
        if _called('deserialize_cuda_engine', self._logger) or not content.startswith(_MAGIC):
            return None
        plan = json.loads(content[len(_MAGIC):])
        if plan['tensorrt'] != __version__:
            self._logger.log(ILogger.ERROR, f'The engine plan file was built with version {plan["tensorrt"]}')
            return None
        return ICudaEngine(plan, self._logger)


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], logger: ILogger) -> None:
        path = Path(plan['onnx'])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == plan['sha256']
        self._network = INetworkDefinition(1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._network._read(path)
        self.session = _session(path)
        self.logger = logger
        self.profiles = plan['profiles']
        self.ports = {tensor.name: (tensor, mode) for mode, count, get in (
            (TensorIOMode.INPUT, self._network.num_inputs, self._network.get_input),
            (TensorIOMode.OUTPUT, self._network.num_outputs, self._network.get_output))
            for tensor in map(get, range(count))}
        self.device_memory_size_v2 = 12_345_678

    @property
    def num_io_tensors(self) -> int:
        return len(self.ports)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self.ports[name][1]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.ports[name][0].dtype

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self.ports[name][0].shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self.profiles[profile_index][name]]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_execution_context(self) -> IExecutionContext | None:
        _machine()
        return None if _called('create_execution_context', self.logger) else IExecutionContext(self)


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON
        return json.dumps({'Layers': [{'Name': name} for name in self._engine.ports]})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        _machine()
        assert type(profile_index) is int
        assert type(stream_handle) is int
        if _called('set_optimization_profile_async', self._engine.logger):
            return False
        self._profile = profile_index
        self._shapes.clear()        # stricter than the library, which says only that shapes are to be set again
        self._addresses.clear()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        _machine()
        assert self._profile is not None, 'a shape before a profile'
        assert type(shape) is tuple
        assert all(type(size) is int for size in shape)
        assert self._engine.get_tensor_mode(name) is TensorIOMode.INPUT
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        fits = len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high))
        if _called('set_input_shape', self._engine.logger) or not fits:
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        _machine()
        assert type(memory) is int
        assert name in self._engine.ports
        assert memory % ALIGNMENT == 0
        if _called('set_tensor_address', self._engine.logger):
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu = _machine()
        assert type(stream_handle) is int
        if _called('execute_async_v3', self._engine.logger):
            return False
        inputs, outputs = self._spans()
        self._check_spans(gpu, inputs, outputs)
        gpu.enqueue(stream_handle, lambda: self._run(inputs, outputs))
        return True

    def _spans(self) -> tuple[dict[str, Span], dict[str, Span]]:
        """What is read and what is written by a run as it is bound now."""
        sizes: dict[str, int] = {}
        inputs, outputs = {}, {}
        values = self._engine.session.get_inputs()
        for value in values:
            assert value.name in self._shapes, f'{value.name} has no shape'
            inputs[value.name] = Span(self, value.name, self._shapes[value.name])
            for name, size in zip(value.shape, self._shapes[value.name], strict=True):
                assert sizes.setdefault(str(name), size) == size, f'{name} is {sizes[str(name)]} and {size}'
        if 'S' in sizes:
            assert sizes['S'] == sizes['P'] + sizes['T']
        for value in self._engine.session.get_outputs():
            fixed = [size for size in value.shape if not isinstance(size, str)]
            rows = sizes['N'] // self._merged() if 'M' in value.shape else sizes.get(str(value.shape[0]), 0)
            outputs[value.name] = Span(self, value.name, (rows, *fixed))
        return inputs, outputs

    def _merged(self) -> int:
        """Patches per visual token, from the least shape of the only profile."""
        return int(self._engine.get_tensor_profile_shape('patches', 0)[0][0])

    def _check_spans(self, gpu: Machine, inputs: dict[str, Span], outputs: dict[str, Span]) -> None:
        for span in (*inputs.values(), *outputs.values()):
            gpu.check_span(span.address, span.nbytes)
        written = sorted(outputs.values(), key=lambda span: span.address)
        for one, next_one in itertools.pairwise(written):
            assert one.address + one.nbytes <= next_one.address, f'{one.name} and {next_one.name} are written to one place'
        for read in inputs.values():
            for span in written:
                assert read.address + read.nbytes <= span.address or span.address + span.nbytes <= read.address, (
                    f'{span.name} is written over {read.name}')

    def _run(self, inputs: dict[str, Span], outputs: dict[str, Span]) -> None:
        results = self._engine.session.run(list(outputs), {name: span.array().copy() for name, span in inputs.items()})
        for span, result in zip(outputs.values(), results, strict=True):
            assert result.shape == span.shape
            span.array()[...] = result


class Span:
    """One tensor in memory."""

    def __init__(self, context: IExecutionContext, name: str, shape: tuple[int, ...]) -> None:
        assert name in context._addresses, f'{name} has no address'
        self.name, self.shape = name, shape
        self.address = context._addresses[name]
        self.dtype = np.dtype(_NUMPY[context._engine.get_tensor_dtype(name)])
        self.nbytes = math.prod(shape) * self.dtype.itemsize

    def array(self) -> np.ndarray:
        return memory_at(self.address, self.nbytes).view(self.dtype).reshape(self.shape)
