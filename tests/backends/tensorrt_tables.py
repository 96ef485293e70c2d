"""What TensorRT's ONNX parser takes, version by version, and whether a graph keeps to it. Knows nothing of our models.

Facts: tests/data/tensorrt_ops_*.json, from onnx/onnx-tensorrt docs/operators.md (reference/tensorrt.md 3).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

VERSIONS = ('10.3', '10.15', '11.1')
DATA = Path(__file__).parent.parent / 'data'
OPSETS = {'plain': 18, 'int8': 19, 'int4': 21}     # rounding of FP16 came with 19, INT4 weights with 21
BLOCKS = {64, 128}      # of INT4 weights (TensorRT's documentation, quantisation schemes)
# Every attribute we set; the parser reads these in all versions.
ATTRIBUTES = {'Cast': {'to'}, 'Concat': {'axis'}, 'Gather': {'axis'}, 'ReduceMean': {'keepdims'}, 'Softmax': {'axis'},
              'Split': {'axis'}, 'Transpose': {'perm'}, 'DequantizeLinear': {'axis', 'block_size'}, 'QuantizeLinear': {'axis'}}
# Where INT64 may stand: sizes and places, never numbers that are computed with.
INT64_INPUTS = {'Reshape': {1}, 'ReduceMean': {1}, 'Slice': {0, 1, 2, 3}, 'Split': {1}}
INT64_OUTPUTS = {'Shape', 'Slice'}
ONE_TYPE = {'Add', 'Concat', 'Div', 'MatMul', 'Mul', 'Pow'}
TYPES = {TensorProto.FLOAT: 'FP32', TensorProto.FLOAT16: 'FP16', TensorProto.INT32: 'INT32', TensorProto.INT64: 'INT64',
         TensorProto.INT8: 'INT8', TensorProto.INT4: 'INT4', TensorProto.BFLOAT16: 'BF16', TensorProto.BOOL: 'BOOL'}
LARGEST_FLOAT16 = 65504


def problems_of(path: Path, version: str) -> list[str]:
    """Everything in a graph file that this version of TensorRT does not take, or that we keep out; empty when all is well."""
    operators = json.loads((DATA / f'tensorrt_ops_{version}.json').read_text())['operators']
    model = onnx.load(path, load_external_data=False)
    types = _types(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    problems = [] if [(opset.domain, opset.version) for opset in model.opset_import] in (
        [[('', number)] for number in OPSETS.values()]) else ['the opset is another']
    for port in (*model.graph.input, *model.graph.output):
        if types[port.name] not in ('FP32', 'FP16', 'INT32'):
            problems.append(f'{port.name} goes in or out as {types[port.name]}')
    for node in model.graph.node:
        row = operators.get(node.op_type)
        if row is None:
            problems.append(f'{node.name}: there is no {node.op_type}')
            continue
        problems += [f'{node.name}: {text}' for text in (
            *_wrong_types(node, types, row['dtypes']), *_wrong_attributes(node, row['dtypes']),
            *_broken_restrictions(node, row['restrictions'], constants), *_wrong_rounding(node, types, constants))]
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            problems.append(f'{tensor.name} is float64')
        elif tensor.data_location != TensorProto.EXTERNAL and tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            largest = np.abs(numpy_helper.to_array(tensor).astype(np.float64)).max(initial=0)
            if not largest < LARGEST_FLOAT16:
                problems.append(f'{tensor.name} holds {largest}')
    return problems


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """The type of every tensor, worked out by onnx with its strictest checks on."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    found = {value.name: value.type.tensor_type.elem_type
             for group in (inferred.value_info, inferred.input, inferred.output) for value in group}
    found |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return {name: TYPES.get(dtype, str(dtype)) for name, dtype in found.items()}


def _wrong_types(node: onnx.NodeProto, types: dict[str, str], allowed: list[str]) -> list[str]:
    inputs = [types[name] for name in node.input]
    wrong = [f'input {place} is {dtype}' for place, dtype in enumerate(inputs)
             if dtype == 'INT64' and place not in INT64_INPUTS.get(node.op_type, set())]
    wrong += [f'gives {types[name]}' for name in node.output
              if types[name] == 'INT64' and node.op_type not in INT64_OUTPUTS]
    named = {types[name] for name in (*node.input, *node.output)} - {'INT64'}
    if node.op_type == 'DequantizeLinear':
        named = {inputs[0]}     # its row speaks of what it reads; it gives the type of its scale
    elif node.op_type == 'QuantizeLinear':
        named = {inputs[0]}
    elif node.op_type == 'Gather':
        named = {inputs[0]}     # indices are INT32 or INT64
    wrong += [f'{dtype} is not among {", ".join(allowed)}' for dtype in sorted(named - set(allowed))]
    if node.op_type in ONE_TYPE and len(set(inputs)) > 1:
        wrong.append(f'mixes {", ".join(inputs)}, which a strongly typed network does not')
    return wrong


def _wrong_attributes(node: onnx.NodeProto, allowed: list[str]) -> list[str]:
    wrong = [f'attribute {attribute.name}' for attribute in node.attribute
             if attribute.name not in ATTRIBUTES.get(node.op_type, set())]
    wrong += [f'casts to {TYPES.get(attribute.i, attribute.i)}' for attribute in node.attribute
              if node.op_type == 'Cast' and TYPES.get(attribute.i) not in allowed]
    return wrong


def _wrong_rounding(node: onnx.NodeProto, types: dict[str, str], constants: dict[str, TensorProto]) -> list[str]:
    """What TensorRT's documentation asks of explicit quantisation beside the table (reference/tensorrt.md 4)."""
    if node.op_type not in ('QuantizeLinear', 'DequantizeLinear'):
        return []
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    scale = constants.get(node.input[1])
    if scale is None:
        return ['the scale is no constant']
    if node.op_type == 'QuantizeLinear':
        return [] if types[node.input[0]] == types[node.input[1]] else ['input and scale differ in type']
    weight = constants.get(node.input[0])
    if weight is None:      # an activation: one scale for all
        return [] if not list(scale.dims) else ['an activation has more than one scale']
    rows, columns = weight.dims
    if weight.data_type != TensorProto.INT4:
        return [] if attributes == {'axis': 1} and list(scale.dims) == [columns] else ['INT8 weights want a scale a column']
    block = attributes.get('block_size', 0)
    fine = block in BLOCKS and rows % block == 0 and attributes['axis'] == 0 and list(scale.dims) == [rows // block, columns]
    return [] if fine else [f'INT4 weights [{rows}, {columns}] cannot have blocks of {block}']


def _broken_restrictions(node: onnx.NodeProto, text: str, constants: dict[str, TensorProto]) -> list[str]:
    """Restrictions are sentences; those of the operators we use are known here, any other is a reason to look."""
    if not text:
        return []
    if '`axes` must be' in text:
        return [] if node.input[1] in constants else [text]
    if 'zero_point` must be' in text:
        zeros = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        fine = len(node.input) < 3 or not node.input[2] or (
            zeros is not None and not np.any(numpy_helper.to_array(zeros).astype(np.int32)))
        return [] if fine else [text]
    return [f'nobody looked yet whether this holds: {text}']
