"""Check the TensorRT backend's types against tensorrt-stubs, the bindings' own signatures (10.13) as a type checker sees them.

    pip install --no-deps --target .cache/tensorrt-stubs tensorrt-stubs==10.13.0.35.1
    python tests/backends/check_tensorrt_types.py .cache/tensorrt-stubs

The stubs must not be installed beside other packages: Python would take their folder for TensorRT itself. A few of their
lines are no Python (generated from documentation strings), so a mended copy is used.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / 'penguin_ros' / 'backends').glob('tensorrt*.py'))
MENDED = {' in: list[': ' in_: list[',
          'power: Weights = None, channel_axis: int)': 'power: Weights = None, channel_axis: int = 0)'}
SETTINGS = """[mypy]
python_version = 3.10
ignore_missing_imports = true
disallow_untyped_defs = true
[mypy-tensorrt.*]
ignore_errors = true
[mypy-tensorrt_bindings.*]
ignore_errors = true
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('stubs', type=Path, help='folder that tensorrt-stubs was installed into')
    stubs = parser.parse_args().stubs
    with tempfile.TemporaryDirectory() as scratch:
        mended = Path(scratch) / 'stubs'
        for package in ('tensorrt', 'tensorrt_bindings'):
            shutil.copytree(stubs / package, mended / package)
        file = mended / 'tensorrt_bindings' / 'tensorrt.pyi'
        text = file.read_text()
        for broken, whole in MENDED.items():
            text = text.replace(broken, whole)
        file.write_text(text)
        settings = Path(scratch) / 'mypy.ini'
        settings.write_text(SETTINGS)
        return subprocess.run(
            [sys.executable, '-m', 'mypy', '--config-file', settings, '--cache-dir', Path(scratch) / 'cache', *MODULES],
            cwd=ROOT, env={**os.environ, 'MYPYPATH': str(mended)}).returncode


if __name__ == '__main__':
    sys.exit(main())
