"""Starts the node on ROS 2 and ends it in order. Knows nothing of what the node does (core/node.py) or of messages."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

import rclpy
from rclpy.signals import SignalHandlerOptions

from penguin_ros.assemble import assemble
from penguin_ros.core.errors import PenguinError, TransportError
from penguin_ros.core.node import PerceptionNode
from penguin_ros.ros.bus import RclpyBus


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lifecycle node until SIGINT or SIGTERM; exit status 0, or 1 for an error that was explained."""
    stop = threading.Event()
    # Not rclpy's handlers: those end ROS at once, before the node could say that it is going.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        start_ros(argv)
        run(stop)
    except PenguinError as error:
        print(f'penguin_node: error: {error}', file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)   # a second Ctrl-C while Python ends would change the exit status
    return 0


def start_ros(argv: Sequence[str] | None) -> None:
    """Read the ROS arguments. Raises TransportError for those that cannot be used."""
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:   # rclpy has a type of its own for each kind, none of them public
        reason = str(error).splitlines()[0]
        raise TransportError(f'ROS 2 cannot start: {reason}. Check what stands behind --ros-args.') from error


def run(stop: threading.Event) -> None:
    """Make the node in the initialised context and run it until it is to stop."""
    bus = RclpyBus('penguin')
    try:
        bus.manage(PerceptionNode(bus, assemble))
        if bus.settings()['autostart']:
            _ = bus.change_state('configure') or bus.change_state('activate')   # a refusal is logged; it may be mended
        bus.run(stop)
    finally:
        bus.close()
