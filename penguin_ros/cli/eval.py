"""penguin eval: how well engines see the simulated world, on held-out scenes. Knows nothing of how scores are made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penguin_ros.core.perception import Engines
    from penguin_ros.training.dataset import Split
    from penguin_ros.training.evaluation import Scenes

_EXAMPLES = """examples:
  penguin eval nano                                             every skill, a few minutes on one core
  penguin eval nano --scenes 200 --clips 60 --json out/scores.json
  penguin eval nano --grid 4x5 --grid 6x8 --grid 8x11           by budget: side by side, with a plot
  penguin eval nano engines/nano-int8-int4                      by precision: the same scenes through each engine
  penguin eval nano --backend onnx --backend torch              by backend
  penguin eval nano --fit-confidence                            fit what confidences mean on `valid`, then score on `test`
  penguin eval nano --streams --json out/streams.json           what visual tokens buy, policy by policy, about ten minutes

With --json FILE.json the tables go to FILE.md and the plots (needs matplotlib) to FILE.png, FILE_reliability.png and so on.
"""
_CLIPS_PER_PICTURE = 6 / 5              # every sixth clip of a split is a short video, the others are pictures
_FIT_PICTURES, _FIT_CLIPS = 500, 60     # of the splits valid and valid-video
_STREAM_CLIPS = 60
_BUDGETS = (96, 192, 384, 768)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        'eval', help='score engines on held-out simulated scenes',
        description='Ask engines about scenes they were not trained on, through the same stream and decoder the node uses, and '
                    'score captions, boxes, answers and confidences with 95 % intervals. Several engines, grids and backends '
                    'are compared, each with each. Scenes that are not there yet are rendered (needs MuJoCo); they come from '
                    'fixed seeds, so anyone gets the same.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('engines', nargs='+', metavar='ENGINE',
                        help='a folder with a built engine, or the name of a shipped one')
    parser.add_argument('--scenes', type=int, default=1000, help='pictures to ask about (default: %(default)s)')
    parser.add_argument('--clips', type=int, default=None,
                        help=f'short drives of 6 to 12 images to ask about (default: 300, with --streams {_STREAM_CLIPS})')
    parser.add_argument('--data', type=Path, default=Path('out/nano-data'), metavar='DIR',
                        help='folder whose test/ and test-video/ hold the scenes, or get them (default: %(default)s)')
    parser.add_argument('--grid', type=_grid, action='append', dest='grids', metavar='ROWSxCOLUMNS',
                        help='visual tokens of one picture; may be given again (default: 6x8)')
    parser.add_argument('--backend', action='append', dest='backends', choices=('auto', 'onnx', 'torch', 'tensorrt'),
                        help='what runs the engines; may be given again (default: what each was built for)')
    parser.add_argument('--captions-only', action='store_true', help='leave the questions out')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, tables and plots beside it')
    parser.add_argument('--fit-confidence', action='store_true',
                        help='first fit what confidences mean on the splits valid and valid-video, and keep it beside the '
                             'engine (confidence.json); its manifest, and so its hash, change')
    parser.add_argument('--streams', action='store_true',
                        help='instead: F1 and answers about time against the visual tokens a minute, for all frames in full, '
                             'the published TRA and ours')
    parser.add_argument('--budget', type=int, action='append', dest='budgets', metavar='TOKENS',
                        help='with --streams: visual tokens of the window; may be given again '
                             f'(default: {", ".join(map(str, _BUDGETS))})')
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
    from penguin_ros.training.evaluation import evaluate
    from penguin_ros.training.score_report import run_name

    _check(args)
    if args.streams:
        return _run_streams(args)
    scenes = _scenes(args, 'test', args.scenes, 300 if args.clips is None else args.clips)
    if args.fit_confidence:
        _fit_confidence(args)
    runs = []
    for about, engines in _each_engine(args):
        for grid in args.grids or [(6, 8)]:
            label = run_name({**about, 'token_grid': f'{grid[0]}x{grid[1]}'})
            found = evaluate(engines, scenes, token_grid=grid, captions_only=args.captions_only, progress=_progress(label))
            runs.append({**about, **found})
    _give_out(args, runs[0] if len(runs) == 1 else {'runs': runs}, runs, None)
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be known to be wrong before scenes are rendered, which takes minutes."""
    from penguin_ros.assemble import engine_folder
    from penguin_ros.core.errors import ConfigError

    for name in args.engines:
        engine_folder(name)
    if args.scenes < 1 and not args.streams:
        raise ConfigError(f'--scenes is {args.scenes}; at least one scene is needed.')
    if args.clips is not None and args.clips < (1 if args.streams else 0):
        raise ConfigError(f'--clips is {args.clips}; give 0 or more, with --streams 1 or more.')
    if any(budget < 1 for budget in args.budgets or ()):
        raise ConfigError('--budget wants a number of visual tokens, 1 or more.')
    for option, given in (('--streams', args.streams), ('--fit-confidence', args.fit_confidence)):
        if given and (len(args.engines) > 1 or len(args.backends or ()) > 1):
            raise ConfigError(f'{option} works on one engine and one backend. Run it for each.')
    if args.fit_confidence and (args.streams or args.captions_only):
        raise ConfigError('--fit-confidence needs captions and answers. Leave --streams and --captions-only out.')


