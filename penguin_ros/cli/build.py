"""penguin build: a recipe into engines beside their manifest. Knows nothing of how graphs are written or engines run."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penguin_ros.backends.manifest import Manifest
    from penguin_ros.backends.recipe import Recipe

EXAMPLES = """examples:
  penguin build engines/nano.yaml
  penguin build engines/penguin-vl-2b-onnx.yaml --output ~/engines/2b
"""
# What a run reads besides graphs and weights; copied beside them where the checkpoint has it.
COMPANIONS = ('config.json', 'dialect.json', 'generation_config.json', 'preprocessor_config.json', 'tokenizer.json',
              'tokenizer_config.json')


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'build', help='build the engines a recipe describes',
        description='Build vision and language engine as a recipe describes, beside a manifest with the hash of everything '
                    'they were made of. Nothing is ever built at start-up: this is the command that error messages name.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recipe', help='a YAML file, see engines/*.yaml')
    parser.add_argument('--output', metavar='DIR', help='folder for the engines, instead of the one the recipe names')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from penguin_ros.backends.recipe import read_recipe
    from penguin_ros.core.errors import ConfigError

    recipe = read_recipe(args.recipe)
    if recipe.backend != 'onnx':
        raise ConfigError(f'{recipe.file} is for the backend {recipe.backend}; this version builds onnx. Use one of the '
                          'recipes for onnx.')
    build_onnx(recipe, Path(args.output) if args.output else recipe.output_folder, progress=print)
    return 0


def build_onnx(recipe: Recipe, folder: Path, *, debug: bool = False,
               progress: Callable[[str], None] = lambda line: None) -> Manifest:
    """Export the recipe's checkpoint for ONNX Runtime and write the manifest. Returns what was written.

    ``debug`` lets the vision graph also give what lies between its layers.
    """
    from penguin_ros.backends.manifest import GraphEntry, Manifest, TableEntry, TensorPort, hash_files, write_manifest
    from penguin_ros.core.engine import LanguageSpec, VisionSpec
    from penguin_ros.model.export import ExportedGraph, ExportOptions, export_checkpoint

    export = export_checkpoint(recipe.checkpoint_folder, folder, ExportOptions(
        precision=recipe.precision, merge=recipe.merge, weights=recipe.weights, attention=recipe.attention, debug=debug),
        progress=progress)
    begin_s = time.perf_counter()
    files = [*export.files, *_copy_companions(recipe.checkpoint_folder, folder)]
    encoder, decoder = export.config.encoder, export.config.decoder

    def entry(graph: ExportedGraph) -> GraphEntry:
        inputs, outputs = (tuple(TensorPort(port.name, port.dtype, port.shape) for port in ports)
                           for ports in (graph.inputs, graph.outputs))
        return GraphEntry(graph.file, inputs, outputs)

    table = export.embeddings
    manifest = Manifest(
        backend='onnx', model=recipe.model_name, precision=recipe.precision, recipe=_as_typed(recipe.file),
        vision_spec=VisionSpec(
            patch_px=encoder.patch_px, merge=recipe.merge, head_dim=encoder.head_dim, rope_theta=encoder.rope_theta,
            width=decoder.width, max_patches=recipe.max_patches),
        language_spec=LanguageSpec(
            layers=decoder.layers, kv_heads=decoder.kv_heads, head_dim=decoder.head_dim, width=decoder.width,
            vocabulary=decoder.vocabulary, rope_theta=decoder.rope_theta,
            max_positions=recipe.max_positions or decoder.max_positions, max_append=recipe.max_append,
            image_token_id=export.config.image_token_id),
        vision=entry(export.vision), language=entry(export.language),
        embeddings=TableEntry(table.file, table.offset, table.dtype, table.shape),
        ranges={'N': (recipe.merge**2, recipe.max_patches), 'T': (1, recipe.max_append),
                'P': (1, recipe.cache_rows - 1), 'S': (2, recipe.cache_rows), 'R': (0, recipe.max_append)},
        files=hash_files(folder, files))
    write_manifest(folder, manifest)
    progress(f'{folder / "manifest.json"}: engine {manifest.engine_hash}, {len(files)} files hashed in '
             f'{time.perf_counter() - begin_s:.1f} s')
    return manifest


def _copy_companions(checkpoint: Path, folder: Path) -> list[str]:
    present = [name for name in COMPANIONS if (checkpoint / name).is_file()]
    if checkpoint.resolve() != folder.resolve():
        for name in present:
            shutil.copyfile(checkpoint / name, folder / name)
    return present


def _as_typed(recipe: Path) -> str:
    """The recipe as one would name it from here, so that no path of this machine ends up in the manifest."""
    here = Path.cwd()
    return (recipe.resolve().relative_to(here) if recipe.resolve().is_relative_to(here) else recipe).as_posix()
