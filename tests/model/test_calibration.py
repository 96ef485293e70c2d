"""Calibrations are read as they were written, refused when they do not belong, and become explicit Q/DQ in the graphs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

from safetensors.numpy import load_file, save_file  # noqa: E402
from test_export import run_language, run_vision  # noqa: E402
from write_plain_calibration import write_plain_calibration  # noqa: E402
from write_random_checkpoint import write_random_checkpoint  # noqa: E402

from penguin_ros.backends.onnx import open_graph  # noqa: E402
from penguin_ros.core.errors import CalibrationError, ConfigError  # noqa: E402
from penguin_ros.model.calibration import Reach, read_calibration  # noqa: E402
from penguin_ros.model.config import PENGUIN_VL_2B, DecoderConfig, EncoderConfig, PenguinVLConfig  # noqa: E402
from penguin_ros.model.export import ExportOptions, export_checkpoint  # noqa: E402
from penguin_ros.model.stored_weights import packed_int4  # noqa: E402
from penguin_ros.model.weights import WeightFiles, canonical_name  # noqa: E402

_block = {'layers': 2, 'heads': 4, 'kv_heads': 2, 'norm_eps': 1e-6, 'rope_theta': 1e4}
# Widths of 128 and 192 rows for INT4; the decoder's down projection has 160 and stays as it is.
SMALL = PenguinVLConfig(
    encoder=EncoderConfig(width=64, head_dim=16, mlp_width=96, **_block),
    decoder=DecoderConfig(width=192, head_dim=32, mlp_width=160, vocabulary=128, max_positions=512, **_block),
    image_token_id=127, tied_embeddings=True)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('small') / 'model'
    write_random_checkpoint(folder, SMALL, dtype='F32')
    return folder


def rounded(checkpoint: Path, folder: Path, **options: object) -> ExportOptions:
    """Options of an export with INT8 vision and INT4 language weights, and the calibration they need."""
    write_plain_calibration(folder, checkpoint, smooth=bool(options.pop('smooth', False)))
    return ExportOptions(**{'vision_weights': 'int8', 'language_weights': 'int4', 'calibration': folder, **options})  # type: ignore[arg-type]


def test_what_was_written_is_read(checkpoint: Path, tmp_path: Path) -> None:
    write_plain_calibration(tmp_path, checkpoint, smooth=True,
                            reaches={'x': Reach(12.5, True, ('w',)), 'y': Reach(2e5, False)})
    found = read_calibration(tmp_path, checkpoint)
    assert (found.vision.kind, found.language.kind) == ('int8', 'int4')
    assert found.weights == WeightFiles(checkpoint).hashes()
    assert found.language.reaches == {'x': Reach(12.5, True, ('w',)), 'y': Reach(2e5, False)}
    assert found.vision.roundings['encoder.layers.1.mlp.up_proj.weight'].input_scale == np.float16(8 / 127)
    down = 'decoder.layers.0.mlp.down_proj.weight'
    assert down not in found.language.roundings
    assert found.language.roundings['decoder.layers.0.mlp.up_proj.weight'].weight_scale.shape == (3, 160)


@pytest.mark.parametrize('file', ['scales.safetensors', 'ranges/vision.json', 'ranges/language.json', 'manifest.json'])
def test_a_changed_or_missing_file_is_refused_with_the_command_to_run(checkpoint: Path, tmp_path: Path, file: str) -> None:
    options = rounded(checkpoint, tmp_path / 'c')
    path = tmp_path / 'c' / file
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b'  ' if file != 'manifest.json' else content.replace(b'"int8"', b'"int7"'))
    with pytest.raises(CalibrationError, match='penguin calibrate'):
        export_checkpoint(checkpoint, tmp_path / 'out', options)
    path.unlink()
    with pytest.raises(CalibrationError, match=r'does not exist.*penguin calibrate'):
        export_checkpoint(checkpoint, tmp_path / 'out', options)


def test_a_calibration_of_other_weights_or_for_other_numbers_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    options = rounded(checkpoint, tmp_path / 'c')
    write_random_checkpoint(tmp_path / 'other', SMALL, dtype='F32', seed=1)
    with pytest.raises(CalibrationError, match=r'made of other weights.*penguin calibrate'):
        export_checkpoint(tmp_path / 'other', tmp_path / 'out', options)
    with pytest.raises(CalibrationError, match='has int4 scales for the language engine; int8 was asked for'):
        export_checkpoint(checkpoint, tmp_path / 'out', replace(options, language_weights='int8'))
    with pytest.raises(ConfigError, match='int8 and int4 weights need scales'):
        replace(options, calibration=None)
    with pytest.raises(ConfigError, match='Use weights external'):
        export_checkpoint(checkpoint, tmp_path / 'out', replace(options, weights='safetensors'))


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_every_product_of_the_blocks_has_rounded_inputs_and_weights(checkpoint: Path, tmp_path: Path, precision: str) -> None:
    export_checkpoint(checkpoint, tmp_path / 'out', rounded(checkpoint, tmp_path / 'c', precision=precision, smooth=True))
    dtype = {'fp32': onnx.TensorProto.FLOAT, 'fp16': onnx.TensorProto.FLOAT16}[precision]
    for name, opset, weights, inputs, code in (('vision', 19, 14, 8, onnx.TensorProto.INT8),
                                               ('language', 21, 12, 0, onnx.TensorProto.INT4)):
        path = tmp_path / 'out' / f'{name}.onnx'
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path, load_external_data=False)
        assert model.opset_import[0].version == opset
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        count = Counter(node.op_type for node in model.graph.node)
        assert (count['QuantizeLinear'], count['DequantizeLinear']) == (inputs, weights + inputs)
        coded = [node for node in model.graph.node if node.op_type == 'DequantizeLinear' and node.input[0] in stored]
        assert {stored[node.input[0]].data_type for node in coded} == {code}
        assert {stored[node.input[1]].data_type for node in coded} == {dtype}
        if name == 'language':
            blocks = {attribute.i for node in coded for attribute in node.attribute if attribute.name == 'block_size'}
            assert blocks == {64, 128}


@pytest.mark.parametrize('smooth', [False, True])
def test_int4_computes_what_the_rounded_weights_would(
        checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smooth: bool) -> None:
    """The float32 model with its weights replaced gives the same logits: the backend's sessions round nothing else."""
    options = rounded(checkpoint, tmp_path / 'c', smooth=smooth, vision_weights='')
    roundings = read_calibration(tmp_path / 'c', checkpoint).language.roundings
    tensors = load_file(checkpoint / 'model.safetensors')
    for stored in tensors:
        rounding = roundings.get(canonical_name(stored) or '')
        if rounding is not None:
            weight = rounding.rounded_weight(tensors[stored].T)
            tensors[stored] = np.ascontiguousarray((weight if rounding.smoothing is None
                                                    else weight * rounding.smoothing[:, None]).T)
    (tmp_path / 'replaced').mkdir()
    save_file(tensors, tmp_path / 'replaced' / 'model.safetensors', metadata={'format': 'pt'})
    (tmp_path / 'replaced' / 'config.json').write_text((checkpoint / 'config.json').read_text())
    monkeypatch.setattr('test_export.run', lambda path, output, feeds: open_graph(path).run([output], feeds)[0])
    expected = run_language(tmp_path / 'a', export_checkpoint(tmp_path / 'replaced', tmp_path / 'a', ExportOptions()))
    export = export_checkpoint(checkpoint, tmp_path / 'b', options)
    np.testing.assert_allclose(run_language(tmp_path / 'b', export), expected, atol=1e-5 * np.abs(expected).max())


