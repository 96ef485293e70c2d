"""penguin train: the nano model from nothing to weights. Knows nothing of how a step works."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  penguin train nano                          render the scenes if they are missing, then train: six runs, about five hours
  penguin train nano --at-once --out out/once    one run of 2.3 hours, nearly as good (engines/nano/README.md)
  penguin train nano --resume                 go on where an interrupted run stopped
  penguin train nano --from engines/nano --out out/more    go on from trained weights: without the first of the runs
  penguin train nano --fast --out out/fast    a small model, four minutes in all: does it learn at all?
  penguin train nano --teacher engines/nano   the encoder begins by learning to give the features of a trained one
"""
_CLIPS = {'train': 24_000, 'train-video': 3_000, 'valid': 600, 'valid-video': 60}
_GROWN_LAYERS = 6       # of the decoder from the third run on; 4 before
_FIRST_HOURS = 0.65
# The runs behind the first: how long, and for what.
_LATER_RUNS = {
    'second': (0.2, 'goes on from the first with more videos and questions'),
    'third': (0.6, f'begins with a decoder that has grown to {_GROWN_LAYERS} layers and learns to remember'),
    'fourth': (1.5, 'shows the decoder where answers can be read off'),
    'fifth': (0.85, 'asks more about what changed and about the path'),
    'sixth': (1.1, 'asks for heights and distances, which the path is told by'),
}
_FAST_HOURS = 0.05
_AT_ONCE_HOURS = 2.3
# What the runs of engines/nano/README.md saw. Hours are of two cores with AVX-512; others see fewer pictures in them.
_PICTURES = {'first': 164_077, 'second': 50_649, 'third': 151_703, 'fourth': 383_178, 'fifth': 212_304, 'sixth': 261_648}
_AT_ONCE_PICTURES = 556_440
_FEWER = 0.8            # of those pictures: below, a run is told to take longer ...
_PACE_SPAN = (0.2, 0.3)     # ... by its pace between these shares of it, where every kind of batch takes part
_MOST_PROCESSES = 4     # a share of fewer than six rows is mostly overhead
_FAST_CLIPS = {'train': 900, 'valid': 60}

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
                    'cores with AVX-512, which multiply in bfloat16; a slower machine is told how many it needs.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', choices=['nano'], help='which model')
    parser.add_argument('--hours', type=float, default=None,
                        help=f'training time of the first run (default: {_FIRST_HOURS}, with --at-once '
                             f'{_AT_ONCE_HOURS}, with --fast {_FAST_HOURS})')
    for name, (hours, purpose) in _LATER_RUNS.items():
        parser.add_argument(f'--{name}-hours', type=float, default=hours, metavar='HOURS',
                            help=f'of the {name} run, which {purpose}; 0: none (default: %(default)s; none with --fast '
                                 'or --at-once)')
    parser.add_argument('--fast', action='store_true', help='a small model, a few minutes on few scenes, to see that it learns')
    parser.add_argument('--at-once', action='store_true',
                        help='one run that asks from its first step for what the six ask for one after the other')
    parser.add_argument('--steps', type=int, default=None, metavar='N',
                        help='with --fast or --at-once: so many steps, however long a machine takes for them, instead of hours')
    parser.add_argument('--resume', action='store_true', help='go on from state.pt in the output folder')
    parser.add_argument('--from', type=Path, metavar='DIR', dest='start_from',
                        help='leave the first run out: go on from the weights of this trained nano model')
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

    from penguin_ros.core.errors import ConfigError
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

    later_hours = {name: getattr(args, f'{name}_hours') for name in _LATER_RUNS}
    if args.start_from and (args.fast or args.at_once or not any(later_hours.values())):
        raise ConfigError('--from leaves the first run out; --fast, --at-once or 0 hours for each of the others those. '
                          'Give one or the other.')
    if args.fast and args.at_once:
        raise ConfigError('--fast trains a small model on single pictures, --at-once the whole one on everything. '
                          'Give one or the other.')
    if args.steps is not None and (args.steps < 1 or args.hours or not (args.fast or args.at_once)):
        raise ConfigError('--steps is a number from 1 for --fast or --at-once, and takes the place of --hours.')
    tower = SMALL_TOWER if args.fast else TowerShape()
    layers = decoder_layers_of(args.start_from) if args.start_from else tower.layers      # refused before anything is rendered
    if args.threads:
        torch.set_num_threads(args.threads)
    render_missing(args.data, _FAST_CLIPS if args.fast else _CLIPS)
    warm_up = WarmUp(teacher=args.teacher, steps=args.warm_up_steps,
                     relation=not args.no_relation_loss) if args.teacher else None
    hours, course = (_FAST_HOURS, small_curriculum()) if args.fast else (_FIRST_HOURS, Curriculum())
    if args.at_once:
        hours, course = _AT_ONCE_HOURS, at_once()
    first = NanoRun(
        data=args.data, out=args.out, seed=args.seed, minutes=60 * (args.hours or hours), curriculum=course, tower=tower,
        max_steps=args.steps, decoder_layers=_GROWN_LAYERS if args.at_once else None,
        processes=args.processes or (1 if args.fast or args.threads or torch.cuda.is_available() else _processes()),
        look_every_s=60.0 if args.fast else 480.0, compile_blocks=not (args.no_compile or args.fast),
        llm_start_steps=args.llm_start, warm_up=warm_up, coordinates=args.coordinates, muon=args.optimizer == 'muon')
    runs = {} if args.start_from else {'first': first}
    courses = {'second': going_on(), 'third': going_deeper(), 'fourth': looking_back(), 'fifth': looking_closer(),
               'sixth': measuring()}
    for number, (name, course) in enumerate(courses.items(), start=1):
        hours, layers = later_hours[name], layers if name == 'second' else max(layers, _GROWN_LAYERS)
        if hours and not (args.fast or args.at_once):
            runs[name] = replace(first, llm_start_steps=0, warm_up=None, minutes=60 * hours, seed=args.seed + number,
                                 curriculum=course, decoder_layers=layers)
    logs: list[Path] = []
    start_from = args.start_from
    for name, one in runs.items():
        one = replace(one, start_from=start_from, out=one.out if name == list(runs)[-1] else one.out / name)
        start_from = one.out
        span = f'{one.max_steps} steps' if one.max_steps else f'{one.minutes:.0f} minutes'
        print(f'training for {span}, {"from " + str(one.start_from) if one.start_from else "from nothing"}')
        pictures = 0 if args.fast or args.steps else _AT_ONCE_PICTURES if args.at_once else _PICTURES[name]
        option = '--hours' if name == 'first' else f'--{name}-hours'
        train_nano(one, resume=args.resume, report=_Lines(one.minutes, pictures, option))
        logs.append(one.out / 'log.jsonl')
        draw_curves(logs, one.out / 'curves.png')
    print(f'the model is in {args.out}; next: a recipe whose checkpoint is that folder, then penguin build and penguin eval')
    return 0


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
    """Prints a run's lines, and once whether it will see about as many ``pictures`` as the run of known scores; 0: never."""

    def __init__(self, minutes: float, pictures: int, option: str) -> None:
        self._minutes, self._pictures, self._option = minutes, pictures, option
        self._span_begins: dict[str, Any] | None = None
        self._has_told = not pictures

    def __call__(self, line: dict[str, Any]) -> None:
        if 'step' not in line:
            return
        _show(line)
        share = line['trained_s'] / (60 * self._minutes)
        if self._span_begins is None:
            # A run that goes on later than that is not measured: it was told before.
            self._has_told |= share > _PACE_SPAN[1]
            self._span_begins = line if share >= _PACE_SPAN[0] else None
        elif not self._has_told and share >= _PACE_SPAN[1]:
            self._has_told = True
            begins = self._span_begins
            per_s = (line['images'] - begins['images']) / (line['trained_s'] - begins['trained_s'])
            coming = line['images'] + per_s * (60 * self._minutes - line['trained_s'])
            if coming < _FEWER * self._pictures:
                hours = self._minutes / 60 * self._pictures / coming
                print(f'at {per_s:.0f} pictures a second this run will see about {coming:,.0f}; the one whose scores are in '
                      f'engines/nano/README.md saw {self._pictures:,}. For as many: {self._option} {hours:.1f}', flush=True)


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
