"""The engine a node is to run: its manifest, its files, the machine it was built on, and whether the settings fit it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from penguin_ros.assemble import engine_folder
from penguin_ros.backends.manifest import Manifest, check_files, read_manifest
from penguin_ros.backends.ownership import check_ownership
from penguin_ros.core.config import PenguinConfig
from penguin_ros.core.errors import PenguinError
from penguin_ros.core.perception import check_room
from penguin_ros.doctor.device import available_gb
from penguin_ros.doctor.finding import Finding, fault, ok, unseen, warning
from penguin_ros.doctor.surroundings import Surroundings

_SCRATCH = 1.2              # engines and caches together, times this: buffers, activations
_ASK_DETAILS = ('import tensorrt; from penguin_ros.backends.cuda import the_gpu; from penguin_ros.backends.tensorrt import '
                'machine_details; import json; print(json.dumps(machine_details(the_gpu())))')


def manifest_of(config: PenguinConfig) -> tuple[Path, Manifest]:
    """The folder and manifest of the engine that is configured. Raises PenguinError."""
    folder = engine_folder(config.engine)
    return folder, read_manifest(folder)


def look_at_engine(machine: Surroundings, config: PenguinConfig) -> Iterator[Finding]:
    """Everything that would stop the node from loading and running the engine."""
    try:
        folder, manifest = manifest_of(config)
    except PenguinError as error:
        yield fault('engine', str(error), 'penguin build RECIPE   (recipes: engines/*.yaml)')
        return
    backend = manifest.backend if config.backend == 'auto' else config.backend
    remedy = f'penguin build {manifest.recipe or "RECIPE"}'
    yield ok('engine', f'{folder}: {manifest.model}, {manifest.precision}, for {backend}, {manifest.engine_hash}, by '
                       f'{manifest.builder}')
    try:
        check_files(folder, manifest)
        yield ok('engine files', f'all {len(manifest.files)} as they were built')
    except PenguinError as error:
        yield fault('engine files', str(error), remedy)
    if backend == 'tensorrt':
        yield from _tensorrt(machine, folder, manifest, remedy)
    yield _settings(manifest, config)
    yield _room(machine, manifest, config)


def _tensorrt(machine: Surroundings, folder: Path, manifest: Manifest, remedy: str) -> Iterator[Finding]:
    try:
        check_ownership(folder, ['manifest.json', *manifest.files])
        yield ok('engine owner', 'nobody else may write to it')
    except (PenguinError, OSError) as error:
        yield fault('engine owner', str(error), f'sudo chown -R $USER {folder} && chmod -R go-w {folder}')
    works, text = machine.ask_python(_ASK_DETAILS)
    if not works:
        yield unseen('engine and machine', f'cannot be compared without TensorRT and a GPU: {text}')
        return
    here = json.loads(text)
    other = [f'{name} {manifest.details.get(name)} (here {found})' for name, found in here.items()
             if manifest.details.get(name) != found]
    if other:
        yield fault('engine and machine', f'the engine was built for {", ".join(other)}', remedy)
    else:
        yield ok('engine and machine', 'built for this TensorRT, driver and GPU')


def _settings(manifest: Manifest, config: PenguinConfig) -> Finding:
    engines = SimpleNamespace(language=SimpleNamespace(spec=manifest.language_spec), cache_rows=manifest.ranges['S'][1])
    try:
        check_room(engines, config)  # type: ignore[arg-type]   # it asks for these two alone
    except PenguinError as error:
        return fault('settings', str(error), f'lower token_budget.window_tokens from {config.token_budget.window_tokens}, or '
                                             'raise cache_rows in the recipe and build again')
    return ok('settings', f'a window of {config.token_budget.window_tokens} tokens fits {manifest.ranges["S"][1]} cache rows')


def _room(machine: Surroundings, manifest: Manifest, config: PenguinConfig) -> Finding:
    """Whether memory is left for engines and caches; a GPU of its own memory is not looked at."""
    spec = manifest.language_spec
    row_bytes = 2 * spec.layers * spec.kv_heads * spec.head_dim * (4 if manifest.precision == 'fp32' else 2)
    caches = (len(config.cameras) + 1) * manifest.ranges['S'][1] * row_bytes
    needed_gb = _SCRATCH * (sum(entry.nbytes for entry in manifest.files.values()) + caches) / 1e9
    available = available_gb(machine)
    if available is None:
        return unseen('room', f'engines and caches want about {needed_gb:.1f} GB; free memory is not known')
    if available < needed_gb:
        return warning('room', f'engines and caches want about {needed_gb:.1f} GB, {available:.1f} GB are available',
                       'sudo systemctl isolate multi-user.target   (no desktop), close other programs, or choose a recipe that '
                       'fits: penguin plan RECIPE')
    return ok('room', f'engines and caches want about {needed_gb:.1f} GB, {available:.1f} GB are available')
