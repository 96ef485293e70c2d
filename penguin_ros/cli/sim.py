"""penguin sim: makes training pictures and recordings in the simulated warehouse. Knows nothing of models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_EXAMPLES = """examples:
  penguin sim dataset out/train --split train --clips 29000
  penguin sim dataset out/test --split test --clips 1200
  penguin sim record out/drive.mcap --seconds 40 --rate 5 --seed 7
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`penguin sim dataset` and `penguin sim record`."""
    parser = subparsers.add_parser(
        'sim', help='make pictures and recordings in the simulated warehouse',
        description='Renders the simulated warehouse with exact ground truth (needs MuJoCo and an OpenGL or EGL driver).',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)

    dataset = actions.add_parser(
        'dataset', help='write clips with their truth as shards of images and JSON',
        description='Writes shards images_XXX.npy and clips_XXX.json. Every sixth clip has 3 to 6 frames, the others one. '
                    'Run again to go on after an interruption: complete shards are kept.')
    dataset.add_argument('folder', type=Path, metavar='OUT', help='folder to write to')
    dataset.add_argument('--split', default='train', help='name hashed into every seed: splits never share a world '
                                                          '(default: %(default)s)')
    dataset.add_argument('--clips', type=_positive, default=1200, help='clips to write (default: %(default)s)')
    dataset.add_argument('--first-seed', type=int, default=0, help='seed of the first clip (default: %(default)s)')
    dataset.add_argument('--processes', type=_positive, default=1, help='shards rendered at the same time '
                                                                        '(default: %(default)s)')

    record = actions.add_parser(
        'record', help='write a drive through the warehouse as an .mcap file',
        description='Records images, camera info and ground truth of a drive in which things come, go and move.')
    record.add_argument('path', type=Path, metavar='OUT.mcap', help='file to write; it must not exist')
    record.add_argument('--seconds', type=_positive_float, default=36.0, help='length (default: %(default)s)')
    record.add_argument('--rate', type=_positive_float, default=5.0, help='images per second (default: %(default)s)')
    record.add_argument('--seed', type=int, default=0, help='which drive (default: %(default)s)')
    record.add_argument('--split', default='demo', help='name hashed into the seed (default: %(default)s)')
    record.add_argument('--raw', action='store_true', help='sensor_msgs/Image instead of JPEG in CompressedImage')
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is less than 1')
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f'{value} is not above 0')
    return value


def run(args: argparse.Namespace) -> int:
    return _dataset(args) if args.action == 'dataset' else _record(args)


def _show_progress(done: int, total: int, frames_per_s: float) -> None:
    left_s = (total - done) / max(frames_per_s, 1e-6)
    end = '\n' if done >= total or not sys.stderr.isatty() else '\r'
    print(f'{done}/{total} frames, {frames_per_s:.1f} frames/s, {left_s / 60:.1f} min left   ', end=end, file=sys.stderr,
          flush=True)


def _dataset(args: argparse.Namespace) -> int:
    from penguin_ros.sim.dataset import generate_dataset
    frames = generate_dataset(args.folder, args.split, args.clips, first_seed=args.first_seed, processes=args.processes,
                              progress=_show_progress)
    print(f'{args.folder}: {args.clips} clips of split {args.split}, {frames} frames rendered now')
    return 0


def _record(args: argparse.Namespace) -> int:
    from penguin_ros.sim.recording import record_drive

    def show(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            end = '\n' if done == total or not sys.stderr.isatty() else '\r'
            print(f'{done}/{total} images', end=end, file=sys.stderr, flush=True)

    count = record_drive(args.path, seconds=args.seconds, rate_hz=args.rate, seed=args.seed, split=args.split,
                         compressed=not args.raw, progress=show)
    print(f'{args.path}: {count} images, {args.path.stat().st_size / 1e6:.1f} MB')
    return 0
