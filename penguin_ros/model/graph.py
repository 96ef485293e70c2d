"""Writes one ONNX graph node by node: names, constants, casts, stored weights. Knows nothing of any model (export.py).

A node and its output share one readable name. Types are followed while writing, because TensorRT's strongly typed
networks convert nothing by themselves: an operation on mixed types is a mistake, found here.
Source: reference/tensorrt.md 3 and 4 (opset 18, or more where a rounded weight needs it; axes as initializers, int32 for our
integers).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from penguin_ros.core.errors import EngineError

OPSET = 18
# The oldest file format that carries an opset, so that old readers take the file.
IR_VERSIONS = {18: 8, 19: 9, 21: 10}

ONNX_TYPES = {'float32': TensorProto.FLOAT, 'float16': TensorProto.FLOAT16, 'bfloat16': TensorProto.BFLOAT16,
              'int32': TensorProto.INT32, 'int64': TensorProto.INT64, 'int8': TensorProto.INT8, 'int4': TensorProto.INT4}
_ONE_TYPE = {'Add', 'Concat', 'Div', 'MatMul', 'Mul', 'Pow'}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph by name, and its type."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Port:
    """One input or output of a graph; a dimension is a number or the name of one that varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Graph:
    """One ONNX graph while it is being written."""

    def __init__(self, name: str, opset: int = OPSET) -> None:
        self.name = name
        self.opset = opset
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._names: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._scope: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put ``name`` before the names of everything written inside."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    @contextmanager
    def outermost(self) -> Iterator[None]:
        """Leave the scopes out of names written inside."""
        scope, self._scope = self._scope, []
        try:
            yield
        finally:
            self._scope = scope

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> Tensor:
        self.inputs.append(Port(name, dtype, tuple(shape)))
        return self._new(name, dtype)

    def output(self, x: Tensor, name: str, dtype: str, shape: Sequence[int | str]) -> Tensor:
        """Give ``x`` out as ``name``, whatever the scope; what is returned may be read further inside the graph."""
        self.outputs.append(Port(name, dtype, tuple(shape)))
        result = self._new(name, dtype)
        self._node('Identity' if x.dtype == dtype else 'Cast', [x], [result], name,
                   **({} if x.dtype == dtype else {'to': ONNX_TYPES[dtype]}))
        return result

    def op(self, op_type: str, inputs: Sequence[Tensor], name: str, *, dtype: str | None = None,
           **attributes: Any) -> Tensor:
        """One node with one output, of the type of its first input unless ``dtype`` says otherwise."""
        types = [tensor.dtype for tensor in inputs]
        if op_type in _ONE_TYPE and len(set(types)) > 1:
            raise EngineError(f'{op_type} {self._full(name)} mixes {", ".join(types)}; write a cast before it.')
        result = self._new(self._full(name), dtype or types[0])
        self._node(op_type, inputs, [result], result.name, **attributes)
        return result

    def halves(self, x: Tensor, size: int, name: str) -> tuple[Tensor, Tensor]:
        """Both halves of the last dimension, ``size`` wide each."""
        first, second = (self._new(self._full(f'{name}.{half}'), x.dtype) for half in ('first', 'second'))
        sizes = self.integers(size, size)
        self._node('Split', [x, sizes], [first, second], self._full(name), axis=-1)
        return first, second

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """``x`` as ``dtype``; no node when it already is, one node however often it is asked for."""
        if x.dtype == dtype:
            return x
        result = Tensor(f'{x.name}.{dtype}', dtype)
        if result.name not in self._names:
            self._node('Cast', [x], [self._new(result.name, dtype)], result.name, to=ONNX_TYPES[dtype])
        return result

    def reshape(self, x: Tensor, shape: Sequence[int], name: str) -> Tensor:
        """``x`` in another shape; -1 is worked out, 0 keeps the dimension at its place."""
        return self.op('Reshape', [x, self.integers(*shape)], name)

    def transpose(self, x: Tensor, order: Sequence[int], name: str) -> Tensor:
        return self.op('Transpose', [x], name, perm=list(order))

    def mean(self, x: Tensor, axes: Sequence[int], name: str, *, keepdims: bool) -> Tensor:
        return self.op('ReduceMean', [x, self.integers(*axes)], name, keepdims=int(keepdims))

    def number(self, value: float) -> Tensor:
        return self.constant(np.array([value], np.float32))

    def integers(self, *values: int) -> Tensor:
        return self.constant(np.array(values, np.int64))

    def constant(self, value: np.ndarray) -> Tensor:
        """A small value inside the graph file, written once however often it is used."""
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            tensor = self._new(f'constant.{len(self._constants)}', value.dtype.name)
            self._initializers.append(helper.make_tensor(
                tensor.name, ONNX_TYPES[tensor.dtype], value.shape, value.tobytes(), raw=True))
            self._constants[key] = tensor
        return self._constants[key]

    def stored(self, name: str, dtype: str, shape: Sequence[int], *, file: str, offset: int, nbytes: int) -> Tensor:
        """A weight that lies in ``file``, beside the graph file, from byte ``offset`` on."""
        weight = TensorProto(name=name, data_type=ONNX_TYPES[dtype], dims=list(shape),
                             data_location=TensorProto.EXTERNAL)
        for key, value in (('location', file), ('offset', offset), ('length', nbytes)):
            weight.external_data.add(key=key, value=str(value))
        self._initializers.append(weight)
        return self._new(name, dtype)

    def save(self, path: Path) -> None:
        """Write the graph file; it appears whole or not at all, and equal graphs give equal bytes."""
        graph = helper.make_graph(self._nodes, self.name, [_value_info(port) for port in self.inputs],
                                  [_value_info(port) for port in self.outputs], self._initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', self.opset)],
                                  ir_version=IR_VERSIONS[self.opset], producer_name='penguin_ros')
        unfinished = path.with_name(path.name + '.unfinished')
        with unfinished.open('wb') as file:
            file.write(model.SerializeToString(deterministic=True))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)

    def _node(self, op_type: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], name: str,
              **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op_type, [tensor.name for tensor in inputs],
                                            [tensor.name for tensor in outputs], name=name, **attributes))

    def _full(self, name: str) -> str:
        return '.'.join([*self._scope, name])

    def _new(self, name: str, dtype: str) -> Tensor:
        if name in self._names:
            raise EngineError(f'the graph {self.name} would have two tensors named {name}; give each its own name.')
        self._names.add(name)
        return Tensor(name, dtype)


def _value_info(port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(port.name, ONNX_TYPES[port.dtype], port.shape)
