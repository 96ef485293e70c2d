"""Every graph we export is one that TensorRT 10.3, 10.15 and 11.1 take, as far as their operator tables tell."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')

from external_layout import layout_problems, places_of  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tensorrt_tables import VERSIONS, problems_of  # noqa: E402

from penguin_ros.model.config import PENGUIN_VL_2B, PENGUIN_VL_8B, PenguinVLConfig  # noqa: E402
from penguin_ros.model.export import ExportOptions, export_checkpoint, language_graph, vision_graph  # noqa: E402
from penguin_ros.model.quantise import Rounding  # noqa: E402
from penguin_ros.model.stored_weights import OwnFiles  # noqa: E402
from penguin_ros.model.weights import Shape, expected_shapes  # noqa: E402
from tests.model.write_random_checkpoint import TINY, write_random_checkpoint  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    'fp32': {}, 'fp16': {'precision': 'fp16'}, 'fp16 joined': {'precision': 'fp16', 'attention': 'concat'},
    'pictures': {'merge': 1, 'precision': 'fp16'}, 'odd windows': {'merge': 3}, 'wide windows': {'merge': 4},
    'in place': {'weights': 'safetensors'}, 'in place fp16': {'weights': 'safetensors', 'precision': 'fp16'},
    'debug': {'debug': True}}


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp('graphs')
    write_random_checkpoint(folder / 'tiny', TINY, dtype='BF16')

    def export(kind: str) -> Path:
        if not (folder / kind).exists():
            export_checkpoint(folder / 'tiny', folder / kind, ExportOptions(**KINDS[kind]))
        return folder / kind
    return export


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('kind', KINDS)
def test_every_exported_graph_keeps_to_the_table(exported: Callable[[str], Path], kind: str, version: str) -> None:
    for graph in ('vision.onnx', 'language.onnx'):
        assert problems_of(exported(kind) / graph, version) == []


@pytest.mark.parametrize('version', VERSIONS)
def test_the_shipped_graphs_keep_to_the_table(version: str) -> None:
    for graph in ('vision.onnx', 'language.onnx'):
        assert problems_of(Path(__file__).parents[2] / 'engines' / 'nano' / graph, version) == []


class ShapesAlone:
    """A checkpoint of which only the shapes are known."""

    def __init__(self, config: PenguinVLConfig) -> None:
        self._shapes = expected_shapes(config)

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        yield 0, np.broadcast_to(np.float32(0), self._shapes[name])


class HolesForWeights(OwnFiles):
    """Keeps the place of every weight and writes none: the files have their real size and take no room on the disk."""

    def _write(self, stream: BinaryIO, value: np.ndarray) -> None:
        stream.truncate(stream.tell() + value.nbytes)
        stream.seek(0, os.SEEK_END)

    def _turned(self, name: str, dtype: str) -> np.ndarray:
        rows, *columns = self._weights.shape(name)
        return np.broadcast_to(np.zeros((), dtype), (math.prod(columns), rows))

    def _codes(self, name: str, rounding: Rounding) -> np.ndarray:
        values = math.prod(self._weights.shape(name))
        return np.broadcast_to(np.int8(0), values // 2 if rounding.kind == 'int4' else values)

    def _blocks_as(self, name: str, dtype: str) -> Iterator[tuple[int, np.ndarray]]:
        yield 0, np.broadcast_to(np.zeros((), dtype), self._weights.shape(name))


@pytest.mark.parametrize('model, gigabytes', [(PENGUIN_VL_2B, 4.3), (PENGUIN_VL_8B, 17.3)], ids=['2B', '8B'])
def test_graphs_of_the_real_shapes_keep_to_the_tables_and_their_weights_lie_as_they_should(
        tmp_path: Path, model: PenguinVLConfig, gigabytes: float) -> None:
    weights = HolesForWeights(ShapesAlone(model), tmp_path, 'float16', print)  # type: ignore[arg-type]
    with weights.writing('vision.weights'):
        vision_graph(model, weights, merge=2).save(tmp_path / 'vision.onnx')
    with weights.writing('language.weights'):
        weights.embeddings()
        language_graph(model, weights, attention='split').save(tmp_path / 'language.onnx')
    for graph in ('vision.onnx', 'language.onnx'):
        assert layout_problems(tmp_path / graph) == []
        for version in VERSIONS:
            assert problems_of(tmp_path / graph, version) == []
    sizes = {file: (tmp_path / file).stat().st_size for file in weights.files}
    assert sum(sizes.values()) / 1e9 == pytest.approx(gigabytes, rel=0.01)
    table, = (place for place in places_of(tmp_path / 'language.onnx') if 'embed' in place.name or 'lm_head' in place.name)
    assert table.file == ('embeddings.bin' if model.tied_embeddings else 'language.weights')


@pytest.mark.parametrize('shift_bytes, text', [(64, 'in the middle of a page'), (4096, 'what comes before it ends at')])
def test_a_weight_in_the_wrong_place_is_found(
        exported: Callable[[str], Path], tmp_path: Path, shift_bytes: int, text: str) -> None:
    shutil.copytree(exported('fp16'), tmp_path / 'out')
    path = tmp_path / 'out' / 'language.onnx'
    assert layout_problems(path) == []
    model = onnx.load(path, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith('layers.1.mlp.up_proj.weight'))
    offset, = (entry for entry in tensor.external_data if entry.key == 'offset')
    offset.value = str(int(offset.value) + shift_bytes)
    path.write_bytes(model.SerializeToString())
    assert any(text in problem for problem in layout_problems(path))


def _with(graph: onnx.GraphProto, change: str) -> None:
    """Make one thing wrong."""
    nodes = {node.op_type: node for node in graph.node}
    if change == 'operator':
        nodes['Sigmoid'].op_type = 'Bernoulli'
    elif change == 'attribute':
        nodes['Reshape'].attribute.append(helper.make_attribute('allowzero', 1))
    elif change == 'axes':
        graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == nodes['ReduceMean'].input[1]))
        graph.input.append(helper.make_tensor_value_info(nodes['ReduceMean'].input[1], TensorProto.INT64, [1]))
    elif change == 'constant':
        tensor = next(tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT
                      and tensor.data_location != TensorProto.EXTERNAL)
        tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), -np.inf, np.float32), tensor.name))
    elif change == 'input':
        next(port for port in graph.input if port.name == 'logit_rows').type.tensor_type.elem_type = TensorProto.INT64


@pytest.mark.parametrize('change, text', [
    ('operator', 'there is no Bernoulli'), ('attribute', 'attribute allowzero'), ('axes', '`axes` must be'),
    ('constant', 'holds inf'), ('input', 'logit_rows goes in or out as INT64')])
def test_what_10_3_does_not_take_is_found(exported: Callable[[str], Path], tmp_path: Path, change: str, text: str) -> None:
    model = onnx.load(exported('fp32') / 'language.onnx', load_external_data=False)
    _with(model.graph, change)
    onnx.save(model, tmp_path / 'changed.onnx')
    assert any(text in problem for problem in problems_of(tmp_path / 'changed.onnx', '10.3'))


def test_a_graph_of_an_older_opset_or_with_bfloat16_is_found(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ['T', 4]) for name in ('x', 'y')]
    graph = helper.make_graph([helper.make_node('Identity', ['x'], ['y'], 'same')], 'g', ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)]), tmp_path / 'old.onnx')
    found = problems_of(tmp_path / 'old.onnx', '10.3')
    assert found == ['the opset is another', 'x goes in or out as BF16', 'y goes in or out as BF16']


def test_quantised_weights_are_taken_as_they_should_be_written(tmp_path: Path) -> None:
    """INT4 in blocks along the first axis without a zero point; with one that is not zero it is refused."""
    weight = helper.make_tensor('w', TensorProto.INT4, [256, 8], np.zeros(256 * 8, np.int8))
    scale = numpy_helper.from_array(np.ones((2, 8), np.float16), 'scale')
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ['T', width]) for name, width in (('x', 256), ('y', 8))]
    for zero, fine in ((None, True), (0, True), (1, False)):
        inputs, constants = ['w', 'scale'], [weight, scale]
        if zero is not None:
            inputs.append('zero')
            constants.append(helper.make_tensor('zero', TensorProto.INT4, [2, 8], np.full(16, zero, np.int8)))
        nodes = [helper.make_node('DequantizeLinear', inputs, ['dense'], 'dense', axis=0, block_size=128),
                 helper.make_node('MatMul', ['x', 'dense'], ['y'], 'product')]
        graph = helper.make_graph(nodes, 'g', ports[:1], ports[1:], constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 21)]), tmp_path / 'int4.onnx')
        for version in VERSIONS:
            assert (problems_of(tmp_path / 'int4.onnx', version) == []) == fine
