"""The exported graphs are plain enough for TensorRT 10.3, keep their weights where they should, and compute the model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

from write_random_checkpoint import TINY, write_random_checkpoint  # noqa: E402

from penguin_ros.core.errors import CheckpointError, ConfigError, EngineError  # noqa: E402
from penguin_ros.core.rotary import decoder_tables, encoder_tables  # noqa: E402
from penguin_ros.model.config import (  # noqa: E402
    PENGUIN_VL_2B,
    DecoderConfig,
    EncoderConfig,
    PenguinVLConfig,
)
from penguin_ros.model.export import Export, ExportOptions, export_checkpoint  # noqa: E402
from penguin_ros.model.graph import Graph  # noqa: E402

DATA = Path(__file__).parent.parent / 'data'
OPERATORS = json.loads((DATA / 'tensorrt_ops_10.3.json').read_text())['operators']
TENSORRT_NAMES = {'FLOAT': 'FP32', 'FLOAT16': 'FP16', 'INT32': 'INT32', 'INT64': 'INT64', 'BFLOAT16': 'BF16'}
AXES_AS_INITIALIZER = {'ReduceMean', 'Squeeze', 'Unsqueeze', 'Pad'}
EVERY_GRAPH = [(options, file) for options in (
    ExportOptions(), ExportOptions(precision='fp16'), ExportOptions(attention='concat', precision='fp16', merge=1),
    ExportOptions(weights='safetensors', merge=4, debug=True)) for file in ('vision.onnx', 'language.onnx')]

_block = {'width': 192, 'layers': 4, 'heads': 6, 'kv_heads': 3, 'head_dim': 32, 'mlp_width': 512, 'norm_eps': 1e-6}
NANO = PenguinVLConfig(
    encoder=EncoderConfig(**_block, rope_theta=100.0), decoder=DecoderConfig(**_block, rope_theta=1e4, vocabulary=600),
    image_token_id=5, tied_embeddings=True)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('tiny')
    write_random_checkpoint(folder, TINY, dtype='F32')
    return folder


def read_graph(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def node_types(model: onnx.ModelProto) -> dict[str, str]:
    """The type of every tensor, worked out by onnx with its strictest checks on."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    found = {value.name: value.type.tensor_type.elem_type
             for group in (inferred.graph.value_info, inferred.graph.input, inferred.graph.output) for value in group}
    found |= {weight.name: weight.data_type for weight in inferred.graph.initializer}
    return {name: onnx.TensorProto.DataType.Name(dtype) for name, dtype in found.items()}


@pytest.mark.parametrize('options, file', EVERY_GRAPH)
def test_every_operator_and_type_is_one_that_tensorrt_10_3_takes(
        checkpoint: Path, tmp_path: Path, options: ExportOptions, file: str) -> None:
    export_checkpoint(checkpoint, tmp_path, options)
    onnx.checker.check_model(tmp_path / file, full_check=True)
    model = read_graph(tmp_path / file)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [('', 18)]
    types = node_types(model)
    constants = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        assert node.op_type in OPERATORS, f'{node.name}: {node.op_type} is not in the table'
        named = {TENSORRT_NAMES[types[name]] for name in [*node.input, *node.output]}
        assert named <= {*OPERATORS[node.op_type]['dtypes'], 'INT64'}, f'{node.name}: {node.op_type} of {named}'
        if node.op_type in AXES_AS_INITIALIZER:
            assert node.input[1] in constants, f'{node.name}: axes must be an initializer'
        if node.op_type in {'Add', 'Mul', 'Div', 'MatMul', 'Concat', 'Pow'}:
            assert len({types[name] for name in node.input}) == 1, f'{node.name} mixes types'


def test_the_table_would_catch_an_operator_that_10_3_lacks() -> None:
    assert not {'RMSNormalization', 'Attention', 'RotaryEmbedding', 'Swish'} & OPERATORS.keys()


