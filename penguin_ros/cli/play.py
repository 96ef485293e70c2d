"""penguin play: plays a recording on DDS as if its cameras were live. Knows nothing of who watches."""

from __future__ import annotations

import argparse
from pathlib import Path

_EXAMPLES = """examples:
  penguin play drive.mcap                       # beside: penguin run --camera camera=/camera/image/compressed
  penguin play drive.mcap --topic /front/image_raw --rate 0.5 --loop
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`penguin play`."""
    from penguin_ros.dds.options import add_network_options

    parser = subparsers.add_parser(
        'play', help='play a recording as a live camera, without ROS 2',
        description="Publishes a recording's images on DDS in their own rhythm, their stamps moved to the present.",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recording', type=Path, help='.mcap file or rosbag2 folder')
    parser.add_argument('--topic', action='append', default=[], dest='topics',
                        help='an image topic; may be given again (default: all)')
    parser.add_argument('--rate', type=float, default=1.0, help='how much faster than recorded (default: %(default)s)')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--best-effort', action='store_true', help='publish best effort, as many camera drivers do')
    parser.add_argument('--wait', type=float, default=0.0, metavar='SECONDS',
                        help='wait so long for subscribers before the first image (default: %(default)s)')
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play until the end or Ctrl-C."""
    from penguin_ros.core.errors import ConfigError, RecordingError
    from penguin_ros.dds.bus import DdsBus
    from penguin_ros.dds.player import Player
    from penguin_ros.dds.recording import Recording
    from penguin_ros.dds.shell import stop_on_signals

    if not args.rate > 0:
        raise ConfigError(f'--rate is {args.rate:g}; it is more than 0.')
    with stop_on_signals() as stop, Recording(args.recording) as recording:
        bus = DdsBus('penguin_player', domain_id=args.domain, interface=args.interface)
        try:
            player = Player(recording, bus, args.topics, rate=args.rate, reliable=not args.best_effort)
            print(f'playing {", ".join(player.topics)}', flush=True)
            if args.wait:
                player.wait_for_watchers(args.wait)
            sent = player.play(stop)
            while args.loop and not stop.is_set():
                sent += player.play(stop)
        finally:
            bus.close()
        print(f'{sent} images sent')
        if recording.damage:
            raise RecordingError(recording.damage)
    return 0
