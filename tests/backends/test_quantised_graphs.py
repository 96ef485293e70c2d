"""Graphs with rounded weights keep to what TensorRT 10.3, 10.15 and 11.1 take, at the shapes of every model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')

from external_layout import layout_problems  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from tensorrt_tables import VERSIONS, problems_of  # noqa: E402
from test_tensorrt_graphs import HolesForWeights, ShapesAlone  # noqa: E402

from penguin_ros.model.config import PENGUIN_VL_2B, PENGUIN_VL_8B, PenguinVLConfig  # noqa: E402
from penguin_ros.model.export import ExportOptions, export_checkpoint, language_graph, vision_graph  # noqa: E402
from penguin_ros.model.quantise import Rounding  # noqa: E402
from penguin_ros.model.weights import expected_shapes  # noqa: E402
from tests.model.write_plain_calibration import write_plain_calibration  # noqa: E402
from tests.model.write_random_checkpoint import TINY, write_random_checkpoint  # noqa: E402

NANO = Path(__file__).parents[2] / 'engines' / 'nano'
KINDS = [('int8', 'int4', 'fp16'), ('int8', 'int8', 'fp16'), ('', 'int4', 'fp16'), ('int8', 'int4', 'fp32')]


def block_sizes(path: Path) -> set[int]:
    """Rows in the blocks of the INT4 weights."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {attribute.i for node in nodes for attribute in node.attribute if attribute.name == 'block_size'}


@pytest.mark.parametrize('vision, language, precision', KINDS)
@pytest.mark.parametrize('smooth', [False, True])
def test_the_nano_model_rounded_keeps_to_the_table(
        tmp_path: Path, vision: str, language: str, precision: str, smooth: bool) -> None:
    write_plain_calibration(tmp_path / 'c', NANO, vision=vision, language=language, smooth=smooth)
    export_checkpoint(NANO, tmp_path / 'out', ExportOptions(
        calibration=tmp_path / 'c', vision_weights=vision, language_weights=language, precision=precision))
    for graph in ('vision.onnx', 'language.onnx'):
        assert layout_problems(tmp_path / 'out' / graph) == []
        for version in VERSIONS:
            assert problems_of(tmp_path / 'out' / graph, version) == []
    assert block_sizes(tmp_path / 'out' / 'language.onnx') == ({64, 128} if language == 'int4' else set())


def shaped_roundings(model: PenguinVLConfig, part: str, kind: str) -> dict[str, Rounding]:
    """Roundings of all weights of a part, of the right shapes and nothing more."""
    found = {}
    for name, shape in expected_shapes(model).items():
        if name.startswith(part) and '_proj.' in name:
            outputs, inputs = shape
            scales = (outputs,) if kind == 'int8' else (inputs // 128, outputs)
            found[name] = Rounding(kind, np.broadcast_to(np.float16(0.01), scales),
                                   np.float16(0.1) if kind == 'int8' else None, np.broadcast_to(np.float32(1), (inputs,)))
    return found


@pytest.mark.parametrize('model, gigabytes', [(PENGUIN_VL_2B, 1.8), (PENGUIN_VL_8B, 6.6)], ids=['2B', '8B'])
def test_whole_models_rounded_keep_to_the_table_and_have_the_size_they_should(
        tmp_path: Path, model: PenguinVLConfig, gigabytes: float) -> None:
    weights = HolesForWeights(ShapesAlone(model), tmp_path, 'float16', print)  # type: ignore[arg-type]
    with weights.writing('vision.weights'):
        graph = vision_graph(model, weights, merge=2, roundings=shaped_roundings(model, 'encoder', 'int8'))
        graph.save(tmp_path / 'vision.onnx')
    with weights.writing('language.weights'):
        weights.embeddings()
        graph = language_graph(model, weights, attention='split', roundings=shaped_roundings(model, 'decoder', 'int4'))
        graph.save(tmp_path / 'language.onnx')
    for file in ('vision.onnx', 'language.onnx'):
        assert layout_problems(tmp_path / file) == []
        for version in VERSIONS:
            assert problems_of(tmp_path / file, version) == []
    assert block_sizes(tmp_path / 'language.onnx') == {128}
    assert sum((tmp_path / file).stat().st_size for file in weights.files) / 1e9 == pytest.approx(gigabytes, rel=0.03)


@pytest.mark.parametrize('change, text', [
    ('block', 'cannot have blocks of 32'), ('scale', 'the scale is no constant'), ('axis', 'want a scale a column'),
    ('zero', '`x_zero_point` must be zero')])
def test_rounding_that_10_3_does_not_take_is_found(tmp_path: Path, change: str, text: str) -> None:
    write_random_checkpoint(tmp_path / 'model', replace(TINY, decoder=replace(TINY.decoder, width=64)), dtype='F32')
    write_plain_calibration(tmp_path / 'c', tmp_path / 'model')
    export_checkpoint(tmp_path / 'model', tmp_path, ExportOptions(
        calibration=tmp_path / 'c', vision_weights='int8', language_weights='int4', precision='fp16'))
    file = tmp_path / ('language.onnx' if change == 'block' else 'vision.onnx')
    model = onnx.load(file, load_external_data=False)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == 'DequantizeLinear']
    of_weight = next(node for node in nodes if stored[node.input[1]].dims)
    if change == 'block':
        next(attribute for attribute in of_weight.attribute if attribute.name == 'block_size').i = 32
    elif change == 'scale':
        scale = stored[of_weight.input[1]]
        model.graph.initializer.remove(scale)
        model.graph.input.append(helper.make_tensor_value_info(scale.name, TensorProto.FLOAT16, list(scale.dims)))
    elif change == 'axis':
        of_weight.attribute[0].i = 0
    elif change == 'zero':
        zero = stored[next(node for node in nodes if len(node.input) > 2).input[2]]
        zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    onnx.save(model, file)
    assert any(text in problem for problem in problems_of(file, '10.3'))