def test_rounded_engines_stay_near_the_float_ones(checkpoint: Path, tmp_path: Path) -> None:
    plain = export_checkpoint(checkpoint, tmp_path / 'a', ExportOptions())
    export = export_checkpoint(checkpoint, tmp_path / 'b', rounded(checkpoint, tmp_path / 'c'))
    for run, most in ((run_vision, 0.05), (run_language, 0.2)):
        exact = run(tmp_path / 'a', plain)
        assert np.abs(run(tmp_path / 'b', export) - exact).max() < most * np.abs(exact).max()
    assert (tmp_path / 'b' / 'language.weights').stat().st_size < (tmp_path / 'a' / 'language.weights').stat().st_size / 2


def test_layers_of_the_2b_model_are_rounded_in_blocks_of_128_and_run_in_float16(tmp_path: Path) -> None:
    config = replace(PENGUIN_VL_2B, encoder=replace(PENGUIN_VL_2B.encoder, layers=1), image_token_id=1,
                     decoder=replace(PENGUIN_VL_2B.decoder, layers=1, vocabulary=512))
    write_random_checkpoint(tmp_path / 'model', config)
    export = export_checkpoint(tmp_path / 'model', tmp_path / 'out',
                               rounded(tmp_path / 'model', tmp_path / 'c', precision='fp16'))
    model = onnx.load(tmp_path / 'out' / 'language.onnx', load_external_data=False)
    blocks = [attribute.i for node in model.graph.node for attribute in node.attribute if attribute.name == 'block_size']
    assert blocks == [128] * 7
    assert np.isfinite(run_vision(tmp_path / 'out', export)).all()
    assert np.isfinite(run_language(tmp_path / 'out', export)).all()


