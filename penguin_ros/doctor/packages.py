"""Python and the packages a node needs, and how to get them. Knows nothing of devices or engines."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from penguin_ros.doctor.finding import Finding, fault, ok, unseen, warning
from penguin_ros.doctor.surroundings import Surroundings

# Package, the name pip knows it by, and the oldest version that was tried.
_NEEDED = (('numpy', 'numpy', '1.26'), ('OpenCV', 'opencv-python-headless', '4.8'), ('Pillow', 'Pillow', '9.4'),
           ('tokenizers', 'tokenizers', '0.20'), ('PyYAML', 'PyYAML', '6.0'))
_IMPORT = {'OpenCV': 'cv2', 'Pillow': 'PIL', 'PyYAML': 'yaml'}
OLDEST_PYTHON = (3, 10)
OLDEST_TENSORRT = (10, 3)


def look_at_packages(machine: Surroundings, backend: str | None) -> Iterator[Finding]:
    """Python, numpy and the rest; of the runtimes, the one ``backend`` needs must be there."""
    found = '.'.join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield fault('Python', f'{found}; 3.10 or later is needed', 'use JetPack 6.2 (Python 3.10) or 7.2 (Python 3.12)')
    else:
        yield ok('Python', found)
    for name, package, oldest in _NEEDED:
        yield _package(machine, name, package, oldest)
    yield _cv_bridge(machine)
    yield _onnxruntime(machine, backend)
    yield _tensorrt(machine, backend)


def _package(machine: Surroundings, name: str, package: str, oldest: str) -> Finding:
    module = _IMPORT.get(name, name)
    works, text = machine.ask_python(f'import {module}; print({module}.__version__)')
    if not works:
        return fault(name, f'cannot be imported: {text}', f'pip install "{package}>={oldest}"')
    if _numbers(text) < _numbers(oldest):
        return fault(name, f'{text}; {oldest} or later is needed', f'pip install "{package}>={oldest}"')
    return ok(name, text)


def _cv_bridge(machine: Surroundings) -> Finding:
    works, text = machine.ask_python('import cv_bridge; print(cv_bridge.__file__)')
    if works:
        return ok('cv_bridge', 'installed')
    if 'No module' in text:
        return unseen('cv_bridge', 'not installed; the same conversions run on OpenCV')
    # Humble's cv_bridge was compiled for numpy 1 and breaks under numpy 2, which pip likes to install.
    numpy = machine.ask_python('import numpy; print(numpy.__version__)')[1]
    remedy = 'pip install "numpy<2"' if _numbers(numpy) >= (2,) else 'sudo apt install --reinstall ros-$ROS_DISTRO-cv-bridge'
    return warning('cv_bridge', f'is installed and cannot be imported (numpy {numpy}): {text}', remedy)


def _onnxruntime(machine: Surroundings, backend: str | None) -> Finding:
    works, text = machine.ask_python('import onnxruntime; print(onnxruntime.__version__)')
    if works:
        return ok('ONNX Runtime', text)
    if backend == 'onnx':
        return fault('ONNX Runtime', f'cannot be imported, and the engine needs it: {text}', 'pip install onnxruntime')
    return unseen('ONNX Runtime', 'not installed; needed for engines built for onnx')


def _tensorrt(machine: Surroundings, backend: str | None) -> Finding:
    works, text = machine.ask_python('import tensorrt; print(tensorrt.__version__)')
    if works and _numbers(text) >= OLDEST_TENSORRT:
        return ok('TensorRT', text)
    if works:
        return fault('TensorRT', f'{text}; 10.3 or later is needed', 'install JetPack 6.2 or later, which brings it')
    if backend == 'tensorrt':
        return fault('TensorRT', f'cannot be imported, and the engine needs it: {text}',
                     'sudo apt install nvidia-jetpack   (in a virtual environment: python3 -m venv --system-site-packages)')
    return unseen('TensorRT', 'not installed; needed for engines built for tensorrt, on a Jetson')


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    numbers: list[int] = []
    for part in version.split('.'):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
