"""Nothing is deserialised that somebody else could have written or that is not byte for byte what was built."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

import fake_tensorrt  # noqa: E402
from tensorrt_rig import Builds, Gpu, backend, fake_library, fresh_library, shared_builds  # noqa: E402, F401

from penguin_ros.backends.manifest import MANIFEST_FILE, SEAL, _sealed, read_manifest  # noqa: E402
from penguin_ros.backends.onnx import load_onnx_engines  # noqa: E402
from penguin_ros.backends.ownership import check_ownership  # noqa: E402
from penguin_ros.core.errors import EngineError, EngineMismatchError  # noqa: E402

PACKAGE = Path(__file__).parents[2] / 'penguin_ros'
FILES = ('vision.engine', 'language.engine', 'vision.onnx', 'language.onnx', 'vision.weights', 'language.weights',
         'embeddings.bin', 'config.json', 'tokenizer.json')


@pytest.fixture
def folder(builds: Builds, tmp_path: Path) -> Path:
    """A built engine of one's own."""
    return Path(shutil.copytree(builds.folder('tensorrt', 'aligned'), tmp_path / 'engine'))


def load(folder: Path) -> None:
    fake_tensorrt.machine = gpu = Gpu()
    backend().load_tensorrt_engines(folder, gpu=gpu)[0].close()


def refused(folder: Path, error: type[EngineError], text: str) -> None:
    """Loading fails for this reason, and before TensorRT was given anything."""
    with pytest.raises(error, match=text):
        load(folder)
    assert 'deserialize_cuda_engine' not in fake_tensorrt.calls


