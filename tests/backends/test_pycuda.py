"""The TensorRT engines once more, this time through real pycuda over a CUDA driver in host memory."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_pycuda import ROOT, TARGET, build_driver, cuda_root


def test_real_pycuda_over_a_driver_in_host_memory_runs_the_same_tests(tmp_path: Path) -> None:
    root = cuda_root()
    if root is None:
        pytest.skip("needs CUDA's headers (cuda.h); set CUDA_HOME where they are elsewhere than in /usr/local/cuda")
    if shutil.which('cc') is None:
        pytest.skip('needs a C compiler')
    if not TARGET.exists() and importlib.util.find_spec('pycuda') is None:
        pytest.skip('needs pycuda, which takes minutes to build: python tests/backends/build_pycuda.py')
    build_driver(tmp_path, root)
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/backends/test_tensorrt.py']
    found = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env={
        **os.environ, 'PENGUIN_TEST_GPU': 'pycuda', 'LD_LIBRARY_PATH': str(tmp_path),
        'PYTHONPATH': os.pathsep.join([str(TARGET), os.environ.get('PYTHONPATH', '')])})
    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]
    assert '[100%]' in found.stdout
    assert 'PyCUDA' not in found.stderr     # it complains there of what is left behind
