"""Runs the exported graphs with ONNX Runtime on a CPU: the default where there is no GPU, and the right numbers elsewhere.

Knows nothing of how graphs are made (model/export.py) or of what the core asks and why (core/engine.py).

The language engine appends by address. The cache is one pair of buffers per layer; a call binds their first P rows as past
and the bytes from row P on as the place for the new rows, so ONNX Runtime reads and writes the cache where it lies. A cache
row is never copied, and what a call costs does not depend on how large the buffers are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.backends.checks import check_append, check_move, check_patches
from penguin_ros.backends.golden import frames_of_case, run_case_on_engines, split_prompt
from penguin_ros.backends.inputs import fill_mask, map_embeddings, word_rows
from penguin_ros.backends.manifest import GraphEntry, Manifest, load_manifest
from penguin_ros.core.engine import KVCache, LanguageSpec, Piece, VisionSpec, VisualTokens
from penguin_ros.core.errors import EngineError, EngineMismatchError
from penguin_ros.core.rotary import decoder_tables, encoder_tables

_CACHE_ALIGNMENT = 256          # bytes; what TensorRT asks of an address, kept here so that both backends are alike
_NUMPY_NAMES = {'tensor(float)': 'float32', 'tensor(float16)': 'float16', 'tensor(int32)': 'int32'}


class OnnxCache:
    """Keys and values of one stream, in buffers that never move."""

    def __init__(self, spec: LanguageSpec, dtype: np.dtype, capacity_rows: int) -> None:
        shape = capacity_rows, spec.kv_heads, spec.head_dim
        self.keys = [_aligned_zeros(shape, dtype) for _ in range(spec.layers)]
        self.values = [_aligned_zeros(shape, dtype) for _ in range(spec.layers)]

    @property
    def capacity_rows(self) -> int:
        return len(self.keys[0])

    @property
    def row_bytes(self) -> int:
        return sum(buffer[0].nbytes for buffer in self.buffers)

    @property
    def buffers(self) -> list[np.ndarray]:
        """All of them, keys and values of layer 0 first."""
        return [buffer for pair in zip(self.keys, self.values) for buffer in pair]


class OnnxVisionEngine:
    """Keeps core.engine.VisionEngine."""

    def __init__(self, session: Any, spec: VisionSpec) -> None:
        self._session = session
        self._spec = spec
        self._tables = lru_cache(maxsize=64)(self._make_tables)

    @property
    def spec(self) -> VisionSpec:
        return self._spec

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        visual = self._outputs(patches, grid, ['visual'])['visual']
        return VisualTokens(len(visual), visual)

    def trace(self, patches: np.ndarray, grid: tuple[int, int]) -> dict[str, np.ndarray]:
        """Everything the graph gives out, by name; with a graph exported for debugging, also what lies between."""
        return self._outputs(patches, grid, [port.name for port in self._session.get_outputs()])

    def _outputs(self, patches: np.ndarray, grid: tuple[int, int], names: list[str]) -> dict[str, np.ndarray]:
        check_patches(self._spec, patches, grid)
        cos, sin = self._tables(grid)
        feeds = {'patches': np.ascontiguousarray(patches, np.float32), 'cos': cos, 'sin': sin}
        return dict(zip(names, _call(self._session.run, names, feeds)))

    def _make_tables(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return encoder_tables(grid, merge=self._spec.merge, head_dim=self._spec.head_dim, theta=self._spec.rope_theta)


class OnnxLanguageEngine:
    """Keeps core.engine.LanguageEngine."""

    def __init__(self, session: Any, spec: LanguageSpec, embeddings: np.ndarray) -> None:
        self._session = session
        self._spec = spec
        self._embeddings = embeddings           # [vocabulary, width], mapped: only the rows asked for are read
        self._dtype = np.dtype(next(_NUMPY_NAMES[port.type] for port in session.get_inputs() if port.name == 'embeddings'))
        self._binding = session.io_binding()

    @property
    def spec(self) -> LanguageSpec:
        return self._spec

    def new_cache(self, capacity_rows: int) -> OnnxCache:
        if capacity_rows < 2:
            raise EngineError(f'a cache of {capacity_rows} rows was asked for; row 0 is reserved, so 2 is the least. '
                              'Ask for one row more than there are tokens.')
        return OnnxCache(self._spec, self._dtype, capacity_rows)

    def append(self, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray, visible: np.ndarray,
               logits_for: Sequence[int]) -> np.ndarray:
        cache = _own(cache)
        count = check_append(self._spec, cache, pieces, start=start, positions=positions, visible=visible,
                             logits_for=logits_for)
        embeddings = self.embed(pieces)
        logits = np.empty((len(logits_for), self._spec.vocabulary), np.float32)
        wanted = np.asarray(logits_for, np.int32)
        for first in range(0, count, self._spec.max_append):
            last = min(first + self._spec.max_append, count)
            here = (wanted >= first) & (wanted < last)
            logits[here] = self._append_rows(
                cache, embeddings[first:last], positions[first:last], wanted[here] - np.int32(first),
                past_rows=start + first, visible=visible)
        return logits

    def move_rows(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        cache = _own(cache)
        check_move(cache, source=source, target=target, count=count)
        for buffer in cache.buffers:
            buffer[target:target + count] = buffer[source:source + count]

    def embed(self, pieces: Sequence[Piece]) -> np.ndarray:
        """The rows the graph is given for the pieces, [T, width]."""
        rows = [self._visual_rows(piece) if isinstance(piece, VisualTokens)
                else word_rows(self._embeddings, piece, self._dtype) for piece in pieces]
        return np.concatenate([np.empty((0, self._spec.width), self._dtype), *rows])

    def _visual_rows(self, tokens: VisualTokens) -> np.ndarray:
        rows = tokens.data
        if not isinstance(rows, np.ndarray) or rows.shape != (tokens.count, self._spec.width) or rows.dtype != self._dtype:
            found = f'{rows.dtype} {list(rows.shape)}' if isinstance(rows, np.ndarray) else f'a {type(rows).__name__}'
            raise EngineError(f'visual tokens hold {found}; {self._dtype} [{tokens.count}, {self._spec.width}] was needed. '
                              'Encode the frame with the vision engine of the same model and backend.')
        return rows

    def _append_rows(self, cache: OnnxCache, embeddings: np.ndarray, positions: np.ndarray, logit_rows: np.ndarray, *,
                  past_rows: int, visible: np.ndarray) -> np.ndarray:
        """One engine call, from row ``past_rows`` on; rows between those ``visible`` speaks of and these are visible."""
        count = len(embeddings)
        cos, sin = decoder_tables(positions, head_dim=self._spec.head_dim, theta=self._spec.rope_theta)
        mask = np.empty((count, past_rows + count), np.float32)
        fill_mask(mask, visible, past_rows)
        logits = np.empty((len(logit_rows), self._spec.vocabulary), np.float32)
        inputs = {'embeddings': embeddings, 'cos': cos, 'sin': sin, 'mask': mask, 'logit_rows': logit_rows}
        outputs = {'logits': logits}
        for layer, (keys, values) in enumerate(zip(cache.keys, cache.values)):
            inputs[f'past_k_{layer}'], inputs[f'past_v_{layer}'] = keys[:past_rows], values[:past_rows]
            outputs[f'new_k_{layer}'] = keys[past_rows:past_rows + count]
            outputs[f'new_v_{layer}'] = values[past_rows:past_rows + count]
        self._bind_and_run(inputs, outputs)
        return logits

    def _bind_and_run(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Run on the arrays' own memory; all are contiguous and stay alive until the run is over."""
        for bind, arrays in ((self._binding.bind_input, inputs), (self._binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, 'cpu', 0, array.dtype.type, array.shape, array.ctypes.data)
        _call(self._session.run_with_iobinding, self._binding)


def load_onnx_engines(folder: str | Path, *, threads: int = 1) -> tuple[OnnxVisionEngine, OnnxLanguageEngine]:
    """Check a folder of built engines against its manifest, then load both. ``threads`` CPU threads serve one call."""
    folder = Path(folder)
    manifest = load_manifest(folder, backend='onnx')
    sessions = []
    for entry in (manifest.vision, manifest.language):
        sessions.append(open_graph(folder / entry.file, threads=threads))
        _check_ports(sessions[-1], entry, folder, manifest)
    vision, language = sessions
    return (OnnxVisionEngine(vision, manifest.vision_spec),
            OnnxLanguageEngine(language, manifest.language_spec, map_embeddings(folder, manifest.embeddings)))


def open_graph(path: Path, *, threads: int = 1) -> Any:
    """An ONNX Runtime session for one graph, set up for weeks of calls whose shapes keep changing.

    Memory plans are kept per shape for ever and the arena never gives memory back, so both are off: working memory is
    taken from the system and returned with every call.
    """
    # From 1.31 it sends usage reports to its makers some ten seconds after a session is made; read when it is loaded only.
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f'ONNX Runtime cannot be imported ({error}). Install it: pip install "penguin_ros[onnx]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')    # threads that wait leave the core to others
    # INT4 weights are multiplied as the graph says; left to itself it would round their inputs to INT8 as well.
    options.add_session_config_entry('session.qdq_matmulnbits_accuracy_level', '1')
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its exceptions have no common base but this
        raise EngineError(f'ONNX Runtime cannot load {path}: {error}. Build the engine again: penguin build RECIPE') from error


