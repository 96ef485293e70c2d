"""penguin bench: what a frame costs, policies side by side in one run. Knows nothing of how anything is measured."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  penguin bench                                  everything, into out/bench/benchmarks.md
  penguin bench --minutes 2 --policy e --policy a    two policies over a shorter drive
  penguin bench --part recording --part drafts   no drive, nothing to render
  penguin bench --real-size                      steps and caption ticks at the 2B shapes, beside plain transformers
  penguin bench --real-size --part steps --layers 4    steps alone, 4 of 28 layers

Policies: a, all frames in full, the whole window again each time; b, the same of every Nth frame; c, the published TRA;
d, ours without caches; e, ours. Parts not measured are kept from the last report in OUT where settings and engine agree.
"""
_PARTS = ('recording', 'drive', 'drafts', 'forgetting', 'ageing')
_REAL_SIZE_PARTS = ('steps', 'ladder')


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'bench', help='measure what a frame costs',
        description='Shows the shipped recording and a rendered four-camera drive to five policies and measures tokens, '
                    'multiply-adds, time, memory, caption quality and missed changes. Writes OUT/benchmarks.md, and figures '
                    '(result.json) and plots (PNG) into OUT/benchmarks. The drive needs MuJoCo and is rendered once.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--engine', default='nano', help='folder of a built engine, or a shipped one (default: %(default)s)')
    parser.add_argument('--policy', action='append', choices=list('abcde'), dest='policies', metavar='LETTER',
                        help='a policy to measure, a to e; may be given again (default: all)')
    parser.add_argument('--part', action='append', choices=_PARTS + _REAL_SIZE_PARTS, dest='parts', metavar='PART',
                        help=f'what to measure: {", ".join(_PARTS)}; with --real-size {" or ".join(_REAL_SIZE_PARTS)}; may be '
                             'given again (default: all)')
    parser.add_argument('--recording', default='', help='a recording with truth (default: the shipped one)')
    parser.add_argument('--minutes', type=float, default=10.0, help='length of the drive; 0: none (default: %(default)g)')
    parser.add_argument('--ladder-minutes', type=float, help='how much of the drive every policy sees; the figures by minute '
                                                             'always use all of it (default: all)')
    parser.add_argument('--rate', type=float, default=1.0, help='images per second of each of its cameras (default: 1)')
    parser.add_argument('--frames', type=int, default=0, help="frames in a camera's window (default: the node's)")
    parser.add_argument('--window-tokens', type=int, default=0, help="token budget of a camera (default: the node's)")
    parser.add_argument('--every', type=int, default=3, help='policy b takes one frame in so many (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1,
                        help='CPU threads of an engine call; with --real-size, of PyTorch (default: %(default)s)')
    parser.add_argument('--real-size', action='store_true',
                        help='only what costs at the real 2B shapes, with random weights, on CUDA where there is one, in '
                             'bfloat16 (float32 on a CPU without AVX-512): the steps of a caption beside plain transformers, '
                             'and the ladder of policies')
    parser.add_argument('--layers', type=int, default=0, help='with --real-size: layers of each tower (default: all 28)')
    parser.add_argument('--new-tokens', type=int, default=16,
                        help="with --real-size: tokens of the ladder's captions (default: 16)")
    parser.add_argument('--repeats', type=int, default=0,
                        help='with --real-size: times a step is measured, a caption a third as often (default: 20 on CUDA, '
                             'else 3)')
    parser.add_argument('--out', type=Path, default=Path('out/bench'), help='folder for the report (default: %(default)s)')
    parser.add_argument('--cache', type=Path, default=Path('.cache/bench'), help='folder for the drive (default: %(default)s)')
    parser.add_argument('--json', action='store_true', help='print all figures as one JSON object')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, write, and say where it lies."""
    import json

    from penguin_ros.bench.session import BenchSettings, Session
    from penguin_ros.core.errors import ConfigError

    settings = BenchSettings(
        engine=args.engine, recording=args.recording, minutes=args.minutes, rate_hz=args.rate, every=args.every,
        ladder_minutes=args.minutes if args.ladder_minutes is None else args.ladder_minutes,
        policies=''.join(sorted(set(args.policies or 'abcde'))), frames=args.frames, window_tokens=args.window_tokens,
        threads=1 if args.real_size else args.threads)
    possible = _REAL_SIZE_PARTS if args.real_size else _PARTS
    if wrong := set(args.parts or ()) - set(possible):
        raise ConfigError(f'--part {", ".join(sorted(wrong))} was asked for; {"with" if args.real_size else "without"} '
                          f'--real-size there are {", ".join(possible)}.')
    session = Session(settings, args.out, args.cache, _Progress())
    command = 'penguin ' + ' '.join(sys.argv[1:])
    if args.real_size:
        result = session.measure_real_size(args.parts or possible, layers=args.layers, threads=args.threads,
                                           new_tokens=args.new_tokens, repeats=args.repeats, command=command)
    else:
        result = session.measure(args.parts or possible, command=command)
    if args.json:
        print(json.dumps(result))
    else:
        _print_verdicts(result, args.out / 'benchmarks.md')
    return 0


class _Progress:
    """One line on stderr: on a terminal kept up to date, elsewhere one line every half minute."""

    def __init__(self) -> None:
        self._said_s = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        terminal = sys.stderr.isatty()
        if done < total and now_s - self._said_s < (0.2 if terminal else 30.0):
            return
        self._said_s = now_s
        end = '\r' if terminal and done < total else '\n'
        print(f'{what}: {done}/{total}   ', end=end, file=sys.stderr, flush=True)


def _print_verdicts(result: dict[str, Any], path: Path) -> None:
    for verdict in result['verdicts']:
        mark = '    ' if verdict['needed'] == '-' else 'ok  ' if verdict['reached'] else 'MISS'
        print(f'{mark} {verdict["what"]}: {verdict["measured"]} (needed: {verdict["needed"]})')
    print(path)
