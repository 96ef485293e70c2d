"""Which way imports point, and what is never imported: the plan of the house, held to."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'penguin_ros'
HEAVY = ('torch', 'transformers', 'rclpy', 'tensorrt', 'pycuda', 'onnx', 'onnxruntime', 'onnxscript', 'cyclonedds', 'rosbags',
         'mujoco', 'rerun', 'matplotlib')
MAY_IMPORT = {      # room -> rooms of ours it may import, when it is loaded or later
    'core': set(),
    'backends': {'core', 'model'},
    'model': {'core', 'backends'},
    'training': {'core', 'model', 'backends', 'sim'},
    'sim': {'core'},
    'verify': {'core', 'model', 'backends', 'training'},
    'calibration': {'core', 'model', 'backends', 'dds'},
    'bench': {'core', 'backends', 'model', 'sim', 'training', 'assemble', 'shipped', 'dds'},
    'doctor': {'core', 'backends', 'assemble'},
    'ros': {'core', 'assemble', 'shipped', 'doctor'},
    'dds': {'core', 'assemble', 'shipped', 'doctor'},
}


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or '')
    return found


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob('*.py'))


@pytest.mark.parametrize('path', files_of('core'), ids=lambda path: path.name)
def test_the_core_imports_no_runtime(path: Path) -> None:
    assert not {name.split('.')[0] for name in imports(path)} & set(HEAVY)


@pytest.mark.parametrize('room', MAY_IMPORT)
def test_imports_point_inward(room: str) -> None:
    for path in files_of(room):
        for name in imports(path):
            parts = name.split('.')
            if parts[0] == 'penguin_ros' and len(parts) > 1 and parts[1] not in ('msg', 'srv', 'action'):
                assert parts[1] == room or parts[1] in MAY_IMPORT[room], f'{path.name} imports {name}'


@pytest.mark.parametrize('module', ['penguin_ros', 'penguin_ros.core.node', 'penguin_ros.core.perception',
                                    'penguin_ros.assemble', 'penguin_ros.cli.main'])
def test_importing_the_package_brings_no_heavy_library_along(module: str) -> None:
    program = f'import {module}, sys; print([name for name in {HEAVY!r} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == '[]'


def test_the_help_of_every_command_needs_no_heavy_library() -> None:
    program = ('import sys; from penguin_ros.cli.main import build_parser; build_parser();'
               f'print([name for name in {HEAVY!r} if name in sys.modules])')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == '[]'


def test_every_file_says_in_its_first_line_what_it_is_for() -> None:
    for path in PACKAGE.rglob('*.py'):
        text = path.read_text(encoding='utf-8')
        assert ast.get_docstring(ast.parse(text)), f'{path.relative_to(ROOT)} has no docstring'


def test_nothing_is_ever_unpickled() -> None:
    for path in PACKAGE.rglob('*.py'):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        assert 'pickle' not in imports(path), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                words = {word.arg: word.value for word in node.keywords}
                allowed = words.get('allow_pickle')
                assert not (isinstance(allowed, ast.Constant) and allowed.value), path
                if isinstance(node.func, ast.Attribute) and node.func.attr == 'load' and ast.unparse(node.func) == 'torch.load':
                    weights_only = words.get('weights_only')
                    assert isinstance(weights_only, ast.Constant), path
                    assert weights_only.value is True, path