@pytest.mark.parametrize('options, file', EVERY_GRAPH)
def test_inputs_have_readable_dimensions_and_no_64_bit_type(
        checkpoint: Path, tmp_path: Path, options: ExportOptions, file: str) -> None:
    export = export_checkpoint(checkpoint, tmp_path, options)
    model = read_graph(tmp_path / file)
    ports = [*model.graph.input, *model.graph.output]
    dimensions = {size.dim_param for port in ports for size in port.type.tensor_type.shape.dim if size.dim_param}
    assert dimensions == ({'N', 'M'} if file == 'vision.onnx' else {'T', 'P', 'S', 'R'})
    types = {onnx.TensorProto.DataType.Name(port.type.tensor_type.elem_type) for port in ports}
    assert types <= {'FLOAT', 'FLOAT16', 'INT32'}
    stated = export.vision if file == 'vision.onnx' else export.language
    assert [port.name for port in ports] == [port.name for port in (*stated.inputs, *stated.outputs)]


def test_float32_islands_are_written_into_the_float16_graph(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path, ExportOptions(precision='fp16'))
    for file in ('vision.onnx', 'language.onnx'):
        model = read_graph(tmp_path / file)
        types = node_types(model)
        by_operator: dict[str, set[str]] = {}
        for node in model.graph.node:
            by_operator.setdefault(node.op_type, set()).add(types[node.output[0]])
        for operator in {'Pow', 'ReduceMean', 'Sqrt', 'Div', 'Softmax', 'Sigmoid', 'Erf', 'Mul'} & by_operator.keys():
            assert by_operator[operator] == {'FLOAT'}, operator
        assert by_operator['MatMul'] == {'FLOAT16'}
    assert types['logits'] == 'FLOAT'
    assert types['new_k_0'] == types['past_v_1'] == 'FLOAT16'


def test_constants_are_finite_in_float16_too(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path, ExportOptions(precision='fp16'))
    for file in ('vision.onnx', 'language.onnx'):
        for weight in read_graph(tmp_path / file).graph.initializer:
            if weight.data_location != onnx.TensorProto.EXTERNAL and weight.data_type == onnx.TensorProto.FLOAT:
                assert np.abs(onnx.numpy_helper.to_array(weight)).max() < 65504


def test_external_weights_are_in_by_out_and_begin_on_a_page(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path, ExportOptions(precision='fp16'))
    model = read_graph(tmp_path / 'language.onnx')
    weights = {weight.name: weight for weight in model.graph.initializer}
    gate = weights['decoder.layers.1.mlp.gate_proj.weight']
    assert list(gate.dims) == [TINY.decoder.width, TINY.decoder.mlp_width]
    assert gate.data_type == onnx.TensorProto.FLOAT16
    for weight in weights.values():
        assert all(int(entry.value) % 4096 == 0 for entry in weight.external_data if entry.key == 'offset')
    assert all(node.input[1] in weights for node in model.graph.node
               if node.op_type == 'MatMul' and node.name.endswith(('.q', '.k', '.v', '.out', '.gate', '.up', '.down')))


def test_a_tied_table_is_stored_once(checkpoint: Path, tmp_path: Path) -> None:
    export = export_checkpoint(checkpoint, tmp_path, ExportOptions())
    vocabulary, width = TINY.decoder.vocabulary, TINY.decoder.width
    assert export.embeddings.file == 'embeddings.bin'
    assert (tmp_path / 'embeddings.bin').stat().st_size == vocabulary * width * 4
    head = [weight for weight in read_graph(tmp_path / 'language.onnx').graph.initializer
            if list(weight.dims) == [vocabulary, width]]
    assert [entry.value for entry in head[0].external_data if entry.key == 'location'] == ['embeddings.bin']


def test_graphs_that_point_into_the_checkpoint_ship_no_second_copy(checkpoint: Path, tmp_path: Path) -> None:
    export = export_checkpoint(checkpoint, tmp_path, ExportOptions(weights='safetensors'))
    assert set(export.files) == {'vision.onnx', 'language.onnx', 'model.safetensors'}
    assert {file.name for file in tmp_path.iterdir()} == set(export.files)
    assert (tmp_path / 'language.onnx').stat().st_size < 100_000


def test_an_export_of_the_same_checkpoint_has_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    hashes = []
    for folder in (tmp_path / 'first', tmp_path / 'second'):
        export = export_checkpoint(checkpoint, folder, ExportOptions(precision='fp16'))
        hashes.append([hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in export.files])
    assert hashes[0] == hashes[1]
    assert not list(tmp_path.glob('**/*.unfinished'))


