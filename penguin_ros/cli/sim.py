"""penguin sim: the simulated warehouse as training pictures, recordings and live cameras. Knows nothing of models."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

_EXAMPLES = """examples:
  penguin sim dataset out/train --split train --clips 29000
  penguin sim dataset out/test --split test --clips 1200
  penguin sim record out/drive.mcap --seconds 40 --rate 5 --seed 7
  penguin sim record out/around.mcap --cameras front,left,right,rear --seconds 60 --rate 2
  penguin sim live                                # beside: penguin run --camera front=/front/image/compressed
  penguin sim live --cameras front,rear --rate 3 --seconds 120 --seed 4
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`penguin sim dataset`, `penguin sim record` and `penguin sim live`."""
    from penguin_ros.dds.options import add_network_options

    parser = subparsers.add_parser(
        'sim', help='the simulated warehouse: pictures, recordings, live cameras',
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
    record.add_argument('--cameras', type=_names, metavar='NAME,NAME',
                        help='cameras of one robot, of front, left, right and rear: each with topics of its own, /tf_static '
                             'and /tf beside them; paint and light change too (default: one camera named camera)')
    _add_what_is_seen(record, look='full')

    live = actions.add_parser(
        'live', help='run the warehouse as live cameras on DDS, without ROS 2',
        description='Renders a drive in real time and publishes images, camera info, ground truth and transforms. Which world '
                    'is seen when depends on the seed alone; images a slow machine leaves out are counted. Ends with Ctrl-C.')
    live.add_argument('--cameras', type=_names, default=('front',), metavar='NAME,NAME',
                      help='of front, left, right and rear (default: front)')
    live.add_argument('--seconds', type=_positive_float, default=math.inf, help='end after so long (default: go on)')
    live.add_argument('--wait', type=float, default=0.0, metavar='SECONDS',
                      help='wait so long for subscribers before the first image (default: %(default)s)')
    live.add_argument('--best-effort', action='store_true', help='publish best effort, as many camera drivers do')
    _add_what_is_seen(live, look='plain')
    add_network_options(live)
    parser.set_defaults(run=run)


def _add_what_is_seen(action: argparse.ArgumentParser, *, look: str) -> None:
    action.add_argument('--rate', type=_positive_float, default=5.0, help='images per second (default: %(default)s)')
    action.add_argument('--seed', type=int, default=0, help='which drive (default: %(default)s)')
    action.add_argument('--split', default='demo', help='name hashed into the seed (default: %(default)s)')
    action.add_argument('--raw', action='store_true', help='sensor_msgs/Image instead of JPEG in CompressedImage')
    action.add_argument('--look', choices=('full', 'plain'), default=look,
                        help='full has shadows and smooth edges; plain takes a third of the time (default: %(default)s)')


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(','))


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
    return {'dataset': _dataset, 'record': _record, 'live': _live}[args.action](args)


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
    from penguin_ros.sim.recording import record_drive, record_rig

    def show(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            end = '\n' if done == total or not sys.stderr.isatty() else '\r'
            print(f'{done}/{total} images', end=end, file=sys.stderr, flush=True)

    what = {'seconds': args.seconds, 'rate_hz': args.rate, 'seed': args.seed, 'split': args.split,
            'compressed': not args.raw, 'plain': args.look == 'plain', 'progress': show}
    count = record_rig(args.path, cameras=args.cameras, **what) if args.cameras else record_drive(args.path, **what)
    print(f'{args.path}: {count} images, {args.path.stat().st_size / 1e6:.1f} MB')
    return 0


def _live(args: argparse.Namespace) -> int:
    """Until the seconds are over or Ctrl-C."""
    from penguin_ros.dds.bus import DdsBus
    from penguin_ros.dds.shell import stop_on_signals
    from penguin_ros.sim.live import Live, LiveCameras

    def tell(line: str) -> None:
        print(line, flush=True)

    live = Live(cameras=args.cameras, rate_hz=args.rate, seed=args.seed, split=args.split, compressed=not args.raw,
                reliable=not args.best_effort, plain=args.look == 'plain')
    with stop_on_signals() as stop:
        bus = DdsBus('penguin_sim', domain_id=args.domain, interface=args.interface)
        try:
            cameras = LiveCameras(bus, live)
            for line in cameras.described():
                tell(line)
            watching = ' '.join(f'--camera {name}={cameras.topic(name)}' for name in args.cameras)
            tell(f'{args.rate:g} images/s, seed {args.seed}; beside it: penguin run {watching}')
            if args.wait and not cameras.wait_for_watchers(args.wait, stop):
                tell(f'nobody subscribed within {args.wait:g} s; starting all the same')
            cameras.run(args.seconds, stop, tell)
        finally:
            bus.close()
    tell(f'{cameras.count.sent} images sent, {cameras.count.late} late (left out)')
    return 0
