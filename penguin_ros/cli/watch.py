"""`penguin watch`: images, boxes, captions, budget and latency of a running node, live in the Rerun viewer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  penguin watch                                       every camera of the node /penguin
  penguin watch --image front=/front/image_raw        with that camera's images
  penguin watch --save drive.rrd --seconds 60         record for later: rerun drive.rrd
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        'watch', help='live view of a running node', epilog=_EXAMPLES,
        description='Shows what a node on this machine sees and says, in the Rerun viewer. Reads topics over DDS, from '
                    '`penguin run` as from a ROS 2 node.', formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--camera', action='append', default=[], metavar='NAME', help="a camera of the node (default 'camera')")
    parser.add_argument('--image', action='append', default=[], metavar='NAME=TOPIC',
                        help="a camera's images; a topic that ends in /compressed carries CompressedImage")
    parser.add_argument('--node', default='/penguin', help='full name of the node')
    parser.add_argument('--domain', type=int, help='DDS domain (default: ROS_DOMAIN_ID, else 0)')
    parser.add_argument('--save', type=Path, help='record into this .rrd file instead of opening a window')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='stop after this time')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show until interrupted."""
    import time
    from functools import partial

    from penguin_ros.core.errors import ConfigError, PenguinError
    from penguin_ros.core.messages import ns_from_stamp
    from penguin_ros.dds.bus import DdsBus
    from penguin_ros.viewer import Viewer

    topics = dict(entry.partition('=')[::2] for entry in args.image)
    if any(not name or not topic for name, topic in topics.items()):
        raise ConfigError('--image takes NAME=TOPIC, for example front=/front/image_raw.')
    viewer = Viewer(save=args.save)
    bus = DdsBus('penguin_watch', domain_id=args.domain)

    def show_image(name: str, message: Any) -> None:
        try:
            viewer.show_image(name, bus.rgb(message, max_pixels=64_000_000), ns_from_stamp(message.header.stamp))
        except PenguinError as error:
            bus.log().warning(f'camera {name}: {error}')

    try:
        for name, topic in topics.items():
            bus.newest_image(topic, partial(show_image, name), compressed=topic.endswith('/compressed'))
        for name in args.camera or list(topics) or ['camera']:
            bus.listen(f'{args.node}/{name}/scene', 'penguin_ros/msg/SceneDescription', viewer.show_scene, latched=True)
        end_s = time.monotonic() + args.seconds
        while time.monotonic() < end_s:
            time.sleep(0.1)
    finally:
        bus.close()
        viewer.close()
    return 0