def run_golden_case(vision_for: Callable[[int], OnnxVisionEngine], language: OnnxLanguageEngine,
                    arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Everything that a golden case may hold, computed anew from its inputs (golden.py says which those are).

    ``vision_for`` gives the vision engine of a merge size, built with ``debug`` so that what lies between comes out too.
    """
    made = run_case_on_engines(vision_for, language, arrays, row_of_tokens=lambda tokens: tokens.data.astype(np.float32),
                               greedy_steps=len(arrays.get('greedy_tokens', ())))
    traces = [vision_for(merge).trace(patches, grid) for patches, grid, merge in frames_of_case(arrays)]
    for name in traces[0] if traces else ():
        made[name] = np.concatenate([trace[name] for trace in traces])
    frames = [VisualTokens(len(trace['visual']), trace['visual']) for trace in traces]
    made['inputs_embeds'] = language.embed(split_prompt(arrays['input_ids'].reshape(-1), language.spec.image_token_id, frames))
    return made


def _call(call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except Exception as error:  # its exceptions have no common base but this
        raise EngineError(f'ONNX Runtime failed: {error}. If it happens again, build the engine again: '
                          'penguin build RECIPE') from error


def _check_ports(session: Any, entry: GraphEntry, folder: Path, manifest: Manifest) -> None:
    """What goes in and out must be what the manifest says, so that engine and code mean the same by each name."""
    found = {(port.name, _NUMPY_NAMES.get(port.type, port.type)) for port in (*session.get_inputs(), *session.get_outputs())}
    needed = {(port.name, port.dtype) for port in (*entry.inputs, *entry.outputs)}
    if found != needed:
        odd = ', '.join(sorted(f'{name} {dtype}' for name, dtype in found ^ needed))
        raise EngineMismatchError(f'{folder / entry.file} does not have the inputs and outputs its manifest lists ({odd}). '
                                  f'{manifest.remedy}')


def _own(cache: KVCache) -> OnnxCache:
    if not isinstance(cache, OnnxCache):
        raise EngineError(f"the cache is a {type(cache).__name__}, made by another engine. Use this engine's new_cache.")
    return cache


def _aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros at a multiple of _CACHE_ALIGNMENT bytes; the system provides memory only for rows that are written."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(nbytes + _CACHE_ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % _CACHE_ALIGNMENT
    return raw[begin:begin + nbytes].view(dtype).reshape(shape)
