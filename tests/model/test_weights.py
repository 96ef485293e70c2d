"""Weight files are read without torch, checked in every byte that can be checked, and faults are named."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from write_random_checkpoint import TINY, write_random_checkpoint

from penguin_ros.core.errors import CheckpointError
from penguin_ros.model.config import PENGUIN_ENCODER, PENGUIN_VL_2B, PENGUIN_VL_8B, config_from_folder
from penguin_ros.model.weights import (
    WeightFiles,
    canonical_name,
    expected_encoder_shapes,
    expected_shapes,
    open_encoder_weights,
    open_weights,
    published_name,
    write_safetensors,
)

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A whole tied model in float32."""
    write_random_checkpoint(tmp_path / 'tiny', TINY, dtype='F32')
    return tmp_path / 'tiny'


def change(folder: Path, edit: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Rewrite a folder's only weight file with some tensors changed."""
    tensors = dict(load_file(folder / 'model.safetensors'))
    edit(tensors)
    save_file(tensors, folder / 'model.safetensors')


def test_the_published_tensor_and_parameter_counts_come_out() -> None:
    counts = [(len(shapes), sum(math.prod(shape) for shape in shapes.values())) for shapes in (
        expected_shapes(PENGUIN_VL_2B), expected_shapes(PENGUIN_VL_8B), expected_encoder_shapes(PENGUIN_ENCODER))]
    assert counts == [(625, 2_167_941_120), (714, 8_652_785_664), (311, 441_070_592)]


@pytest.mark.parametrize('model', ['model_A', 'model_B'])
def test_values_equal_those_of_the_safetensors_package(model: str) -> None:
    files = open_weights(GOLDEN / model, config_from_folder(GOLDEN / model))
    needed = load_file(GOLDEN / model / 'model.safetensors')
    assert {files.stored_name(name) for name in files.names()} == set(needed)
    for name in files.names():
        array = needed[files.stored_name(name)]
        np.testing.assert_array_equal(files.read(name), array)
        span = files.span(name)
        assert span.file.read_bytes()[span.offset:span.offset + span.nbytes] == array.tobytes()
        assert (files.shape(name), files.dtype(name)) == (array.shape, 'F32')
        assert published_name(name) == files.stored_name(name)


@pytest.mark.parametrize('dtype', ['BF16', 'F16', 'F32'])
def test_what_is_written_is_what_the_safetensors_package_reads(tmp_path: Path, dtype: str) -> None:
    write_random_checkpoint(tmp_path, TINY, dtype=dtype)
    files = open_weights(tmp_path, TINY)
    with safe_open(tmp_path / 'model.safetensors', 'np') as reference:
        assert reference.metadata() == {'format': 'pt'}
        for name in files.names():
            assert reference.get_slice(files.stored_name(name)).get_shape() == list(files.shape(name))
            assert reference.get_slice(files.stored_name(name)).get_dtype() == dtype
            if dtype != 'BF16':  # numpy has no such type
                np.testing.assert_array_equal(files.read(name), reference.get_tensor(files.stored_name(name)))


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 0.0], [3.140625, 1e-38, -65280.0]], dtype=np.float32)  # each has a bfloat16 of its own
    bits = (values.view(np.uint32) >> 16).astype('<u2')
    widened = (bits.astype(np.uint32) << 16).view(np.float32)
    write_safetensors(tmp_path / 'model.safetensors', {'model.norm.weight': ('BF16', (2, 3))}, lambda _: [bits.tobytes()])
    read = WeightFiles(tmp_path).read('decoder.norm.weight')
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, widened)
    np.testing.assert_array_equal(read[0], values[0])