def test_what_was_built_is_loaded(folder: Path) -> None:
    load(folder)
    assert fake_tensorrt.calls.count('deserialize_cuda_engine') == 2


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('place', ['first', 'middle', 'last'])
def test_one_other_byte_in_any_file_is_refused(folder: Path, name: str, place: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[{'first': 0, 'middle': len(content) // 2, 'last': -1}[place]] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, EngineMismatchError, rf'{name} has sha256 .* the one that was built has .* Build it again: penguin build')


@pytest.mark.parametrize('name', [name for name in FILES if not name.endswith(('.onnx', '.weights'))])
def test_a_missing_or_cut_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    refused(folder, EngineMismatchError, rf'{name} has {len(content) - 1} bytes')
    (folder / name).unlink()
    with pytest.raises((EngineMismatchError, FileNotFoundError, EngineError), match=name):
        load(folder)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every single value of a JSON document is."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, (dict, list)) or not value:
        yield path
    for key, child in children:
        yield from paths_of(child, (*path, key))


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """The document with one value another, of the same kind where that is possible."""
    if not path:
        return (not value if isinstance(value, bool) else value + 1 if isinstance(value, (int, float))
                else {'x': 'y'} if value == {} else value[:-1] + ('0' if value[-1:] != '0' else '1'))
    if isinstance(value, list):
        return [changed(item, path[1:]) if place == path[0] else item for place, item in enumerate(value)]
    return {key: changed(item, path[1:]) if key == path[0] else item for key, item in value.items()}


def test_any_changed_field_of_the_manifest_is_refused_with_the_reason(folder: Path) -> None:
    """Every value there is, one after another; sealed anew or not."""
    file = folder / MANIFEST_FILE
    content = json.loads(file.read_text())
    plain = {key: value for key, value in content.items() if key != SEAL}
    paths = list(paths_of(content))
    assert len(paths) > 200
    for path in paths:
        file.write_text(json.dumps(changed(content, path), indent=1) + '\n')
        with pytest.raises(EngineMismatchError, match=r'manifest\.json .*(penguin build|recipe for)'):
            read_manifest(folder, backend='tensorrt')
        # Sealed anew by somebody who knows how: then the hash of the ingredients is still the old one.
        if path[0] not in (SEAL, 'recipe', 'engine_hash'):
            file.write_text(_sealed(changed(plain, path)))
            with pytest.raises(EngineMismatchError):
                read_manifest(folder, backend='tensorrt')


def test_any_changed_byte_of_the_manifest_is_refused(folder: Path) -> None:
    """Spaces and line ends too; every seventh byte, to be quick."""
    file = folder / MANIFEST_FILE
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        other = bytearray(content)
        other[place] ^= 1
        file.write_bytes(other)
        with pytest.raises(EngineMismatchError):
            read_manifest(folder, backend='tensorrt')
    for other_end in (content[:-1], content + b'\n', content.replace(b'\n', b'\r\n')):
        file.write_bytes(other_end)
        with pytest.raises(EngineMismatchError, match='changed after the build'):
            read_manifest(folder, backend='tensorrt')


@pytest.mark.parametrize('place', ['.', 'language.engine', 'manifest.json', 'embeddings.bin'])
def test_what_everyone_may_write_is_refused(folder: Path, place: str) -> None:
    (folder / place).chmod(0o777 if place == '.' else 0o666)
    refused(folder, EngineError, r'everyone may write to .*executable code.*chmod o-w')


def test_a_folder_that_others_could_exchange_is_refused(folder: Path) -> None:
    folder.parent.chmod(0o777)
    refused(folder, EngineError, rf'everyone may write to {folder.parent}\.')
    folder.parent.chmod(0o1777)     # as /tmp: others may add files, but not replace ours
    load(folder)
    folder.parent.chmod(0o755)


@pytest.mark.parametrize('place', ['.', 'vision.engine'])
def test_what_belongs_to_another_user_is_refused(folder: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(folder / place, 12345, -1)
        owner = '12345'
    else:
        owner = str(os.geteuid())
        monkeypatch.setattr(os, 'geteuid', lambda: 54321)
    refused(folder, EngineError, rf'belongs to user {owner}; this process is user .*sudo chown')


def test_a_link_is_refused_where_an_engine_should_be(folder: Path, tmp_path: Path) -> None:
    (folder / 'language.engine').rename(tmp_path / 'elsewhere')
    (folder / 'language.engine').symlink_to(tmp_path / 'elsewhere')
    refused(folder, EngineError, r'language\.engine is no plain file but a symbolic link')


def test_a_link_to_the_folder_itself_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'current').symlink_to(folder)
    load(tmp_path / 'current')
    check_ownership(tmp_path / 'current', ['manifest.json'])


def test_an_onnx_engine_is_checked_likewise(builds: Builds, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds.folder('onnx', 'aligned'), tmp_path / 'engine'))
    for file in (folder / 'vision.onnx', folder / 'language.weights', folder / 'config.json'):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(EngineMismatchError, match=file.name.replace('.', r'\.')):
            load_onnx_engines(folder)
        content[-1] ^= 1
        file.write_bytes(content)
    load_onnx_engines(folder)


def dangers(path: Path) -> Iterator[str]:
    """Ways of reading a file that can run code in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        place = f'{path.name}:{getattr(node, "lineno", 0)}'
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, 'module', None) or '']
            for name in names:
                if name.split('.')[0] in ('pickle', 'cPickle', 'dill', 'joblib', 'shelve', 'marshal', 'cloudpickle'):
                    yield f'{place} imports {name}'
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ''
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            # With weights_only torch reads numbers and nothing else; training keeps its own state so.
            if owner == 'torch' and node.func.attr == 'load' and getattr(keywords.get('weights_only'), 'value', 0) is not True:
                yield f'{place} calls torch.load'
            if 'allow_pickle' in keywords and getattr(keywords['allow_pickle'], 'value', True) is not False:
                yield f'{place} allows pickles'
            if owner == 'yaml' and node.func.attr in ('load', 'unsafe_load', 'full_load', 'load_all'):
                yield f'{place} calls yaml.{node.func.attr}'
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ('eval', 'exec'):
            yield f'{place} calls {node.func.id}'


def test_no_file_is_read_in_a_way_that_could_run_code_in_it() -> None:
    files = sorted(PACKAGE.rglob('*.py'))
    assert len(files) > 60
    assert [danger for path in files for danger in dangers(path)] == []


def test_the_search_for_such_ways_finds_them(tmp_path: Path) -> None:
    source = tmp_path / 'bad.py'
    source.write_text('import pickle\ntorch.load("x")\nnp.load("x", allow_pickle=True)\nyaml.load("x")\neval("1")\n'
                      'np.load("x", allow_pickle=False)\ntorch.load("x", weights_only=True)\nyaml.safe_load("x")\n')
    assert len(list(dangers(source))) == 5
