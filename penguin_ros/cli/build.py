"""penguin build: a recipe into engines beside their manifest. Knows nothing of how graphs are written or engines run."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penguin_ros.backends.device_memory import Gpu
    from penguin_ros.backends.manifest import GraphEntry, Manifest
    from penguin_ros.backends.recipe import Recipe
    from penguin_ros.model.export import Export, ExportedGraph

Progress = Callable[[str], None]
EXAMPLES = """examples:
  penguin build engines/nano.yaml
  penguin build engines/penguin-vl-2b-onnx.yaml --output ~/engines/2b
  penguin build engines/penguin-vl-2b-orin-nx-16gb.yaml      on that very Orin; takes minutes, see docs/engines.md
"""
# What a run reads besides graphs and weights; copied beside them where the checkpoint has it.
COMPANIONS = ('confidence.json', 'config.json', 'dialect.json', 'generation_config.json', 'preprocessor_config.json',
              'tokenizer.json', 'tokenizer_config.json')


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'build', help='build the engines a recipe describes',
        description='Build vision and language engine as a recipe describes, beside a manifest with the hash of everything '
                    'they were made of. Nothing is ever built at start-up: this is the command that error messages name.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recipe', help='a YAML file, see engines/*.yaml')
    parser.add_argument('--output', metavar='DIR', help='folder for the engines, instead of the one the recipe names')
    parser.add_argument('--layers', action='store_true',
                        help='TensorRT: also write vision.layers.json and language.layers.json, what became of each layer')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from penguin_ros.backends.recipe import read_recipe

    recipe = read_recipe(args.recipe)
    folder = Path(args.output) if args.output else recipe.output_folder
    if recipe.backend == 'tensorrt':
        build_tensorrt(recipe, folder, layers=args.layers, progress=partial(print, flush=True))
    else:
        build_onnx(recipe, folder, progress=print)
    return 0


def build_onnx(recipe: Recipe, folder: Path, *, debug: bool = False, progress: Progress = lambda line: None) -> Manifest:
    """Export the recipe's checkpoint for ONNX Runtime and write the manifest. Returns what was written.

    ``debug`` lets the vision graph also give what lies between its layers.
    """
    export = _export(recipe, folder, progress, debug=debug)
    return _write_manifest(recipe, folder, export, progress, vision=_entry(export.vision), language=_entry(export.language),
                           files=export.files, options=_rounding(recipe, export))


def build_tensorrt(recipe: Recipe, folder: Path, *, layers: bool = False, timing_folder: Path | None = None,
                   gpu: Gpu | None = None, progress: Progress = lambda line: None) -> Manifest:
    """Export the recipe's checkpoint, compile both graphs on this machine's GPU and write the manifest.

    ``layers`` also writes what TensorRT made of each graph. The graphs stay beside the engines; they may be deleted.
    """
    from penguin_ros.backends.manifest import hash_files
    from penguin_ros.backends.profiles import language_profiles, vision_profiles
    from penguin_ros.core.errors import EngineError
    try:
        from penguin_ros.backends.tensorrt_build import BuildOptions, EngineBuilder
    except ImportError as error:
        raise EngineError(f'engines for TensorRT are built on the machine they will run on; TensorRT is not here ({error}). '
                          'On a Jetson it comes with JetPack: sudo apt install nvidia-jetpack (in a virtual environment: '
                          'python3 -m venv --system-site-packages). Elsewhere use a recipe for onnx.') from error

    builder = EngineBuilder(timing_folder=timing_folder or _cache_folder(), progress=progress, gpu=gpu)
    options = BuildOptions(optimization_level=recipe.optimization_level, workspace_mb=recipe.workspace_mb)
    export = _export(recipe, folder, progress)
    profiles = {'vision': vision_profiles(merge=recipe.merge, max_patches=recipe.max_patches),
                'language': language_profiles(max_append=recipe.max_append, cache_rows=recipe.cache_rows)}
    entries = {}
    for name, graph in (('vision', export.vision), ('language', export.language)):
        entries[name] = replace(_entry(graph), file=f'{name}.engine', profiles=profiles[name])
        builder.build(folder / graph.file, entries[name], folder / entries[name].file, options)
        if layers:
            builder.describe_layers(folder / entries[name].file, folder / f'{name}.layers.json')
    files = *(entry.file for entry in entries.values()), export.embeddings.file
    return _write_manifest(recipe, folder, export, progress, **entries, files=files, details=builder.details,
                           options={**options.as_text(), **_rounding(recipe, export)},
                           sources=hash_files(folder, set(export.files) - set(files)))


def _export(recipe: Recipe, folder: Path, progress: Progress, *, debug: bool = False) -> Export:
    from penguin_ros.model.export import ExportOptions, export_checkpoint

    return export_checkpoint(recipe.checkpoint_folder, folder, ExportOptions(
        precision=recipe.precision, merge=recipe.merge, weights=recipe.weights, attention=recipe.attention, debug=debug,
        vision_weights=recipe.vision_weights, language_weights=recipe.language_weights,
        calibration=recipe.calibration_folder, float32=recipe.float32), progress=progress)


def _rounding(recipe: Recipe, export: Export) -> dict[str, str]:
    """What the manifest says of rounded weights; nothing where none are."""
    told = {'vision_weights': recipe.vision_weights, 'language_weights': recipe.language_weights,
            'float32': ' '.join(recipe.float32), 'calibration': export.calibration}
    return {name: value for name, value in told.items() if value}


def _entry(graph: ExportedGraph) -> GraphEntry:
    from penguin_ros.backends.manifest import GraphEntry, TensorPort

    inputs, outputs = (tuple(TensorPort(port.name, port.dtype, port.shape) for port in ports)
                       for ports in (graph.inputs, graph.outputs))
    return GraphEntry(graph.file, inputs, outputs)


def _write_manifest(recipe: Recipe, folder: Path, export: Export, progress: Progress, *, files: Iterable[str],
                    **more: Any) -> Manifest:
    """Copy what a run needs besides, hash it all and write the manifest, last of everything."""
    from penguin_ros.backends.manifest import Manifest, TableEntry, hash_files, write_manifest
    from penguin_ros.model.config import language_spec, vision_spec

    begin_s = time.perf_counter()
    names = [*files, *_copy_companions(recipe.checkpoint_folder, folder, progress)]
    table = export.embeddings
    manifest = Manifest(
        backend=recipe.backend, model=recipe.model_name, precision=recipe.precision, recipe=_as_typed(recipe.file),
        vision_spec=vision_spec(export.config, merge=recipe.merge, max_patches=recipe.max_patches),
        language_spec=language_spec(export.config, max_append=recipe.max_append, max_positions=recipe.max_positions),
        embeddings=TableEntry(table.file, table.offset, table.dtype, table.shape),
        ranges={'N': (recipe.merge**2, recipe.max_patches), 'T': (1, recipe.max_append),
                'P': (1, recipe.cache_rows - 1), 'S': (2, recipe.cache_rows), 'R': (0, recipe.max_append)},
        files=hash_files(folder, names), **more)
    write_manifest(folder, manifest)
    progress(f'{folder / "manifest.json"}: engine {manifest.engine_hash}, {len(manifest.files)} files hashed in '
             f'{time.perf_counter() - begin_s:.1f} s')
    return manifest


def _cache_folder() -> Path:
    """Where timing caches are kept from one build to the next."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'penguin_ros'