@pytest.mark.parametrize('stored, canonical', [
    ('model.vision_encoder.vision_encoder.embeddings.patch_embedding.bias', 'encoder.embeddings.patch_embedding.bias'),
    ('model.vision_encoder.vision_encoder.encoder.layers.3.mlp.up_proj.weight', 'encoder.layers.3.mlp.up_proj.weight'),
    ('model.vision_encoder.encoder.norm.weight', 'encoder.norm.weight'),
    ('model.vision_encoder.embeddings.patch_embedding.weight', 'encoder.embeddings.patch_embedding.weight'),
    ('encoder.layers.0.self_attn.q_norm.weight', 'encoder.layers.0.self_attn.q_norm.weight'),
    ('embeddings.patch_embedding.weight', 'encoder.embeddings.patch_embedding.weight'),
    ('model.vision_projector.readout.2.bias', 'projector.readout.2.bias'),
    ('model.layers.27.mlp.down_proj.weight', 'decoder.layers.27.mlp.down_proj.weight'),
    ('model.embed_tokens.weight', 'decoder.embed_tokens.weight'), ('lm_head.weight', 'decoder.lm_head.weight'),
    ('model.layers.0.self_attn.rotary_emb.inv_freq', None), ('model.vision_encoder.vision_encoder.rotary_emb.inv_freq', None),
    ('model.audio_encoder.conv.weight', None), ('model.audio_projector.0.bias', None),
    ('vision_encoder_teacher.layers.0.weight', None), ('model.vision_distill_layer.weight', None),
    ('model.extra.weight', 'model.extra.weight')])
def test_names_of_every_layout_become_one(stored: str, canonical: str | None) -> None:
    assert canonical_name(stored) == canonical


def test_published_names_lead_back(tmp_path: Path) -> None:
    for name in expected_shapes(PENGUIN_VL_8B):
        assert canonical_name(published_name(name)) == name
    for name in expected_encoder_shapes(PENGUIN_ENCODER):
        assert canonical_name(published_name(name, encoder_alone=True)) == name
        assert not published_name(name, encoder_alone=True).startswith('model.')


@pytest.mark.parametrize('shards', [1, 3])
def test_shards_with_an_index_are_one_checkpoint(tmp_path: Path, shards: int) -> None:
    write_random_checkpoint(tmp_path, TINY, shards=shards)
    assert len(list(tmp_path.glob('*.safetensors'))) == shards
    assert set(open_weights(tmp_path, TINY).names()) == set(expected_shapes(TINY))


def test_shards_without_an_index_are_found_too(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, shards=2)
    (tmp_path / 'model.safetensors.index.json').unlink()
    assert set(open_weights(tmp_path, TINY).names()) == set(expected_shapes(TINY))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, shards=3)
    (tmp_path / 'model-00002-of-00003.safetensors').unlink()
    with pytest.raises(CheckpointError, match=r'lacks model-00002-of-00003\.safetensors'):
        open_weights(tmp_path, TINY)


def test_an_index_that_names_a_tensor_its_shard_lacks_is_refused(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, shards=2)
    index = tmp_path / 'model.safetensors.index.json'
    content = json.loads(index.read_text())
    content['weight_map']['model.norm2.weight'] = 'model-00001-of-00002.safetensors'
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r'lacks model\.norm2\.weight, which the index'):
        open_weights(tmp_path, TINY)
    index.write_text('{"weight')
    with pytest.raises(CheckpointError, match=r'index\.json cannot be read'):
        open_weights(tmp_path, TINY)


def test_the_encoder_alone_is_read_from_its_own_folder_and_from_a_whole_model(tmp_path: Path, tiny: Path) -> None:
    write_random_checkpoint(tmp_path / 'encoder', TINY.encoder)
    expected = set(expected_encoder_shapes(TINY.encoder))
    assert set(open_encoder_weights(tmp_path / 'encoder', TINY.encoder).names()) == expected
    assert expected < set(open_encoder_weights(tiny, TINY.encoder).names())
    with pytest.raises(CheckpointError, match=r'missing model\.embed_tokens\.weight'):
        open_weights(tmp_path / 'encoder', TINY)


def test_the_shorter_prefix_and_leftover_tensors_are_accepted(tiny: Path) -> None:
    def edit(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.startswith('model.vision_encoder.')]:
            tensors[name.replace('vision_encoder.vision_encoder', 'vision_encoder')] = tensors.pop(name)
        for extra in ('model.layers.0.self_attn.rotary_emb.inv_freq', 'model.audio_encoder.w', 'vision_distill_layer.bias'):
            tensors[extra] = np.zeros(4, np.float32)

    change(tiny, edit)
    assert set(open_weights(tiny, TINY).names()) == set(expected_shapes(TINY))


def test_an_output_matrix_beside_a_tied_embedding_must_repeat_it(tiny: Path) -> None:
    def repeat(tensors: dict[str, np.ndarray]) -> None:
        tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()

    def differ(tensors: dict[str, np.ndarray]) -> None:
        tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'] + 1

    change(tiny, repeat)
    open_weights(tiny, TINY)
    change(tiny, differ)
    with pytest.raises(CheckpointError, match=r'not part of this model: lm_head\.weight'):
        open_weights(tiny, TINY)