def test_a_reach_beyond_what_float16_should_hold_stops_the_export_with_a_remedy(checkpoint: Path, tmp_path: Path) -> None:
    down = 'decoder.layers.0.mlp.down_proj.weight'
    write_plain_calibration(tmp_path / 'c', checkpoint, reaches={
        'decoder.layers.0.mlp.gated': Reach(23456.0, True, (down,)), 'decoder.layers.0.mlp.add': Reach(9e4, False)})
    options = ExportOptions(calibration=tmp_path / 'c', precision='fp16')
    with pytest.raises(CalibrationError, match=rf'mlp\.gated 2\.35e\+04.*float32: \[{down}\]'):
        export_checkpoint(checkpoint, tmp_path / 'out', options)
    export = export_checkpoint(checkpoint, tmp_path / 'out', replace(options, float32=(down,)))
    assert export.calibration
    model = onnx.load(tmp_path / 'out' / 'language.onnx', load_external_data=False)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored[down] == onnx.TensorProto.FLOAT
    assert stored['decoder.layers.1.mlp.down_proj.weight'] == onnx.TensorProto.FLOAT16
    assert np.isfinite(run_language(tmp_path / 'out', export)).all()
    with pytest.raises(ConfigError, match='float32 names nonsense'):
        export_checkpoint(checkpoint, tmp_path / 'out', replace(options, float32=('nonsense',)))


def test_attention_that_goes_beyond_float16_has_only_one_remedy(checkpoint: Path, tmp_path: Path) -> None:
    write_plain_calibration(tmp_path / 'c', checkpoint, reaches={'attention.scores': Reach(float('inf'), True)})
    with pytest.raises(CalibrationError, match='Use precision fp32'):
        export_checkpoint(checkpoint, tmp_path / 'out', ExportOptions(calibration=tmp_path / 'c', precision='fp16'))
    export_checkpoint(checkpoint, tmp_path / 'out', ExportOptions(calibration=tmp_path / 'c', precision='fp32'))


def test_int4_is_packed_as_onnx_reads_it() -> None:
    codes = np.random.default_rng(0).integers(-8, 8, (5, 7)).astype(np.int8)
    stored = packed_int4(codes).tobytes()
    tensor = onnx.TensorProto(name='w', data_type=onnx.TensorProto.INT4, dims=codes.shape, raw_data=stored)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), codes)


def test_the_manifest_says_what_the_calibration_was_made_of(checkpoint: Path, tmp_path: Path) -> None:
    write_plain_calibration(tmp_path, checkpoint)
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert manifest['weights'] == WeightFiles(checkpoint).hashes()
    assert set(manifest['files']) == {'scales.safetensors', 'ranges/vision.json', 'ranges/language.json'}