def _each_engine(args: argparse.Namespace) -> Iterator[tuple[dict[str, str], Engines]]:
    """Engine by engine and backend by backend: what to call it, and itself, loaded."""
    import logging

    from penguin_ros.assemble import engine_folder, load_engines
    from penguin_ros.backends.manifest import read_manifest
    from penguin_ros.core.config import PenguinConfig

    shorts = [Path(name).name for name in args.engines]
    for name, short in zip(args.engines, shorts):
        manifest = read_manifest(engine_folder(name))
        rounded = [manifest.options[kind] for kind in ('vision_weights', 'language_weights') if kind in manifest.options]
        about = {'name': short if shorts.count(short) == 1 else name, 'precision': '+'.join([manifest.precision, *rounded])}
        for backend in args.backends or ['auto']:
            engines = load_engines(PenguinConfig(engine=name, backend=backend, threads=args.threads),
                                   logging.getLogger('penguin'))
            try:
                yield {**about, 'backend': manifest.backend if backend == 'auto' else backend}, engines
            finally:
                engines.close()


# -- confidence --------------------------------------------------------------------------------------------------------

def _fit_confidence(args: argparse.Namespace) -> None:
    """Fit the scales on scenes that neither training nor scoring sees, and put them into the engine's folder."""
    from dataclasses import replace

    from penguin_ros.assemble import engine_folder
    from penguin_ros.backends.manifest import hash_files, read_manifest, write_manifest, write_whole
    from penguin_ros.core.confidence import CONFIDENCE_FILE, confidence_text
    from penguin_ros.core.errors import ConfigError
    from penguin_ros.training.evaluation import examine
    from penguin_ros.training.reliability import Statements, fit_scale

    scenes = _scenes(args, 'valid', _FIT_PICTURES, _FIT_CLIPS)
    said = Statements()
    for about, engines in _each_engine(args):
        for grid in args.grids or [(6, 8)]:
            label = f'fitting confidences of {about["name"]}, {grid[0]}x{grid[1]}'
            said.add(examine(engines, scenes, token_grid=grid, progress=_progress(label)).statements)
    folder = engine_folder(args.engines[0])
    fitted = {'pictures': len(scenes.pictures), 'clips': len(scenes.clips), 'split': 'valid',
              'token_grids': [f'{rows}x{columns}' for rows, columns in args.grids or [(6, 8)]], 'said': said.counts()}
    manifest = read_manifest(folder)
    # An engine built of other weights does not get these scales (cli/build.py).
    weights = {name: entry.sha256 for name, entry in manifest.files.items() if name.endswith('.safetensors')}
    fitted |= {'weights': weights} if weights else {}
    try:
        write_whole(folder / CONFIDENCE_FILE, confidence_text(fit_scale(said), fitted).encode())
        # What a run reads is part of the engine: without its hash in the manifest it could be changed unseen.
        write_manifest(folder, replace(manifest, files={**manifest.files, **hash_files(folder, [CONFIDENCE_FILE])}))
    except OSError as error:
        raise ConfigError(f'{folder} cannot be written to ({error}). Copy the folder, and give the copy.') from error
    print(f'{folder / CONFIDENCE_FILE}: fitted on {len(scenes.pictures)} pictures and {len(scenes.clips)} clips of valid')


