"""Every name of TensorRT's Python bindings we use is the same from 10.3 to 11.4; and the fake of the tests has no others.

The table was read off the real bindings (list_tensorrt_names.py). The types are checked by check_tensorrt_types.py.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')
pytest.importorskip('onnx', reason='needs onnx: pip install onnx')

import fake_tensorrt

ROOT = Path(__file__).parents[2]
TABLE = json.loads((ROOT / 'tests' / 'data' / 'tensorrt_names.json').read_text())
EVERYWHERE: dict[str, list[list[str]]] = TABLE['everywhere']
CLASSES = {name.split('.')[0] for name in EVERYWHERE if '.' in name}
OWN_MEANING = {'log', 'name', 'reset', 'close', 'shape'}       # attributes that our own objects have too
FILES = [path for path in sorted((ROOT / 'penguin_ros').rglob('*.py')) if 'import tensorrt' in path.read_text()]


def uses(path: Path) -> Iterator[tuple[str, int]]:
    """Each dotted name that begins with ``trt``, without it, and its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id == 'trt':
            yield '.'.join(reversed(parts)), node.lineno


def test_the_table_covers_jetpack_6_to_tensorrt_11() -> None:
    assert TABLE['versions'][0] == '10.3.0'
    assert TABLE['versions'][-1].startswith('11.4')
    assert {'BuilderFlag.FP16', 'NetworkDefinitionCreationFlag.EXPLICIT_BATCH'} <= TABLE['only_in'].keys()
    assert EVERYWHERE['IExecutionContext.set_tensor_address'] == [['name', 'memory']]


def test_only_the_tensorrt_backend_imports_tensorrt() -> None:
    assert [path.name for path in FILES if 'import tensorrt as trt' in path.read_text()] == [
        'tensorrt.py', 'tensorrt_build.py', 'tensorrt_context.py']
    for path in sorted((ROOT / 'penguin_ros').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module or ''] if isinstance(node, ast.ImportFrom) else [])
            assert not any(name.split('.')[0] == 'pycuda' for name in names) or path.name == 'cuda.py', path


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_name_we_use_is_in_all_versions(path: Path) -> None:
    for name, line in uses(path):
        assert name == '__version__' or name in EVERYWHERE, f'{path.name}:{line}: trt.{name}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_no_attribute_we_use_is_one_of_some_versions_only(path: Path) -> None:
    everywhere = {name.split('.')[-1] for name in EVERYWHERE}
    only_in_some = {name.split('.')[-1] for name in TABLE['only_in']} - everywhere
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in only_in_some, f'{path.name}:{node.lineno}: {node.attr}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_call_has_arguments_that_all_versions_take(path: Path) -> None:
    overloads: dict[str, list[list[str]]] = {}
    for name, arguments in EVERYWHERE.items():
        if '.' in name:
            overloads.setdefault(name.split('.')[-1], []).extend(arguments)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = node.func.attr
        if f'{name}.__init__' in EVERYWHERE and isinstance(node.func.value, ast.Name) and node.func.value.id == 'trt':
            candidates = EVERYWHERE[f'{name}.__init__']
        elif overloads.get(name) and name not in OWN_MEANING | {'__init__'}:
            candidates = overloads[name]
        else:
            continue
        keywords = {keyword.arg for keyword in node.keywords}
        assert any(len(node.args) + len(keywords) <= len(names) and keywords <= set(names[len(node.args):])
                   for names in candidates), f'{path.name}:{node.lineno}: {name}{tuple(keywords)}'


def test_the_fake_has_nothing_that_the_library_lacks() -> None:
    checked = 0
    for class_name in sorted(CLASSES & set(vars(fake_tensorrt))):
        members = getattr(fake_tensorrt, class_name)
        for name, member in vars(members).items():
            if name.startswith('_') and name != '__init__':
                continue
            full = f'{class_name}.{name}'
            if name == '__init__' and not any(EVERYWHERE.get(full, [])):
                continue        # made by other objects only
            assert full in EVERYWHERE, full
            if inspect.isfunction(member):
                parameters = [parameter for parameter in inspect.signature(member).parameters if parameter != 'self']
                assert any(parameters == names[:len(parameters)] for names in EVERYWHERE[full]), (full, parameters)
            checked += 1
    assert checked > 60
