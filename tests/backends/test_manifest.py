"""An engine folder is loaded only if it is exactly what was built, and the error names the file and the remedy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from penguin_ros.backends.manifest import (
    GraphEntry,
    Manifest,
    TableEntry,
    TensorPort,
    check_files,
    hash_file,
    hash_files,
    load_manifest,
    read_manifest,
    write_manifest,
)
from penguin_ros.core.engine import LanguageSpec, VisionSpec
from penguin_ros.core.errors import EngineMismatchError

CONTENT = {'vision.onnx': b'eyes', 'language.onnx': b'tongue', 'model.safetensors': bytes(5_000_000), 'config.json': b'{}'}


def manifest_of(folder: Path, **changes: Any) -> Manifest:
    return Manifest(**{
        'backend': 'onnx', 'model': 'nano', 'precision': 'fp32', 'recipe': 'engines/nano.yaml',
        'vision_spec': VisionSpec(patch_px=14, merge=2, head_dim=32, rope_theta=100.0, width=192, max_patches=1024),
        'language_spec': LanguageSpec(layers=4, kv_heads=3, head_dim=32, width=192, vocabulary=600, rope_theta=1e4,
                                      max_positions=8192, max_append=256, image_token_id=5),
        'vision': GraphEntry('vision.onnx', (TensorPort('patches', 'float32', ('N', 588)),),
                             (TensorPort('visual', 'float32', ('M', 192)),)),
        'language': GraphEntry('language.onnx', (TensorPort('mask', 'float32', ('T', 'S')),), ()),
        'embeddings': TableEntry('model.safetensors', 128, 'float16', (600, 192)),
        'ranges': {'N': (4, 1024), 'S': (2, 2048)}, 'files': hash_files(folder, CONTENT), **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path, manifest_of(tmp_path))
    return tmp_path


def test_what_is_written_is_read_back_equal(folder: Path) -> None:
    assert load_manifest(folder, backend='onnx') == manifest_of(folder)
    assert not list(folder.glob('*.unfinished'))


def test_the_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'abc')
    assert hash_file(tmp_path / 'file').sha256 == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    (tmp_path / 'file').write_bytes(bytes(5_000_000))
    assert hash_file(tmp_path / 'file').nbytes == 5_000_000


def test_the_engine_hash_names_the_ingredients_and_nothing_else(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert len(manifest.engine_hash) == 12
    assert manifest_of(folder, recipe='elsewhere/nano.yaml').engine_hash == manifest.engine_hash
    changed = [manifest_of(folder, precision='fp16'), manifest_of(folder, details={'tensorrt': '10.3.0'}),
               manifest_of(folder, vision_spec=dataclasses.replace(manifest.vision_spec, merge=1)),
               manifest_of(folder, ranges={'N': (4, 512)})]
    (folder / 'config.json').write_bytes(b'{ }')
    changed.append(manifest_of(folder))
    assert len({manifest.engine_hash, *(other.engine_hash for other in changed)}) == 6


@pytest.mark.parametrize('name', CONTENT)
def test_a_file_with_one_other_byte_is_named(folder: Path, name: str) -> None:
    content = bytearray(CONTENT[name])
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(EngineMismatchError) as error:
        load_manifest(folder, backend='onnx')
    assert str(folder / name) in str(error.value)
    assert hash_file(folder / name).sha256 in str(error.value)
    assert 'penguin build engines/nano.yaml' in str(error.value)


def test_a_file_that_is_cut_off_is_found_by_its_size(folder: Path) -> None:
    (folder / 'model.safetensors').write_bytes(CONTENT['model.safetensors'][:-1])
    with pytest.raises(EngineMismatchError, match='has 4999999 bytes; the one that was built has 5000000'):
        load_manifest(folder, backend='onnx')


def test_a_file_that_is_gone_is_named(folder: Path) -> None:
    (folder / 'vision.onnx').unlink()
    with pytest.raises(EngineMismatchError, match=r'vision\.onnx is missing.*penguin build'):
        load_manifest(folder, backend='onnx')


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EngineMismatchError, match=r'holds no built engine.*penguin build RECIPE'):
        read_manifest(tmp_path)


def test_a_manifest_for_another_backend_is_refused(folder: Path) -> None:
    with pytest.raises(EngineMismatchError, match='built for the backend onnx; tensorrt was to load it'):
        load_manifest(folder, backend='tensorrt')
    assert read_manifest(folder).backend == 'onnx'


def rewrite(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / 'manifest.json').read_text())
    (folder / 'manifest.json').write_text(json.dumps({**content, **changes}))


def test_a_manifest_changed_after_the_build_is_refused(folder: Path) -> None:
    rewrite(folder, precision='fp16')
    with pytest.raises(EngineMismatchError, match=r'it was changed after the build\. Build it again'):
        read_manifest(folder)


@pytest.mark.parametrize('changes, text', [
    ({'format': 99}, 'has format 99; this version reads 1'), ({'files': {}}, 'is not among its files'),
    ({'files': {'../model.safetensors': {'nbytes': 1, 'sha256': ''}}}, 'not a plain file name'),
    ({'vision': {}}, 'is incomplete'), ({'ranges': {'N': [1]}}, 'is incomplete'), ({'language_spec': {}}, 'is incomplete')])
def test_a_manifest_that_cannot_be_is_refused(folder: Path, changes: dict[str, Any], text: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(EngineMismatchError, match=text) as error:
        read_manifest(folder)
    assert 'penguin build engines/nano.yaml' in str(error.value)


@pytest.mark.parametrize('text', ['', '[]', '{"format": 1', '\x00'])
def test_a_damaged_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / 'manifest.json').write_text(text)
    with pytest.raises(EngineMismatchError, match='penguin build RECIPE'):
        read_manifest(folder)


def test_checking_tells_of_each_file(folder: Path) -> None:
    lines: list[str] = []
    check_files(folder, read_manifest(folder), progress=lines.append)
    assert len(lines) == len(CONTENT)