# -- streams -----------------------------------------------------------------------------------------------------------

def _run_streams(args: argparse.Namespace) -> int:
    from penguin_ros.assemble import engine_folder
    from penguin_ros.bench.worth import measure_worth
    from penguin_ros.model.config import config_from_folder

    drives = _split(args.data, 'test-video', _STREAM_CLIPS if args.clips is None else args.clips)
    for about, engines in _each_engine(args):
        streams = measure_worth(
            engines, config_from_folder(engine_folder(args.engines[0])), drives, budgets=args.budgets or _BUDGETS,
            clips=_STREAM_CLIPS if args.clips is None else args.clips,
            progress=lambda label, done, total: _progress(label)(done, total))
        _give_out(args, {**about, 'model': engines.model_name, 'engine': engines.engine_id, 'streams': streams}, [], streams)
    return 0


# -- scenes ------------------------------------------------------------------------------------------------------------

def _scenes(args: argparse.Namespace, split: str, pictures: int, clips: int) -> Scenes:
    """Pictures of a split and drives of the split of longer clips beside it."""
    from penguin_ros.core.errors import ConfigError
    from penguin_ros.training.evaluation import choose_scenes

    # Whole shards of six seeds, so that the same number of pictures always comes from the same seeds.
    singles = _split(args.data, split, -(-int(pictures * _CLIPS_PER_PICTURE) // 6) * 6)
    found = sum(len(clip.frames) == 1 for clip in singles.clips)
    if found < pictures:
        remedy = f'--scenes asks for {pictures}. Lower --scenes' if split == 'test' else f'{pictures} are needed. Remove it'
        raise ConfigError(f'{args.data / split} holds {found} single pictures, {remedy}, or give --data a folder that does not '
                          'exist yet, to have them rendered.')
    videos = _split(args.data, f'{split}-video', clips) if clips else None
    return choose_scenes(singles, videos, scenes=pictures, clips=clips)


def _split(data: Path, split: str, clips: int) -> Split:
    """Held-out clips by seed; rendered where there are none. Shards that are complete are used as they are."""
    from penguin_ros.training.dataset import open_split

    folder = data / split
    if not any(folder.glob('clips_*.json')):
        from penguin_ros.sim.dataset import generate_dataset

        label = f'rendering {clips} clips into {folder}, frames'
        generate_dataset(folder, split, clips, progress=lambda done, total, rate: _progress(label)(done, total))
    return open_split(folder)


# -- giving out --------------------------------------------------------------------------------------------------------

def _give_out(args: argparse.Namespace, content: dict[str, Any], runs: list[dict[str, Any]],
              streams: dict[str, Any] | None) -> None:
    import json

    from penguin_ros.training.score_report import markdown

    tables = markdown(runs, streams)
    print(tables, end='')
    if not args.json:
        return
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    args.json.with_suffix('.md').write_text(tables, encoding='utf-8')
    try:
        from penguin_ros.training.score_plots import plots
        made = plots(runs, streams, args.json.with_suffix(''))
    except ImportError as error:
        print(f"no plots: {error}. Install it: pip install 'penguin_ros[plot]'", file=sys.stderr)
        made = []
    print('\n'.join(['', str(args.json), str(args.json.with_suffix('.md')), *map(str, made)]))


def _progress(label: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        live = sys.stderr.isatty()
        if live or done == total or done % 100 == 0:
            print(f'{label}: {done}/{total}', end='\n' if done == total or not live else '\r', file=sys.stderr, flush=True)
    return show
