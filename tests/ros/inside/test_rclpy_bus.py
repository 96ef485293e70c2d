"""The bus on real rclpy keeps the contract of every bus, and what only ROS 2 has besides."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import rclpy

from penguin_ros.ros.bus import RclpyBus
from tests.bus.contract import CHECKS, GIVEN, Pair
from tests.ros.inside.peer import Peer

_numbers = itertools.count()


class Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ''

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + '\n'


@pytest.fixture(scope='module', autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture
def pair() -> Iterator[Pair]:
    name = f'penguin_{next(_numbers)}'
    bus, said, stop = RclpyBus(name, settings=GIVEN), Said(), threading.Event()
    bus.log().addHandler(said)
    running = threading.Thread(target=bus.run, args=(stop,))
    running.start()
    peer = Peer(f'world_of_{name}', f'/{name}')
    yield Pair(bus, peer, bus.manage, lambda topic: f'/{name}/{topic[2:]}', lambda: said.text)
    peer.close()
    stop.set()
    running.join()
    bus.close()


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_the_rclpy_bus_keeps_the_contract(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)
