"""penguin ablate: what each part of the training recipe is worth. Knows nothing of how a run is made or compared."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

_EXAMPLES = """examples:
  penguin ablate                                          about an hour on one core; go on later with the same command
  penguin ablate --only base,no-dense --seeds 5           two variants, more seeds
  penguin ablate --teacher out/nano --out out/ablations-2
"""
_CLIPS = {'train': 12_000, 'valid': 600, 'test': 1200}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'ablate', help='measure what each part of the training recipe is worth',
        description='Train a small model with the recipe and with one part of it changed at a time, several seeds each and all '
                    'equally long, score all on held-out scenes and compare them in pairs by seed. Writes results.json, '
                    'results.md, curves.png and a file for each finished run, which is not made again.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', metavar='NAMES', help='variants to run, with commas between (default: all)')
    parser.add_argument('--seeds', type=int, default=3, help='how many (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=600, help='of every run (default: %(default)s)')
    parser.add_argument('--scenes', type=int, default=400, help='held-out pictures to score (default: %(default)s)')
    parser.add_argument('--teacher', type=Path, metavar='DIR',
                        help='checkpoint the encoder warms up on in some variants (default: the shipped nano model)')
    parser.add_argument('--data', type=Path, default=Path('out/nano-data'), metavar='DIR',
                        help='folder with train/, valid/ and test/; rendered there when missing (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('out/ablations'), metavar='DIR',
                        help='folder for what comes out (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: %(default)s)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from penguin_ros.cli.train import render_missing, settle_environment

    settle_environment()
    import torch

    from penguin_ros.shipped import shipped
    from penguin_ros.training.ablations import BASE, COMPARED, VARIANTS, Study, run_study
    from penguin_ros.training.comparison import compare, draw_comparison, markdown_tables

    torch.set_num_threads(args.threads)
    render_missing(args.data, _CLIPS)
    study = Study(data=args.data, out=args.out, teacher=args.teacher or shipped('engines/nano'), steps=args.steps,
                  seeds=tuple(range(1, args.seeds + 1)), looks=min(6, args.steps), scenes=args.scenes)
    variants = args.only.split(',') if args.only else list(VARIANTS)
    runs = run_study(study, variants, _Progress(len(variants) * args.seeds).show)
    summary = compare(runs, what=VARIANTS, pairs=COMPARED)
    tables = markdown_tables(summary)
    (args.out / 'results.json').write_text(json.dumps({**summary, 'runs': runs}, indent=1) + '\n', encoding='utf-8')
    (args.out / 'results.md').write_text(tables, encoding='utf-8')
    draw_comparison(runs, args.out / 'curves.png', base=BASE)
    print(tables, end='')
    return 0


class _Progress:
    """One line per look, with how far the whole set is."""

    def __init__(self, runs: int) -> None:
        self._runs, self._begun_s = runs, time.monotonic()
        self._seen: list[tuple[str, int]] = []

    def show(self, variant: str, seed: int, step: int, figures: dict[str, float]) -> None:
        if (variant, seed) not in self._seen:
            self._seen.append((variant, seed))
        shown = '  '.join(f'{name} {value:.3f}' for name, value in figures.items())
        minutes = (time.monotonic() - self._begun_s) / 60
        print(f'{minutes:6.1f} min  run {len(self._seen)} of at most {self._runs}: {variant} seed {seed} step {step}  {shown}',
              file=sys.stderr, flush=True)
