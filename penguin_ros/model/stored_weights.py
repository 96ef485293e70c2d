"""Where the weights of exported graphs lie: in files of their own, or still in the checkpoint. Knows no model (export.py).

The embedding table is read by the host, row by row, and by the graph as the output matrix when the two are tied. It is
stored once for both, [vocabulary, width], in a file of its own or in the checkpoint.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from penguin_ros.core.errors import CheckpointError, ConfigError
from penguin_ros.model.graph import Graph, Tensor
from penguin_ros.model.quantise import Rounding
from penguin_ros.model.weights import WeightFiles

EMBEDDING = 'decoder.embed_tokens.weight'
EMBEDDING_FILE = 'embeddings.bin'
_ALIGNMENT = 4096           # a page, so that a runtime can map each tensor
_PROGRESS_S = 10.0
_DTYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}


@dataclass(frozen=True)
class EmbeddingTable:
    """Where the embeddings of all token ids lie: ``shape`` rows and columns of ``dtype`` from byte ``offset`` on."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, int]


class StoredWeights(Protocol):
    """The checkpoint's tensors as a graph can read them."""

    compute: str                # type of matrices as the graph sees them
    files: list[str]            # that hold weights, relative to the graphs' folder

    def writing(self, file: str) -> AbstractContextManager[None]:
        """What is asked for inside goes to ``file``, if weights are copied; the file appears when it is whole."""
        ...

    def matrix(self, graph: Graph, name: str, dtype: str) -> Tensor:
        """A linear layer's weight as [in, out]."""
        ...

    def rounded_matrix(self, graph: Graph, name: str, rounding: Rounding) -> Tensor:
        """A linear layer's weight as whole numbers, which the graph turns into [in, out] in the compute type."""
        ...

    def smoothing(self, graph: Graph, name: str, value: np.ndarray) -> Tensor:
        """What an input is multiplied with before it is rounded, or before a rounded weight; float32 [in]."""
        ...

    def vector(self, graph: Graph, name: str, dtype: str) -> Tensor: ...

    def output_matrix(self, graph: Graph, *, tied: bool) -> Tensor:
        """The weight that makes logits, [width, vocabulary] in the compute type."""
        ...

    def embeddings(self) -> EmbeddingTable: ...


