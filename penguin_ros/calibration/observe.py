"""Runs exported float32 graphs in ONNX Runtime while noting how far every activation goes and what products are given.

Knows nothing of frames or of what becomes of the notes (calibrate.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from penguin_ros.backends.onnx import OnnxLanguageEngine, OnnxVisionEngine, open_graph
from penguin_ros.core.engine import LanguageSpec, VisionSpec, VisualTokens
from penguin_ros.model.calibration import Reach

KEPT_ROWS = 512             # of each product's input, to try roundings on
_ROW_STRIDE = 5             # one row in so many is looked at; no merge window or token grid has this period
_LARGEST, _CHANNELS, _ROWS = 'largest/', 'channels/', 'rows/'


@dataclass
class _Sample:
    """Every n-th of the rows seen so far, n growing with their number, so that late frames count as much as early ones."""

    kept: list[np.ndarray] = field(default_factory=list)
    every: int = 1
    seen: int = 0

    def add(self, rows: np.ndarray) -> None:
        self.kept.append(rows[-self.seen % self.every::self.every])
        self.seen += len(rows)
        if sum(map(len, self.kept)) > 2 * KEPT_ROWS:
            self.kept, self.every = [np.concatenate(self.kept)[::2]], 2 * self.every


@dataclass
class Observations:
    """What one engine's activations did, over all runs."""

    products: Mapping[str, tuple[str, ...]]         # input tensor -> weights it is multiplied with
    held: Mapping[str, Reach]                       # every activation, with how a float16 engine holds it; largest is 0
    names: list[str]                                # the outputs that were added to the graph
    largest: dict[str, float] = field(default_factory=dict)
    channels: dict[str, np.ndarray] = field(default_factory=dict)      # [in] of each product's input
    _rows: dict[str, _Sample] = field(default_factory=dict)

    def note(self, values: Mapping[str, np.ndarray]) -> None:
        """Take in what one run gave for the added outputs."""
        for name, value in values.items():
            if name.startswith(_LARGEST):
                tensor = name[len(_LARGEST):]
                number = float(value)
                # What is not a number must not be lost in a comparison.
                self.largest[tensor] = max(self.largest.get(tensor, 0.0), number) if number == number else float('inf')
            elif name.startswith(_CHANNELS):
                tensor = name[len(_CHANNELS):]
                self.channels[tensor] = np.maximum(self.channels.get(tensor, np.float32(0)), value)
            else:
                self._rows.setdefault(name[len(_ROWS):], _Sample()).add(value)

    def rows_of(self, tensor: str) -> np.ndarray:
        """At most KEPT_ROWS inputs of a product, [R, in], evenly from all that were seen."""
        rows = np.concatenate(self._rows[tensor].kept)
        return rows if len(rows) <= KEPT_ROWS else rows[np.linspace(0, len(rows) - 1, KEPT_ROWS).astype(int)]

    def reaches(self) -> dict[str, Reach]:
        return {name: Reach(self.largest[name], reach.float16, reach.weights)
                for name, reach in self.held.items() if name in self.largest}


def observed_graph(source: Path, target: Path) -> Observations:
    """Write a copy of a float32 graph that also gives out what is to be noted; its weights stay where they are.

    A float16 engine computes products in float16 and everything between in float32 (model/export.py), so it holds in
    float16 what a product takes or gives, and what goes in or out.
    """
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    floats = {value.name for group in (onnx.shape_inference.infer_shapes(model).graph.value_info, graph.input, graph.output)
              for value in group if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    initializers = {tensor.name for tensor in graph.initializer}
    tables = {port.name for port in graph.input if port.name in ('cos', 'sin', 'mask', 'patches')}
    held: dict[str, list[str] | None] = {}          # what float16 holds: by products with which weights, None: otherwise too
    products: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        if node.op_type != 'MatMul':
            continue
        weight = node.input[1] if node.input[1] in initializers else None
        for name in (*node.input, *node.output):
            if name in initializers:
                continue
            if weight is None:
                held[name] = None
            elif held.setdefault(name, []) is not None:
                held[name] = [*(held[name] or ()), weight]
        if weight is not None:
            products[node.input[0]] = (*products.get(node.input[0], ()), weight)
    for port in (*graph.input, *graph.output):
        if port.name not in tables and port.name != 'logits':
            held[port.name] = None
    names = [name for node in graph.node for name in node.output if name in floats]
    names += [port.name for port in graph.input if port.name in floats and not port.name.startswith('past_')]
    added = _add_outputs(graph, names, products)
    target.write_bytes(model.SerializeToString(deterministic=True))
    reaches = {name: Reach(0.0, name in held, tuple(sorted(set(held.get(name) or ())))) for name in names}
    return Observations(products, reaches, added)


def _add_outputs(graph: onnx.GraphProto, names: list[str], products: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Give out the largest magnitude of every tensor, and of product inputs each channel's, and some rows."""
    def constant(name: str, value: int) -> str:
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [value]))
        return name

    first_axis, far, stride = (constant(f'observe.{name}', value)
                               for name, value in (('zero', 0), ('far', 2**31 - 1), ('stride', _ROW_STRIDE)))
    added = []
    for name in names:
        graph.node.append(helper.make_node('Abs', [name], [f'magnitude/{name}']))
        graph.node.append(helper.make_node('ReduceMax', [f'magnitude/{name}'], [_LARGEST + name], keepdims=0))
        added.append(_LARGEST + name)
        if name in products:
            graph.node.append(helper.make_node('ReduceMax', [f'magnitude/{name}', first_axis], [_CHANNELS + name], keepdims=0))
            graph.node.append(helper.make_node('Slice', [name, first_axis, far, first_axis, stride], [_ROWS + name]))
            added += [_CHANNELS + name, _ROWS + name]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in added)
    return added


class ObservedVisionEngine(OnnxVisionEngine):
    """A vision engine that notes what happens inside."""

    def __init__(self, file: Path, spec: VisionSpec, observations: Observations, *, threads: int) -> None:
        super().__init__(open_graph(file, threads=threads), spec)
        self._observations = observations

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        made = self.trace(patches, grid)
        self._observations.note({name: made[name] for name in self._observations.names})
        return VisualTokens(len(made['visual']), made['visual'])


class ObservedLanguageEngine(OnnxLanguageEngine):
    """A language engine that notes what happens inside."""

    def __init__(self, file: Path, spec: LanguageSpec, embeddings: np.ndarray, observations: Observations, *,
                 threads: int) -> None:
        session: Any = open_graph(file, threads=threads)
        super().__init__(session, spec, embeddings)
        self._observations = observations

    def _bind_and_run(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        feeds = dict(inputs)
        if not len(feeds['logit_rows']):
            feeds['logit_rows'] = np.zeros(1, np.int32)     # of nothing there is no largest; these logits go nowhere
        names = [*outputs, *self._observations.names]
        made = dict(zip(names, self._session.run(names, feeds)))
        for name, array in outputs.items():
            array[...] = made[name][:len(array)]
        self._observations.note({name: made[name] for name in self._observations.names})