def _copy_companions(checkpoint: Path, folder: Path, progress: Progress) -> list[str]:
    from penguin_ros.core.confidence import CONFIDENCE_FILE

    present = [name for name in COMPANIONS if (checkpoint / name).is_file()]
    if CONFIDENCE_FILE in present and _fitted_on_other_weights(checkpoint):
        present.remove(CONFIDENCE_FILE)
        (folder / CONFIDENCE_FILE).unlink(missing_ok=True)
        progress(f'{CONFIDENCE_FILE} was fitted on other weights and is left out: confidences are plain means. Fit them anew: '
                 f'penguin eval {folder} --fit-confidence')
    if checkpoint.resolve() != folder.resolve():
        for name in present:
            shutil.copyfile(checkpoint / name, folder / name)
    return present


def _fitted_on_other_weights(checkpoint: Path) -> bool:
    """Whether the weights that the scale of confidences says it was fitted on are not the checkpoint's."""
    from penguin_ros.backends.manifest import hash_file
    from penguin_ros.core.confidence import weights_fitted_on

    return any(not (checkpoint / name).is_file() or hash_file(checkpoint / name).sha256 != sha256
               for name, sha256 in weights_fitted_on(checkpoint).items())


def _as_typed(recipe: Path) -> str:
    """The recipe as one would name it from here, so that no path of this machine ends up in the manifest."""
    here = Path.cwd()
    return (recipe.resolve().relative_to(here) if recipe.resolve().is_relative_to(here) else recipe).as_posix()
