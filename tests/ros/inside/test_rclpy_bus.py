"""The bus on real rclpy keeps the contract of every bus, and what only ROS 2 has besides."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import rclpy

from penguin_ros.ros.bus import RclpyBus
from tests.bus.contract import CHECKS, GIVEN, SETTINGS, Heard, Pair, RecordedLifecycle, settings_are_declared_given_and_changed
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


def test_settings_change_without_the_callback_that_humble_lacks(monkeypatch: pytest.MonkeyPatch,
                                                                request: pytest.FixtureRequest) -> None:
    monkeypatch.delattr('rclpy.node.Node.add_post_set_parameters_callback')
    settings_are_declared_given_and_changed(request.getfixturevalue('pair'))


def test_a_whole_number_for_a_float_is_taken_and_becomes_one(pair: Pair) -> None:
    pair.bus.declare(SETTINGS, lambda proposed: None, lambda accepted: None)
    assert pair.peer.set_settings({'share': 1}) is None
    assert isinstance(pair.bus.settings()['share'], float)
    assert [found.type for found in pair.peer.describe('share')] == [3]     # PARAMETER_DOUBLE


def test_an_exception_in_a_transition_is_logged_and_the_node_can_be_configured_again(pair: Pair) -> None:
    class Tripping(RecordedLifecycle):
        def activate(self) -> str | None:
            raise RuntimeError('the engine tripped')

    node = Tripping()
    pair.bus.manage(node)
    assert pair.peer.change_state('configure')
    assert not pair.peer.change_state('activate')
    assert 'the engine tripped' in pair.logged()
    assert pair.peer.state() == 'unconfigured'
    assert node.asked == ['configure', 'cleanup']
    assert pair.peer.change_state('configure')


def test_what_a_service_lets_out_is_answered_counted_and_logged(pair: Pair) -> None:
    def start(request: object) -> None:
        raise RuntimeError('the service tripped')

    pair.bus.serve('~/ask', 'penguin_ros/srv/Ask', start)
    request = pair.peer.new('penguin_ros/srv/Ask_Request')
    response = pair.peer.ask(pair.full('~/ask'), 'penguin_ros/srv/Ask', request).result(10.0)
    assert not response.success
    assert 'the service tripped' in response.message
    assert 'the service tripped' in pair.logged()
    assert pair.bus.failures == 1


def test_the_log_reaches_rosout(pair: Pair) -> None:
    heard = Heard()
    pair.peer.listen('/rosout', 'rcl_interfaces/msg/Log', heard)
    for level, say in ((30, pair.bus.log().warning), (40, pair.bus.log().error), (20, pair.bus.log().info)):
        deadline = len(heard.messages) + 1
        while not any(message.level == level and message.msg == f'at {level}' for message in heard.messages):
            say('at %d', level)
            heard.wait(deadline)


def test_a_node_that_was_shut_down_can_still_be_closed() -> None:
    bus, node = RclpyBus(f'penguin_{next(_numbers)}'), RecordedLifecycle()
    bus.manage(node)
    assert bus.change_state('configure') is None
    assert bus.change_state('shutdown') is None
    bus.close()
    assert node.asked == ['configure', 'cleanup']
