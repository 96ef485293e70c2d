"""penguin run: the perception node without ROS 2, on DDS. Knows nothing of what the node does."""

from __future__ import annotations

import argparse

_EXAMPLES = """examples:
  penguin run --camera front=/front/image_raw
  penguin run --camera front=/front/image_raw --camera rear=/rear/image_raw/compressed --set token_budget.window_tokens=512
  penguin run --config config/laptop.yaml --interface eth0

The node is /penguin. Real ROS 2 nodes under rmw_cyclonedds see it with `ros2 node list`, and can call it; those under
rmw_fastrtps exchange topics with it, so ask them by ~/question and ~/answer. With the default --interface lo, only
processes of this machine hear each other, and ROS 2 needs ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`penguin run`."""
    from penguin_ros.dds.options import add_network_options, add_node_options

    parser = subparsers.add_parser(
        'run', help='run the perception node without ROS 2, on DDS',
        description='Watches cameras and serves scenes, answers, settings and its lifecycle under ROS 2 names on Cyclone DDS, '
                    'until Ctrl-C.',
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--camera', action='append', default=[], metavar='NAME=TOPIC', dest='cameras',
                        help='a camera and its image topic; a topic that ends in /compressed carries CompressedImage; may be '
                             'given again')
    add_node_options(parser)
    add_network_options(parser)
    parser.add_argument('--namespace', default='/', help='ROS namespace of the node (default: %(default)s)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Configure and activate the node, and keep it until it is told to end."""
    from penguin_ros.dds.options import log_to_console, named_topics, node_settings

    log_to_console(args.log_level)
    cameras = named_topics(args.cameras)
    settings = node_settings(args)
    if cameras:
        settings['cameras'] = list(cameras)
        for name, topic in cameras.items():
            settings |= {f'camera.{name}.image_topic': topic, f'camera.{name}.compressed': topic.endswith('/compressed')}

    from penguin_ros.assemble import assemble
    from penguin_ros.dds.shell import run_node, stop_on_signals

    with stop_on_signals() as stop:
        run_node(assemble, settings, namespace=args.namespace, domain_id=args.domain, interface=args.interface, stop=stop)
    return 0
