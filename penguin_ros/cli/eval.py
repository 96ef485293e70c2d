"""penguin eval: how well an engine sees the simulated world, on held-out scenes. Knows nothing of how scores are made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_EXAMPLES = """examples:
  penguin eval nano
  penguin eval engines/nano --scenes 200 --json out/scores.json
  penguin eval nano --grid 8x11 --captions-only
"""
_CLIPS_PER_PICTURE = 6 / 5      # every sixth clip of a split is a short video


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'eval', help='score an engine on held-out simulated scenes',
        description='Ask an engine about scenes it was not trained on, through the same stream and decoder the node uses, and '
                    'score its captions, boxes and answers with 95 % intervals. Scenes that are not there yet are rendered '
                    '(needs MuJoCo); they come from fixed seeds, so anyone gets the same.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('engine', help='a folder with a built engine, or the name of a shipped one')
    parser.add_argument('--scenes', type=int, default=1000, help='pictures to ask about (default: %(default)s)')
    parser.add_argument('--data', type=Path, default=Path('out/nano-data'), metavar='DIR',
                        help='folder whose test/ holds the scenes, or gets them (default: %(default)s)')
    parser.add_argument('--grid', type=_grid, default=(6, 8), metavar='ROWSxCOLUMNS',
                        help='visual tokens of one picture (default: 6x8)')
    parser.add_argument('--captions-only', action='store_true', help='leave the questions out')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the scores there, and as .md beside it')
    parser.set_defaults(run=run)


def _grid(text: str) -> tuple[int, int]:
    try:
        rows, columns = (int(part) for part in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not ROWSxCOLUMNS, such as 6x8') from None
    if rows < 1 or columns < 1:
        raise argparse.ArgumentTypeError(f'{text!r} has no tokens')
    return rows, columns


def run(args: argparse.Namespace) -> int:
    import json
    import logging

    from penguin_ros.assemble import load_engines
    from penguin_ros.core.config import PenguinConfig
    from penguin_ros.core.errors import ConfigError
    from penguin_ros.training.dataset import open_split
    from penguin_ros.training.evaluation import evaluate, markdown_table

    if args.scenes < 1:
        raise ConfigError(f'--scenes is {args.scenes}; at least one scene is needed.')
    engines = load_engines(PenguinConfig(engine=args.engine, threads=args.threads), logging.getLogger('penguin'))
    folder = args.data / 'test'
    _render_missing(folder, args.scenes)
    split = open_split(folder)
    pictures = sum(len(clip.frames) == 1 for clip in split.clips)
    if pictures < args.scenes:
        raise ConfigError(f'{folder} holds {pictures} single pictures, --scenes asks for {args.scenes}. Lower --scenes, or '
                          'give --data a folder that does not exist yet, to have them rendered.')
    result = evaluate(engines, split, scenes=args.scenes, token_grid=args.grid,
                      captions_only=args.captions_only, progress=_show_progress)
    print(markdown_table(result), end='')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
        args.json.with_suffix('.md').write_text(markdown_table(result), encoding='utf-8')
    return 0


def _render_missing(folder: Path, scenes: int) -> None:
    """Held-out scenes by seed. Shards that are complete are used as they are."""
    if any(folder.glob('clips_*.json')):
        return
    from penguin_ros.sim.dataset import generate_dataset

    clips = -(-int(scenes * _CLIPS_PER_PICTURE) // 6) * 6
    print(f'rendering {clips} clips into {folder}', file=sys.stderr)
    generate_dataset(folder, 'test', clips, progress=lambda done, total, rate: _show_progress(done, total))


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total or done % 100 == 0:
        print(f'{done}/{total}', end='\n' if done == total or not sys.stderr.isatty() else '\r', file=sys.stderr, flush=True)
