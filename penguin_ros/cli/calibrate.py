"""penguin calibrate: frames of a camera into scales of rounded weights. Knows nothing of how they are found (calibration/)."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penguin_ros.calibration.calibrate import Task

EXAMPLES = """examples:
  penguin calibrate engines/nano-int8-int4.yaml                                        the frames listed in calibration/nano
  penguin calibrate engines/penguin-vl-2b-orin-nx-16gb.yaml --frames site.mcap         128 frames chosen of a recording
  penguin calibrate ~/Penguin-VL-2B --frames pictures/ --output calibration/site --language int8
  penguin calibrate ~/Penguin-VL-2B --frames site.mcap --vision none --language none   only whether float16 is enough

Then name the folder in the recipe (calibration: FOLDER) and build it. Runs on any CPU, in float32: for Penguin-VL-2B have
16 GB of memory, 10 GB of disk (TMPDIR) and a core for a minute a frame (--threads), then five minutes for the scales; the nano
model takes half a minute in all.
exit status: 0 all is well, 1 an activation goes beyond what float16 should hold (the error names the remedy), or other errors
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'calibrate', help='find the scales of INT8 and INT4 weights on frames of your cameras',
        description='Run a checkpoint on frames of a camera, note how far every activation goes, and find the scales with '
                    'which INT8 and INT4 weights lose least. Writes a folder that penguin build and penguin export read: the '
                    'list of frames with the reason each was chosen, the largest value of every activation, and the scales. '
                    'Fails where an activation goes beyond 1e4, which float16 should not be trusted with.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='a recipe (engines/*.yaml), or a folder with config.json and *.safetensors')
    parser.add_argument('--output', type=Path, metavar='DIR',
                        help='folder of the calibration (default: the one the recipe names; calibration/NAME for folder NAME)')
    parser.add_argument('--frames', type=Path, metavar='SOURCE',
                        help='an .mcap file, a rosbag2 folder or a folder of JPEG or PNG files to choose frames from, or a '
                             'frames.json to use as it is (default: frames.json in the folder of the calibration)')
    parser.add_argument('--count', type=int, default=128, metavar='N', help='frames to choose at most (default: %(default)s)')
    parser.add_argument('--tokens', type=int, default=None, metavar='N',
                        help='most visual tokens of a frame (default: what the recipe allows, at most 256)')
    parser.add_argument('--vision', choices=('int8', 'none'),
                        help='weights of the vision engine (default: as the recipe, or int8)')
    parser.add_argument('--language', choices=('int8', 'int4', 'none'),
                        help='weights of the language engine (default: as the recipe, or int4)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: %(default)s)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from importlib.util import find_spec

    from penguin_ros.core.errors import ConfigError

    for needed in ('onnx', 'onnxruntime'):
        if find_spec(needed) is None:
            raise ConfigError(f'penguin calibrate needs {needed}, which is not installed here. Install it: '
                              'pip install "penguin_ros[export,onnx]"')
    from penguin_ros.calibration.calibrate import calibrate

    calibrate(_task(args), progress=partial(print, flush=True))
    return 0


def _task(args: argparse.Namespace) -> Task:
    """What the arguments and, where one is named, the recipe ask for."""
    from penguin_ros.backends.recipe import read_recipe
    from penguin_ros.calibration.calibrate import Task
    from penguin_ros.calibration.frames import FRAMES_FILE
    from penguin_ros.core.errors import ConfigError

    if args.model.suffix in ('.yaml', '.yml'):
        recipe = read_recipe(args.model)
        task = Task(
            checkpoint=recipe.checkpoint_folder, output=recipe.calibration_folder or _folder_for(recipe.checkpoint_folder),
            vision_weights=recipe.vision_weights, language_weights=recipe.language_weights, kept_float32=recipe.float32,
            merge=recipe.merge, max_tokens=min(Task.max_tokens, recipe.max_patches // recipe.merge**2))
    else:
        task = Task(checkpoint=args.model, output=_folder_for(args.model))
    output = Path(os.path.normpath(args.output or task.output))
    task = replace(task, output=output, source=args.frames, frames=args.count, threads=args.threads,
                   max_tokens=args.tokens or task.max_tokens)
    if args.vision:
        task = replace(task, vision_weights='' if args.vision == 'none' else args.vision)
    if args.language:
        task = replace(task, language_weights='' if args.language == 'none' else args.language)
    if task.frames < 1 or task.max_tokens < 1 or task.threads < 1:
        raise ConfigError('--count, --tokens and --threads are at least 1.')
    if task.source is None and not (task.output / FRAMES_FILE).exists():
        raise ConfigError(f'no frames are named, and {task.output / FRAMES_FILE} does not exist. Name a recording or a folder '
                          'of pictures of your cameras with --frames; which frames are good is said in calibration/README.md.')
    return task


def _folder_for(checkpoint: Path) -> Path:
    return Path('calibration') / checkpoint.resolve().name.lower()
