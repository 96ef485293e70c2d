"""Builds one TensorRT engine from an exported graph, on the machine it will run on. Knows nothing of recipes or of running.

The precision of every tensor stands in the graph (strongly typed network), so no precision flag is ever set. Building takes
minutes; what TensorRT is doing is shown as it goes, from its log, since the progress interface came later than 10.3.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorrt as trt

from penguin_ros.backends.cuda import the_gpu
from penguin_ros.backends.device_memory import Gpu
from penguin_ros.backends.manifest import GraphEntry, write_whole
from penguin_ros.backends.ownership import check_ownership
from penguin_ros.backends.tensorrt import machine_details
from penguin_ros.backends.tensorrt_context import TensorRTLog, creation_flags, make_runtime
from penguin_ros.core.errors import EngineError

Progress = Callable[[str], None]
_PROGRESS_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What may be chosen about a build; all of it is written into the manifest."""

    optimization_level: int = 3     # 0 to 5: how long TensorRT looks for fast kernels
    workspace_mb: int = 1024        # most scratch memory a kernel may want

    def as_text(self) -> dict[str, str]:
        return {'strongly_typed': 'yes', 'tf32': 'no', **{name: str(value) for name, value in asdict(self).items()}}


class EngineBuilder:
    """Builds the engines of one recipe on one GPU, with one timing cache."""

    def __init__(self, *, timing_folder: Path, progress: Progress, gpu: Gpu | None = None) -> None:
        self._flags = creation_flags()
        self._gpu = gpu or the_gpu()
        self._progress = progress
        self._said = TensorRTLog(_log)
        self._timing_file = timing_folder / timing_file_name(self.details)

    @property
    def details(self) -> dict[str, str]:
        """What the engines will depend on, for the manifest."""
        return machine_details(self._gpu)

    def build(self, graph: Path, entry: GraphEntry, target: Path, options: BuildOptions) -> None:
        """Build ``target`` from ``graph`` for the profiles of ``entry``. The file appears when it is whole."""
        began_s = time.monotonic()
        with self._gpu.current():
            builder, network = self._parsed(graph)
            config = builder.create_builder_config()
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
            config.builder_optimization_level = options.optimization_level
            config.clear_flag(trt.BuilderFlag.TF32)     # on by default; where a graph says float32, float32 is meant
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
            self._add_profiles(builder, network, config, entry)
            self._use_timing_cache(config)
            with self._telling(target.name, began_s):
                plan = builder.build_serialized_network(network, config)
            if plan is None:
                free, total = self._gpu.memory_bytes()
                raise EngineError(
                    f'TensorRT could not build {target.name}{self._said.reason()} The GPU has {free / 1e9:.1f} of '
                    f'{total / 1e9:.1f} GB free. If memory ran out: close other programs, add swap (docs/engines.md), or '
                    'lower workspace_mb, max_append or cache_rows in the recipe.')
            write_whole(target, plan)
            self._save_timing_cache(config)
        self._progress(f'{target}: {target.stat().st_size / 1e6:.1f} MB, built in {_minutes(time.monotonic() - began_s)}')

    def describe_layers(self, engine_file: Path, target: Path) -> None:
        """Write what TensorRT made of the graph, layer by layer, as JSON: which operations it fused, in which precision."""
        with self._gpu.current():
            engine = make_runtime(self._said).deserialize_cuda_engine(engine_file.read_bytes())
            if engine is None:
                raise EngineError(f'TensorRT {trt.__version__} cannot load {engine_file}{self._said.reason()} Build it again: '
                                  'penguin build RECIPE')
            layers = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        write_whole(target, layers.encode())
        self._progress(f'{target}: layers as built')

    def _parsed(self, graph: Path) -> tuple[trt.Builder, trt.INetworkDefinition]:
        try:
            builder = trt.Builder(self._said)
        except TypeError as error:      # what the bindings raise where the library returns nothing
            raise EngineError(f'TensorRT {trt.__version__} cannot be started{self._said.reason()} Is the GPU there? '
                              '`penguin doctor` looks.') from error
        network = builder.create_network(self._flags)
        parser = trt.OnnxParser(network, self._said)
        if not parser.parse_from_file(str(graph)):
            errors = '; '.join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise EngineError(f'TensorRT {trt.__version__} does not take {graph}: {errors or self._said.reason()}. Export it '
                              'again with this version of penguin_ros: penguin build RECIPE')
        self._progress(f'{graph}: {network.num_layers} layers read')
        return builder, network

    @staticmethod
    def _add_profiles(builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig,
                      entry: GraphEntry) -> None:
        found = [network.get_input(index).name for index in range(network.num_inputs)]
        if found != [port.name for port in entry.inputs]:
            said = ', '.join(port.name for port in entry.inputs)
            raise EngineError(f'the graph takes {", ".join(found)}; the export said {said}. Export it again: '
                              'penguin build RECIPE')
        for wanted in entry.profiles:
            profile = builder.create_optimization_profile()
            for port in entry.inputs:
                least, usual, most = (trt.Dims(list(shape)) for shape in wanted.shapes(port))
                profile.set_shape(port.name, least, usual, most)
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(f'TensorRT refuses the shapes of profile {wanted.name}: {dict(wanted.dims)}. '
                                  'Change max_append, cache_rows or max_patches in the recipe.')

    def _use_timing_cache(self, config: trt.IBuilderConfig) -> None:
        """Let an earlier build's measurements serve again; they save minutes and make the choice of kernels steadier."""
        content = b''
        if self._timing_file.exists():
            check_ownership(self._timing_file.parent, [self._timing_file.name])
            content = self._timing_file.read_bytes()
        if not config.set_timing_cache(config.create_timing_cache(content), False):
            self._progress(f'{self._timing_file}: not made by this TensorRT on this GPU; kernels are measured anew')
            config.set_timing_cache(config.create_timing_cache(b''), False)

    def _save_timing_cache(self, config: trt.IBuilderConfig) -> None:
        cache = config.get_timing_cache()
        if cache is not None:
            self._timing_file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            write_whole(self._timing_file, cache.serialize())

    @contextmanager
    def _telling(self, name: str, began_s: float) -> Iterator[None]:
        """Say now and then how long it has taken and what TensorRT said last."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(_PROGRESS_S):
                self._progress(f'{name}: building for {_minutes(time.monotonic() - began_s)}; TensorRT: {self._said.last_info}')

        self._progress(f'{name}: building; this takes minutes')
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()


def timing_file_name(details: dict[str, str]) -> str:
    """One timing cache per TensorRT version, GPU and CUDA driver."""
    return re.sub(r'[^\w.-]+', '_', '-'.join(details.values())) + '.timing'


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02} min'