@pytest.mark.parametrize('dtype', ['F16', 'BF16'])
@pytest.mark.parametrize('tied', [True, False])
def test_both_ways_of_keeping_weights_compute_the_same(tmp_path: Path, dtype: str, tied: bool) -> None:
    config = replace(TINY, tied_embeddings=tied)
    write_random_checkpoint(tmp_path / 'checkpoint', config, dtype=dtype, shards=2)
    results = []
    for weights in ('external', 'safetensors'):
        folder = tmp_path / weights
        export = export_checkpoint(tmp_path / 'checkpoint', folder, ExportOptions(weights=weights))
        results.append([run_vision(folder, export), run_language(folder, export)])
    for external, in_place in zip(*results):
        np.testing.assert_allclose(external, in_place, rtol=0, atol=1e-5 * np.abs(external).max())


def test_float16_stays_near_float32(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / 'checkpoint', NANO, dtype='F16')
    results = []
    for precision in ('fp32', 'fp16'):
        export = export_checkpoint(tmp_path / 'checkpoint', tmp_path / precision, ExportOptions(precision=precision))
        results.append([run_vision(tmp_path / precision, export), run_language(tmp_path / precision, export)])
    for exact, rounded in zip(*results):
        assert np.abs(exact - rounded).max() < 0.01 * np.abs(exact).max()


@pytest.mark.parametrize('dtype', ['F32', 'F16'])
def test_both_forms_of_attention_compute_the_same(tmp_path: Path, dtype: str) -> None:
    write_random_checkpoint(tmp_path / 'checkpoint', TINY, dtype=dtype)
    logits = []
    for attention in ('split', 'concat'):
        export = export_checkpoint(tmp_path / 'checkpoint', tmp_path / attention, ExportOptions(attention=attention))
        logits.append(run_language(tmp_path / attention, export))
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-5 * np.abs(logits[0]).max())


def test_layers_of_the_2b_model_export_and_run_in_float16(tmp_path: Path) -> None:
    config = replace(PENGUIN_VL_2B, encoder=replace(PENGUIN_VL_2B.encoder, layers=1), image_token_id=1,
                     decoder=replace(PENGUIN_VL_2B.decoder, layers=1, vocabulary=512))
    write_random_checkpoint(tmp_path / 'checkpoint', config)
    steps: list[str] = []
    export = export_checkpoint(tmp_path / 'checkpoint', tmp_path / 'out', ExportOptions(precision='fp16'),
                               progress=steps.append)
    assert len(steps) == 2
    assert np.isfinite(run_vision(tmp_path / 'out', export)).all()
    logits = run_language(tmp_path / 'out', export)
    assert logits.shape == (2, 512)
    assert np.isfinite(logits).all()


