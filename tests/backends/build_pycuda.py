"""Build real pycuda for test_pycuda.py, on a machine that has CUDA's headers and a C++ compiler but no GPU; takes minutes.

    python tests/backends/build_pycuda.py           into .cache
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / '.cache' / f'pycuda-{sys.implementation.cache_tag}'     # compiled for one Python
PYCUDA = 'pycuda==2026.1'


def cuda_root() -> Path | None:
    """Where CUDA's headers are, if anywhere."""
    for place in (os.environ.get('CUDA_HOME'), os.environ.get('CUDA_ROOT'), '/usr/local/cuda', '/usr'):
        if place and (Path(place) / 'include' / 'cuda.h').exists():
            return Path(place)
    return None


def build_driver(folder: Path, root: Path) -> None:
    """The driver in host memory, as the library a program is linked against and as the one it is run with."""
    for name in ('libcuda.so', 'libcuda.so.1'):
        subprocess.run(['cc', '-shared', '-fPIC', f'-I{root / "include"}', '-Wl,-soname,libcuda.so.1', '-o', folder / name,
                        Path(__file__).parent / 'host_cuda.c', '-lpthread'], check=True)


def main() -> int:
    root = cuda_root()
    if root is None:
        print('CUDA headers are nowhere (include/cuda.h); set CUDA_HOME', file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        build_driver(Path(scratch), root)
        (Path(scratch) / '.aksetup-defaults.py').write_text(f'CUDA_ROOT = {str(root)!r}\nCUDA_ENABLE_CURAND = False\n')
        return subprocess.run(
            [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '--target', TARGET, PYCUDA],
            env={**os.environ, 'HOME': scratch, 'LIBRARY_PATH': scratch, 'CFLAGS': '-O0 -g0'}).returncode


if __name__ == '__main__':
    sys.exit(main())
