"""penguin train: the nano model from nothing to weights. Knows nothing of how a step works."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from penguin_ros.training.nano import NanoRun

_EXAMPLES = """examples:
  penguin train nano                          render the scenes if they are missing, then train: six runs, about five hours
  penguin train nano --at-once --out out/once    one run of 2.3 hours, nearly as good (engines/nano/README.md)
  penguin train nano --by-steps               as many steps as the shipped weights took, on any machine
  penguin train nano --resume                 go on where an interrupted run stopped
  penguin train nano --from engines/nano --runs fifth sixth --out out/more    go on from trained weights with these two
  penguin train nano --fast --out out/fast    a small model, four minutes in all: does it learn at all?
  penguin train nano --teacher engines/nano   the encoder begins by learning to give the features of a trained one
"""
_CLIPS = {'train': 24_000, 'train-video': 3_000, 'valid': 600, 'valid-video': 60}
_FAST_CLIPS = {'train': 900, 'valid': 60}
_GROWN_LAYERS = 6       # of the decoder from the third run on; 4 before
_MOST_PROCESSES = 4     # a share of fewer than six rows is mostly overhead
_FEWER = 0.8            # of the pictures that the run of known scores saw: below, a run is told to take longer ...
_PACE_SPAN = (0.2, 0.3)     # ... by its pace between these shares of it, where every kind of batch takes part


class _Course(NamedTuple):
    """How long a run is, in hours of two cores with AVX-512, and what the run of engines/nano/README.md came to in them."""

    hours: float
    steps: int
    pictures: int
    purpose: str


_RUNS = {
    'first': _Course(0.65, 6_690, 164_077, 'begins with random weights'),
    'second': _Course(0.2, 1_685, 50_649, 'goes on with more videos and questions'),
    'third': _Course(0.6, 4_990, 151_703, f'has a decoder that has grown to {_GROWN_LAYERS} layers and learns to remember'),
    'fourth': _Course(1.5, 8_707, 383_178, 'shows the decoder where answers can be read off'),
    'fifth': _Course(0.85, 4_677, 212_304, 'asks more about what changed and about the path'),
    'sixth': _Course(1.1, 6_250, 261_648, 'asks for heights and distances, which the path is told by'),
}
_AT_ONCE = _Course(2.3, 19_897, 556_440, 'asks from its first step for what the six ask for one after the other')
_FAST = _Course(0.05, 300, 0, 'a small model, a few minutes on few scenes, to see that it learns')

# glibc gives the memory of a step back to the system and faults it in again for the next: up to ten times slower.
# Threads that spin while they wait do the same on a machine that runs anything else.
_ENVIRONMENT = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '8000000000', 'MALLOC_TOP_PAD_': '268435456',
                'OMP_WAIT_POLICY': 'passive'}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'train', help='train the nano model',
        description='Train the nano model from random weights on the simulated warehouse, with full chat template, mixed frame '
                    'sizes and short videos. Writes log, curves, a state to resume from and the model in the layout of a '
                    'public checkpoint. Runs on a CPU, or on a CUDA GPU where torch finds one. Hours are those of two '
                    'cores with AVX-512, which multiply in bfloat16; a slower machine is told what would mend it.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', choices=['nano'], help='which model')
    parser.add_argument('--hours', type=float, default=None,
                        help=f'training time of all runs together (default: {sum(one.hours for one in _RUNS.values()):.1f}, '
                             f'less without some of them, with --at-once {_AT_ONCE.hours}, with --fast {_FAST.hours})')
    parser.add_argument('--by-steps', action='store_true',
                        help=f'as many steps as the weights of known scores took, with --fast {_FAST.steps}, instead of hours: '
                             'any machine learns as much, however long it takes')
    parser.add_argument('--runs', nargs='+', choices=list(_RUNS), metavar='NAME',
                        help='which of the six runs: '
                             + '; '.join(f'the {name} {one.purpose} ({one.hours} h)' for name, one in _RUNS.items())
                             + ' (default: all, with --from all but the first)')
    parser.add_argument('--fast', action='store_true', help=_FAST.purpose)
    parser.add_argument('--at-once', action='store_true', help=f'one run that {_AT_ONCE.purpose}')
    parser.add_argument('--resume', action='store_true', help='go on from state.pt in the output folder')
    parser.add_argument('--from', type=Path, metavar='DIR', dest='start_from',
                        help='go on from the weights of this trained nano model')
    parser.add_argument('--seed', type=int, default=7, help='of weights and data order (default: %(default)s)')
    parser.add_argument('--data', type=Path, default=Path('out/nano-data'), metavar='DIR',
                        help='folder with train/ and valid/; rendered there when missing (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('out/nano'), metavar='DIR',
                        help='folder for what comes out (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=None, metavar='N',
                        help='processes of one thread each that share every batch: faster than one of many threads; 1 with '
                             f'--fast, --threads or a GPU (default: one for each core, at most {_MOST_PROCESSES})')
    parser.add_argument('--threads', type=int, default=None, help='CPU threads of a single process (default: all)')
    parser.add_argument('--llm-start', type=int, default=0, metavar='STEPS',
                        help='start the encoder from a text model trained for so many steps (default: random weights)')
    parser.add_argument('--teacher', type=Path, metavar='DIR',
                        help='checkpoint (a whole model or an encoder) whose features the encoder learns to give at first')
    parser.add_argument('--warm-up-steps', type=int, default=1500, metavar='STEPS',
                        help='for how many steps, with --teacher (default: %(default)s)')
    parser.add_argument('--no-relation-loss', action='store_true',
                        help='of the three losses against the teacher, leave out the one between tokens')
    parser.add_argument('--coordinates', choices=['tokens', 'digits'], default='tokens',
                        help='how boxes are written: one token or three digits per coordinate (default: %(default)s)')
    parser.add_argument('--optimizer', choices=['muon', 'adamw'], default='muon',
                        help='for the matrices inside the network (default: %(default)s)')
    parser.add_argument('--no-compile', action='store_true', help='do not compile the layers (slower, but starts at once)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settle_environment()
    import torch

    from penguin_ros.training.curriculum import (
        Curriculum,
        at_once,
        going_deeper,
        going_on,
        looking_back,
        looking_closer,
        measuring,
        small_curriculum,
    )
    from penguin_ros.training.curves import draw_curves
    from penguin_ros.training.nano import NanoRun, decoder_layers_of, train_nano
    from penguin_ros.training.network import SMALL_TOWER, TowerShape
    from penguin_ros.training.teacher import WarmUp

    courses = _courses(args)
    tower = SMALL_TOWER if args.fast else TowerShape()
    layers = decoder_layers_of(args.start_from) if args.start_from else tower.layers      # refused before anything is rendered
    if args.threads:
        torch.set_num_threads(args.threads)
    render_missing(args.data, _FAST_CLIPS if args.fast else _CLIPS)
    warm_up = WarmUp(teacher=args.teacher, steps=args.warm_up_steps,
                     relation=not args.no_relation_loss) if args.teacher else None
    curricula = {
        'first': Curriculum(), 'second': going_on(), 'third': going_deeper(), 'fourth': looking_back(),
        'fifth': looking_closer(), 'sixth': measuring(), 'at once': at_once(), 'fast': small_curriculum()}
    plain = NanoRun(
        data=args.data, out=args.out, tower=tower, coordinates=args.coordinates, muon=args.optimizer == 'muon',
        processes=args.processes or (1 if args.fast or args.threads or torch.cuda.is_available() else _processes()),
        look_every_s=60.0 if args.fast else 480.0, compile_blocks=not (args.no_compile or args.fast))
    longer = args.hours / sum(course.hours for course in courses.values()) if args.hours else 1.0
    logs: list[Path] = []
    start_from = args.start_from
    for name, course in courses.items():
        if name not in ('first', 'second', 'fast'):
            layers = max(layers, _GROWN_LAYERS)
        out = args.out if name == list(courses)[-1] else args.out / name
        one = replace(
            plain, out=out, start_from=start_from, minutes=60 * course.hours * longer,
            max_steps=course.steps if args.by_steps else None, curriculum=curricula[name], decoder_layers=layers,
            seed=args.seed + (list(_RUNS).index(name) if name in _RUNS else 0))
        if start_from is None:
            one = replace(one, llm_start_steps=args.llm_start, warm_up=warm_up)
        span = f'{one.max_steps} steps' if one.max_steps else f'{one.minutes:.0f} minutes'
        print(f'training for {span}, from {start_from or "nothing"}')
        train_nano(one, resume=args.resume, report=_Lines(one, course))
        logs.append(out / 'log.jsonl')
        draw_curves(logs, out / 'curves.png')
        start_from = out
    print(f'the model is in {args.out}; next: a recipe whose checkpoint is that folder, then penguin build and penguin eval')
    return 0


def _courses(args: argparse.Namespace) -> dict[str, _Course]:
    """The runs to make, in their order; raises ConfigError where the options do not go together."""
    from penguin_ros.core.errors import ConfigError

    if args.fast + args.at_once + bool(args.start_from or args.runs) > 1:
        raise ConfigError('--fast trains a small model on single pictures, --at-once the whole one on everything, both from '
                          'random weights; --from and --runs are for the six runs. Give one or the other.')
    if args.start_from and (args.teacher or args.llm_start):
        raise ConfigError('--teacher and --llm-start are for an encoder that begins with random weights; with --from it does '
                          'not. Give one or the other.')
    if args.hours is not None and (args.by_steps or args.hours <= 0):
        raise ConfigError('--hours is more than 0, and --by-steps takes its place. Give one or the other.')
    if args.fast or args.at_once:
        return {'fast': _FAST} if args.fast else {'at once': _AT_ONCE}
    courses = {name: one for name, one in _RUNS.items()
               if name in (args.runs or list(_RUNS)[1 if args.start_from else 0:])}
    if ('first' in courses) == bool(args.start_from):
        raise ConfigError('the first run begins with random weights, the others with those of a trained model. '
                          'Name the first in --runs or give --from, one or the other.')
    return courses


def _processes() -> int:
    return min(os.cpu_count() or 1, _MOST_PROCESSES)


def settle_environment() -> None:
    """Start again with the memory and thread settings that glibc and OpenMP read only at the start of a process."""
    missing = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    if missing and sys.argv[0]:
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, '-m', 'penguin_ros', *sys.argv[1:]])


def render_missing(data: Path, clips_of: dict[str, int]) -> None:
    """Render so many clips of each split whose folder holds none yet, or was left before it held them all."""
    from penguin_ros.sim.dataset import generate_dataset

    for split, clips in clips_of.items():
        folder = data / split
        finished = [len(json.loads(path.read_text())) for path in folder.glob('clips_*.json')]
        ours = (folder / 'dataset.json').exists()
        if not finished or (ours and sum(finished) < clips):
            print(f'rendering {clips} clips into {folder}', file=sys.stderr)
            generate_dataset(folder, split, clips, progress=_show_rendering)


def _show_rendering(done: int, total: int, frames_per_s: float) -> None:
    if done == total or done % 200 == 0:
        print(f'{done}/{total} frames, {frames_per_s:.0f} frames/s', file=sys.stderr, flush=True)


class _Lines:
    """Prints a run's lines, and once, where it will see far fewer pictures than the run of known scores, what would mend it."""

    def __init__(self, run: NanoRun, course: _Course) -> None:
        self._run_s, self._pictures = 60 * run.minutes, course.pictures
        self._span_begins: dict[str, Any] | None = None
        self._has_told = bool(run.max_steps) or not course.pictures

    def __call__(self, line: dict[str, Any]) -> None:
        if 'step' not in line:
            return
        _show(line)
        share = line['trained_s'] / self._run_s
        if self._span_begins is None:
            # A run that goes on later than that is not measured: it was told before.
            self._has_told |= share > _PACE_SPAN[1]
            self._span_begins = line if share >= _PACE_SPAN[0] else None
        elif not self._has_told and share >= _PACE_SPAN[1]:
            self._has_told = True
            begins = self._span_begins
            per_s = (line['images'] - begins['images']) / (line['trained_s'] - begins['trained_s'])
            coming = line['images'] + per_s * (self._run_s - line['trained_s'])
            if coming < _FEWER * self._pictures:
                print(f'at {per_s:.0f} pictures a second this run will see about {coming:,.0f}; the one whose scores are in '
                      f'engines/nano/README.md saw {self._pictures:,}. For as many: stop it and go on with --resume '
                      f'--by-steps, which takes this machine {self._pictures / coming:.1f} times as long', flush=True)


def _show(line: dict[str, Any]) -> None:
    text = (f'{line["trained_s"] / 60:6.1f} min  step {line["step"]:6d}  {line["images_per_s"]:6.1f} images/s  '
            f'answer {line["answer_loss"]:.3f}  dense {line["dense_loss"]:.3f}')
    if line['memory_loss']:
        text += f'  memory {line["memory_loss"]:.3f}'
    if line['pointer_loss']:
        text += f'  pointer {line["pointer_loss"]:.3f}'
    valid = line.get('valid')
    if valid:
        text += f'  F1 {valid["f1"]:.3f}  IoU {valid["iou"]:.3f}  colour {valid["colour"]:.2f}'
    print(text, flush=True)
