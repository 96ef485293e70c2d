"""Starts the node on DDS, brings it to active and ends it in order. Knows nothing of what the node does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from penguin_ros.core.errors import ConfigError, PenguinError
from penguin_ros.core.node import Assemble, PerceptionNode
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.lifecycle import ACTIVE, FINALIZED, INACTIVE

NODE_NAME = 'penguin'
FINALIZED_CHECK_S = 0.2         # how late a shutdown that was asked for from outside is noticed


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that what runs can end in order. Only on the main thread."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_node(assemble: Assemble, settings: Mapping[str, Any], *, namespace: str = '/', domain_id: int | None = None,
             interface: str = 'lo', stop: threading.Event) -> None:
    """Run until ``stop`` is set or somebody shuts the node down. Raises PenguinError when it cannot be brought to active."""
    bus = DdsBus(NODE_NAME, namespace=namespace, domain_id=domain_id, interface=interface, settings=settings)
    try:
        bus.manage(PerceptionNode(bus, assemble))
        _take(bus, 'configure')
        problem = bus.undeclared_settings()     # known only now: cameras bring settings of their own
        if problem:
            raise ConfigError(problem)
        _take(bus, 'activate')
        while not stop.wait(FINALIZED_CHECK_S) and bus.state != FINALIZED:
            pass
    finally:
        try:
            if bus.state == ACTIVE:
                _take(bus, 'deactivate')
            if bus.state == INACTIVE:
                _take(bus, 'cleanup')
        finally:
            bus.close()


def _take(bus: DdsBus, transition: str) -> None:
    problem = bus.change_state(transition)
    if problem:
        raise PenguinError(problem)