def test_missing_extra_and_misshapen_tensors_are_all_named_at_once(tiny: Path) -> None:
    def edit(tensors: dict[str, np.ndarray]) -> None:
        del tensors['model.layers.1.mlp.up_proj.weight']
        del tensors['model.vision_encoder.vision_encoder.encoder.norm.weight']
        tensors['model.surprise'] = np.zeros(3, np.float32)
        tensors['model.norm.weight'] = np.zeros(47, np.float32)
        tensors['model.vision_projector.readout.0.bias'] = np.zeros(48, np.int64)

    change(tiny, edit)
    with pytest.raises(CheckpointError) as caught:
        open_weights(tiny, TINY)
    for text in ('missing model.layers.1.mlp.up_proj.weight, model.vision_encoder.vision_encoder.encoder.norm.weight',
                 'not part of this model: model.surprise', 'model.norm.weight [47] instead of [48]',
                 'model.vision_projector.readout.0.bias I64', 'download the folder again'):
        assert text in str(caught.value)


def test_a_long_list_of_names_is_cut(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY.encoder)
    with pytest.raises(CheckpointError, match=r'missing model\.embed_tokens\.weight, .* and \d+ more'):
        open_weights(tmp_path, TINY)


def test_a_tensor_stored_twice_is_refused(tiny: Path) -> None:
    change(tiny, lambda tensors: tensors.update({'model.vision_encoder.encoder.norm.weight': np.ones(32, np.float32)}))
    with pytest.raises(CheckpointError, match='are the same tensor'):
        open_weights(tiny, TINY)


@pytest.mark.parametrize('kept', [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_off_is_named_with_its_size(tiny: Path, kept: int) -> None:
    file = tiny / 'model.safetensors'
    content = file.read_bytes()
    file.write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=rf'model\.safetensors .*{len(content[:kept])} bytes.*Download it again'):
        open_weights(tiny, TINY)


def test_bytes_behind_the_last_tensor_are_refused(tiny: Path) -> None:
    with (tiny / 'model.safetensors').open('ab') as stream:
        stream.write(b'1234')
    with pytest.raises(CheckpointError, match='bytes that belong to no tensor'):
        open_weights(tiny, TINY)


def header_of(**tensor: object) -> bytes:
    header = json.dumps({'model.norm.weight': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8], **tensor}}).encode()
    return len(header).to_bytes(8, 'little') + header + bytes(8)


@pytest.mark.parametrize('content', [
    b'\x04\0\0\0\0\0\0\0{"a"' + bytes(8), b'\x02\0\0\0\0\0\0\0[]', b'\x07\0\0\0\0\0\0\0{"a":1}', header_of(shape=[3]),
    header_of(shape=[-2]), header_of(shape='2'), header_of(dtype='F31'), header_of(data_offsets=[8, 16]),
    header_of(data_offsets=[0]), header_of(data_offsets=None)])
def test_a_damaged_header_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'model.safetensors').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'model\.safetensors has a damaged header'):
        WeightFiles(tmp_path)


def test_overlapping_tensors_are_a_damaged_header(tmp_path: Path) -> None:
    entry = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}
    header = json.dumps({'a': entry, 'b': entry}).encode()
    (tmp_path / 'model.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
    with pytest.raises(CheckpointError, match='damaged header: b begins at byte'):
        WeightFiles(tmp_path)


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    (tmp_path / 'model.safetensors').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4335965984\n')
    with pytest.raises(CheckpointError, match='git lfs pull'):
        WeightFiles(tmp_path)


@pytest.mark.parametrize('present, text', [(None, 'has no weights'), ('pytorch_model.bin', r'has only pytorch_model\.bin')])
def test_a_folder_without_safetensors_is_named(tmp_path: Path, present: str | None, text: str) -> None:
    if present:
        (tmp_path / present).write_bytes(b'')
    with pytest.raises(CheckpointError, match=text):
        WeightFiles(tmp_path)


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='its tensors need'):
        write_safetensors(tmp_path / 'model.safetensors', {'a': ('F32', (4,))}, lambda _: [bytes(15)])
    assert not list(tmp_path.iterdir())


def test_reading_weights_does_not_import_torch() -> None:
    program = 'import penguin_ros.model.weights, sys; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', program], cwd=Path(__file__).parents[2]).returncode == 0
