"""penguin verify: golden vectors against a backend. Knows which backend runs a model case, not what passes (verify/)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from penguin_ros.verify.models import RunCase

EXAMPLES = """examples:
  penguin verify tests/data/golden                          PyTorch, with everything that lies between
  penguin verify tests/data/golden --backend onnx           graphs exported to a temporary folder
  penguin verify tests/data/golden --backend tensorrt       engines built there and then, on a Jetson; some minutes
  penguin verify tests/data/golden --only model_A --json
  penguin verify tests/data/golden --backend onnx --engine out/a --only model_A

exit status: 0 every case passes, 1 a case fails, 2 the folder cannot be read
"""
# What must be importable for a backend to run; onnx itself only writes graphs, which engines already built have.
_NEEDED = {'torch': ('torch',), 'onnx': ('onnxruntime',), 'tensorrt': ('tensorrt', 'penguin_ros.backends.tensorrt')}

_LARGEST_FRAME = 1152       # patches; more than any golden case has, and a whole number of windows of every merge


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'verify', help='check golden vectors against a backend or an engine',
        description='Compute every case of a folder of golden vectors anew and compare: preprocessing, keyframes, token '
                    'budgets, prompts and losses as this version computes them, model cases on the backend asked for.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dir', type=Path, metavar='DIR', help='folder laid out like tests/data/golden')
    parser.add_argument('--backend', default='torch', choices=('torch', 'onnx', 'tensorrt'),
                        help='what runs the model cases (default: %(default)s)')
    parser.add_argument('--engine', type=Path, action='append', default=[], metavar='DIR',
                        help='an engine built from the checkpoint of the cases, instead of a fresh export; once for each '
                             'merge that the cases need')
    parser.add_argument('--tolerance', type=float, default=None, metavar='X',
                        help='largest error of a model array, in parts of its largest magnitude (default: 1e-4, for float32)')
    parser.add_argument('--only', default='', metavar='TEXT', help='only cases whose name contains this text')
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of lines')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify and print; exit status 0, 1 or 2."""
    from penguin_ros.verify.folder import UnreadableFolderError, verify_folder
    from penguin_ros.verify.models import TOLERANCE

    results = []
    with TemporaryDirectory(prefix='penguin-verify-') as scratch:
        try:
            for result in verify_folder(args.dir, _runner(args.backend, args.engine, Path(scratch)), only=args.only,
                                        tolerance=TOLERANCE if args.tolerance is None else args.tolerance,
                                        in_between=not args.engine and args.backend != 'tensorrt'):
                results.append(result)
                if not args.json:
                    verdict = 'pass' if result.passed else 'skip' if result.skipped else 'FAIL'
                    detail = '; '.join(result.faults) or result.skipped
                    line = f'{verdict}  {result.largest_error:8.1e}  {result.name}'
                    print(f'{line}: {detail}' if detail else line, flush=True)
        except UnreadableFolderError as error:
            print(f'penguin verify: error: {error}', file=sys.stderr)
            return 2
    failed = [result for result in results if result.faults]
    skipped = [result for result in results if result.skipped]
    passed = len(results) - len(failed) - len(skipped)
    if args.json:
        print(json.dumps({
            'backend': args.backend, 'passed': passed, 'failed': len(failed), 'skipped': len(skipped),
            'cases': [{'name': result.name, 'passed': result.passed, 'largest_error': result.largest_error,
                       'faults': list(result.faults), 'skipped': result.skipped} for result in results]}))
    else:
        print(f'{passed} of {len(results)} cases pass, {len(failed)} fail, {len(skipped)} are skipped '
              f'(models on {args.backend})')
    return 1 if failed else 0


def _runner(backend: str, engines: list[Path], scratch: Path) -> RunCase:
    """What runs a model case; models and engines are loaded once, when the first case needs them."""
    from importlib.util import find_spec

    from penguin_ros.core.errors import ConfigError

    for needed in (*_NEEDED[backend], *(('onnx',) if backend == 'onnx' and not engines else ())):
        if find_spec(needed) is None:
            raise ConfigError(f'--backend {backend} needs {needed}, which is not installed here. Install it (pip install '
                              'penguin_ros[export,onnx] brings torch, onnx and onnxruntime) or choose another backend.')
    if backend == 'torch':
        if engines:
            raise ConfigError('--engine was given with --backend torch, which runs the checkpoint itself. Leave --engine out, '
                              'or name the backend the engine was built for.')
        return _torch_runner()
    return _EngineRunner(backend, engines, scratch)


def _torch_runner() -> RunCase:
    models: dict[Path, Any] = {}

    def run_case(folder: Path, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        import torch

        from penguin_ros.backends.torch import run_golden_case
        from penguin_ros.model.checkpoint import load_model

        if folder not in models:
            models[folder] = load_model(folder, dtype=torch.float32)
        return run_golden_case(models[folder], arrays)

    return run_case


class _EngineRunner:
    """Runs model cases on engines: those named, or for ONNX Runtime fresh ones with everything that lies between."""

    def __init__(self, backend: str, engines: list[Path], scratch: Path) -> None:
        self._backend, self._given, self._scratch = backend, engines, scratch
        self._loaded: dict[Path, tuple[Any, Any]] = {}

    def __call__(self, folder: Path, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        from importlib import import_module

        backend = import_module(f'penguin_ros.backends.{self._backend}')

        def engines(merge: int | None) -> tuple[Any, Any]:
            place = self._named(folder, merge) if self._given else self._fresh(folder, merge or 1)
            if place not in self._loaded:
                self._loaded[place] = getattr(backend, f'load_{self._backend}_engines')(place)
            return self._loaded[place]

        return backend.run_golden_case(lambda merge: engines(merge)[0], engines(None)[1], arrays)

    def _fresh(self, folder: Path, merge: int) -> Path:
        """Float32 engines of a checkpoint, in the scratch folder."""
        from penguin_ros.backends.recipe import Recipe
        from penguin_ros.cli.build import build_onnx, build_tensorrt

        place = self._scratch / f'{folder.name}-{merge}'
        if not place.exists():
            settings: dict[str, Any] = {'file': self._scratch / 'verify.yaml', 'checkpoint': str(folder.resolve()),
                                        'merge': merge}
            if self._backend == 'tensorrt':     # sets memory aside for the largest shapes, so these are no larger than needed
                build_tensorrt(Recipe(backend='tensorrt', max_patches=_LARGEST_FRAME, max_append=64, cache_rows=1024,
                                      **settings), place)
            else:
                build_onnx(Recipe(max_patches=4096 * merge ** 2, **settings), place, debug=True)
        return place

    def _named(self, folder: Path, merge: int | None) -> Path:
        """The engine among those named that was built from a checkpoint and, unless None, for this merge."""
        from penguin_ros.backends.manifest import read_manifest
        from penguin_ros.core.errors import ConfigError

        config = json.loads((folder / 'config.json').read_text())
        for place in self._given:
            copied = place / 'config.json'
            if copied.is_file() and json.loads(copied.read_text()) == config and (
                    merge is None or read_manifest(place, backend=self._backend).vision_spec.merge == merge):
                return place
        wanted = f'{folder.name}, merge {merge}' if merge else folder.name
        raise ConfigError(f'no engine named with --engine was built for {wanted}. Build one with penguin build and name it '
                          'too, or leave --engine out.')