def test_a_value_that_float16_cannot_hold_is_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'checkpoint'
    write_random_checkpoint(folder, TINY, dtype='F32')
    content = bytearray((folder / 'model.safetensors').read_bytes())
    content[-4:] = np.float32(1e6).tobytes()
    (folder / 'model.safetensors').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'has values that float16 cannot hold.*precision fp32'):
        export_checkpoint(folder, tmp_path / 'out', ExportOptions(precision='fp16'))
    assert not (tmp_path / 'out' / 'vision.onnx').exists() or not (tmp_path / 'out' / 'language.onnx').exists()
    assert not list((tmp_path / 'out').glob('*.unfinished'))
    export_checkpoint(folder, tmp_path / 'out', ExportOptions(precision='fp32'))


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs Linux, whose /proc tells the peak memory')
@pytest.mark.parametrize('precision, item_bytes', [('fp16', 2), ('fp32', 4)])
def test_exporting_needs_the_memory_of_one_tensor_and_not_of_the_checkpoint(
        tmp_path: Path, precision: str, item_bytes: int) -> None:
    block = {'width': 512, 'layers': 12, 'heads': 8, 'kv_heads': 4, 'head_dim': 64, 'mlp_width': 2048, 'norm_eps': 1e-6,
             'rope_theta': 1e6}
    config = PenguinVLConfig(encoder=EncoderConfig(**block | {'layers': 2}), image_token_id=1, tied_embeddings=False,
                             decoder=DecoderConfig(**block, vocabulary=16384))
    write_random_checkpoint(tmp_path / 'checkpoint', config, shards=3)
    program = Path(__file__).parent / 'measure_exporting.py'
    done = subprocess.run([sys.executable, str(program), str(tmp_path / 'checkpoint'), str(tmp_path / 'out'), precision],
                          cwd=Path(__file__).parents[2], env={'PYTHONPATH': '.', 'OMP_NUM_THREADS': '1'},
                          capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    largest_bytes = config.decoder.width * config.decoder.vocabulary * item_bytes
    assert measured['file_bytes'] > 140e6
    assert measured['peak_bytes'] < largest_bytes + 48e6


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
        checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('shutil.disk_usage', lambda folder: namedtuple('Usage', 'total used free')(100, 90, 10))
    with pytest.raises(ConfigError, match=r'0\.0 GB free, the weights as float16 need .* Make room'):
        export_checkpoint(checkpoint, tmp_path / 'out', ExportOptions(precision='fp16'))
    assert not list((tmp_path / 'out').iterdir())


def test_a_long_export_tells_how_far_it_is(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('penguin_ros.model.stored_weights._PROGRESS_S', 0.0)
    lines: list[str] = []
    export_checkpoint(checkpoint, tmp_path, ExportOptions(), progress=lines.append)
    assert len(lines) > 10
    assert lines[0] == f'{tmp_path / "vision.weights"}: 0.0 GB written'


@pytest.mark.parametrize('wrong, text', [
    ({'precision': 'int3'}, 'fp32 or fp16'), ({'weights': 'torch'}, 'external or safetensors'),
    ({'attention': 'none'}, 'split or concat'), ({'merge': 0}, 'at least 1')])
def test_options_that_cannot_be_are_refused(wrong: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ExportOptions(**wrong)


def test_a_graph_refuses_mixed_types_and_a_name_used_twice() -> None:
    graph = Graph('wrong')
    whole, half = graph.input('x', 'float32', ('N',)), graph.input('y', 'float16', ('N',))
    with pytest.raises(EngineError, match='Add sum mixes float32, float16'):
        graph.op('Add', [whole, half], 'sum')
    graph.op('Neg', [whole], 'minus')
    with pytest.raises(EngineError, match='two tensors named minus'):
        graph.op('Neg', [whole], 'minus')


def run_vision(folder: Path, export: Export) -> np.ndarray:
    """Visual tokens of one seeded frame, float32."""
    encoder, grid = export.config.encoder, (4, 6)
    patches = np.random.default_rng(0).uniform(-1, 1, (24, encoder.patch_values)).astype(np.float32)
    cos, sin = encoder_tables(grid, merge=2, head_dim=encoder.head_dim, theta=encoder.rope_theta)
    return run(folder / 'vision.onnx', 'visual', {'patches': patches, 'cos': cos, 'sin': sin})


def run_language(folder: Path, export: Export) -> np.ndarray:
    """Logits of two of five seeded rows behind three earlier ones."""
    decoder, generator = export.config.decoder, np.random.default_rng(1)
    types = {port.name: port.dtype for port in export.language.inputs}
    cos, sin = decoder_tables(np.arange(3, 8), head_dim=decoder.head_dim, theta=decoder.rope_theta)
    mask = np.triu(np.full((5, 8), -1e4, np.float32), 4)
    mask[:, 0] = -1e4
    feeds = {'embeddings': generator.normal(size=(5, decoder.width)), 'cos': cos, 'sin': sin, 'mask': mask,
             'logit_rows': np.array([4, 1])}
    for port in export.language.inputs:
        if port.name.startswith('past'):
            feeds[port.name] = generator.normal(size=(3, decoder.kv_heads, decoder.head_dim))
    return run(folder / 'language.onnx', 'logits', {name: value.astype(types[name]) for name, value in feeds.items()})


def run(path: Path, output: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session.run([output], feeds)[0].astype(np.float32)