class OwnFiles:
    """Weights are copied into own files, matrices as [in, out], in the compute type.

    In memory are one matrix in the compute type and one block of the checkpoint at a time, of the embeddings a block alone.
    """

    def __init__(self, weights: WeightFiles, folder: Path, compute: str, progress: Callable[[str], None]) -> None:
        self.compute = compute
        self.files: list[str] = []
        self._weights = weights
        self._folder = folder
        self._progress = progress
        self._said_s = time.monotonic()
        self._open: tuple[str, BinaryIO] | None = None

    @contextmanager
    def writing(self, file: str) -> Iterator[None]:
        with _written_whole(self._folder / file) as stream:
            self._open = file, stream
            yield
        self._open = None
        self.files.append(file)

    def matrix(self, graph: Graph, name: str, dtype: str) -> Tensor:
        return self._store(graph, name, self._turned(name, dtype))

    def rounded_matrix(self, graph: Graph, name: str, rounding: Rounding) -> Tensor:
        outputs, inputs = self._weights.shape(name)
        scale = self._store(graph, f'{name}.scale', rounding.weight_scale.astype(self.compute))
        stored = self._store(graph, name, self._codes(name, rounding), dtype=rounding.kind, shape=(inputs, outputs))
        block = {'axis': 0, 'block_size': inputs // rounding.blocks} if rounding.kind == 'int4' else {'axis': 1}
        with graph.outermost():
            return graph.op('DequantizeLinear', [stored, scale], f'{name}.{self.compute}', dtype=self.compute, **block)

    def smoothing(self, graph: Graph, name: str, value: np.ndarray) -> Tensor:
        return self._store(graph, name, value)

    def vector(self, graph: Graph, name: str, dtype: str) -> Tensor:
        return self._store(graph, name, np.concatenate([block for _, block in self._blocks_as(name, dtype)]))

    def output_matrix(self, graph: Graph, *, tied: bool) -> Tensor:
        if not tied:
            return self.matrix(graph, 'decoder.lm_head.weight', self.compute)
        table = self.embeddings()
        nbytes = math.prod(table.shape) * np.dtype(table.dtype).itemsize
        stored = graph.stored(EMBEDDING, table.dtype, table.shape, file=table.file, offset=0, nbytes=nbytes)
        return graph.transpose(stored, (1, 0), f'{EMBEDDING}.transposed')

    def embeddings(self) -> EmbeddingTable:
        rows, width = self._weights.shape(EMBEDDING)
        if EMBEDDING_FILE not in self.files:
            with _written_whole(self._folder / EMBEDDING_FILE) as stream:
                for _, block in self._blocks_as(EMBEDDING, self.compute):
                    self._write(stream, block)
            self.files.append(EMBEDDING_FILE)
        return EmbeddingTable(EMBEDDING_FILE, 0, self.compute, (rows, width))

    def _codes(self, name: str, rounding: Rounding) -> np.ndarray:
        """A rounded weight as it is stored."""
        codes = rounding.codes(self._turned(name, 'float32'))
        return packed_int4(codes) if rounding.kind == 'int4' else codes

    def _turned(self, name: str, dtype: str) -> np.ndarray:
        """A linear layer's weight as [in, out]."""
        rows, *columns = self._weights.shape(name)
        turned = np.empty((math.prod(columns), rows), dtype)
        for begin, block in self._blocks_as(name, dtype):
            turned[:, begin:begin + len(block)] = block.reshape(len(block), -1).T
        return turned

    def _store(self, graph: Graph, name: str, value: np.ndarray, *, dtype: str = '', shape: Sequence[int] = ()) -> Tensor:
        """Write a tensor; ``dtype`` and ``shape`` are stated where the bytes of ``value`` mean something else."""
        assert self._open is not None, 'weights are asked for inside of writing()'
        file, stream = self._open
        stream.write(bytes(-stream.tell() % _ALIGNMENT))
        offset = stream.tell()
        self._write(stream, value)
        if time.monotonic() > self._said_s + _PROGRESS_S:
            self._said_s = time.monotonic()
            self._progress(f'{self._folder / file}: {stream.tell() / 1e9:.1f} GB written')
        return graph.stored(name, dtype or value.dtype.name, shape or value.shape, file=file, offset=offset,
                            nbytes=value.nbytes)

    def _write(self, stream: BinaryIO, value: np.ndarray) -> None:
        stream.write(np.ascontiguousarray(value).data.cast('B'))

    def _blocks_as(self, name: str, dtype: str) -> Iterator[tuple[int, np.ndarray]]:
        """WeightFiles.blocks in another type, in which every value must be finite."""
        for begin, block in self._weights.blocks(name):
            with np.errstate(over='ignore'):  # reported below, by name
                block = block.astype(dtype, copy=False)
            if not np.isfinite(block).all():
                raise CheckpointError(
                    f'{self._weights.stored_name(name)} in {self._weights.folder} has values that {dtype} cannot hold. '
                    'Export with precision fp32, or download the weights again if that fails too.')
            yield begin, block


class CheckpointBytes:
    """Graphs point into the checkpoint's own files, which must lie beside them; types and layout are changed on loading.

    For small models: a runtime keeps the changed copy in memory.
    """

    def __init__(self, weights: WeightFiles, compute: str) -> None:
        self.compute = compute
        self.files: list[str] = []
        self._weights = weights

    @contextmanager
    def writing(self, file: str) -> Iterator[None]:
        yield

    def matrix(self, graph: Graph, name: str, dtype: str) -> Tensor:
        rows, *columns = self._weights.shape(name)
        stored = self._stored(graph, name, (rows, int(np.prod(columns))))
        with graph.outermost():
            return graph.transpose(graph.cast(stored, dtype), (1, 0), f'{name}.transposed')

    def rounded_matrix(self, graph: Graph, name: str, rounding: Rounding) -> Tensor:
        raise ConfigError("weights is safetensors, where graphs point into the checkpoint's own files; those hold no "
                          f'{rounding.kind} weights. Use weights external.')

    def smoothing(self, graph: Graph, name: str, value: np.ndarray) -> Tensor:
        return graph.constant(value)

    def vector(self, graph: Graph, name: str, dtype: str) -> Tensor:
        return graph.cast(self._stored(graph, name, self._weights.shape(name)), dtype)

    def output_matrix(self, graph: Graph, *, tied: bool) -> Tensor:
        return self.matrix(graph, EMBEDDING if tied else 'decoder.lm_head.weight', self.compute)

    def embeddings(self) -> EmbeddingTable:
        rows, width = self._weights.shape(EMBEDDING)
        span = self._weights.span(EMBEDDING)
        return EmbeddingTable(self._listed(span.file), span.offset, _DTYPES[self._weights.dtype(EMBEDDING)], (rows, width))

    def _stored(self, graph: Graph, name: str, shape: tuple[int, ...]) -> Tensor:
        span = self._weights.span(name)
        return graph.stored(name, _DTYPES[self._weights.dtype(name)], shape, file=self._listed(span.file),
                            offset=span.offset, nbytes=span.nbytes)

    def _listed(self, file: Path) -> str:
        if file.name not in self.files:
            self.files.append(file.name)
        return file.name


def packed_int4(codes: np.ndarray) -> np.ndarray:
    """INT4 as ONNX stores it: two codes a byte, the first in the lower half."""
    halves = np.append(codes.reshape(-1), np.zeros(codes.size % 2, codes.dtype)).view(np.uint8) & 15
    return halves[0::2] | halves[1::2] << 4


@contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name, on the disk, only when nothing went wrong."""
    unfinished = path.with_name(path.name + '.unfinished')
    try:
        with unfinished.open('wb') as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)  # a full disk must not also keep half the weights
