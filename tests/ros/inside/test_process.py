"""How the node's process begins and ends, and what it does with the time it is given."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from builtin_interfaces.msg import Time

from tests.bus.contract import Heard, wait_until
from tests.ros.inside.running_node import RunningNode


@pytest.fixture(scope='module', autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningNode]]:
    """Makes a node of the test's own."""
    made: list[RunningNode] = []

    def start(*arguments: str, **options: Any) -> RunningNode:
        made.append(RunningNode(tmp_path, *arguments, **options))
        return made[-1]

    yield start
    for node in made:
        node.__exit__(None, None, None)


def test_simulated_time_gives_ages_and_does_not_stop_the_diagnostics(start: Callable[..., RunningNode]) -> None:
    node = start('-p', 'use_sim_time:=true', '-p', 'autostart:=true')
    node.front.wait_matched()       # it configured and activated itself
    clock = node.peer.outlet('/clock', 'rosgraph_msgs/msg/Clock')
    clock.wait_matched()
    now = Time(sec=100, nanosec=500_000_000)
    node.diagnostics.wait(1)

    def in_force() -> bool:
        clock.publish(node.peer.new('rosgraph_msgs/msg/Clock', clock=now))
        return node.diagnostics.messages[-1].header.stamp == now

    wait_until(in_force, 'the simulated time')
    count = len(node.diagnostics.messages)
    node.diagnostics.wait(count + 2)    # while simulated time stands still
    assert node.show(51, Time(sec=100)).age_ms == pytest.approx(500.0)
    assert node.end(signal.SIGTERM) == 0, node.said()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_node_ends_in_order_while_an_answer_is_written(start: Callable[..., RunningNode], number: signal.Signals) -> None:
    node = start('-p', 'ask.max_new_tokens:=400').up()
    node.show(52)
    feedback = Heard()
    for count in range(4):
        node.peer.start_goal('/penguin/ask_stream', 'penguin_ros/action/AskStream', node.peer.new(
            'penguin_ros/action/AskStream_Goal', question=f'What is in front? {count}'), feedback)
    assert node.end(number) == 0, node.said()
    assert 'Traceback' not in node.said()


def test_who_waits_for_an_answer_when_the_node_ends_gets_one(start: Callable[..., RunningNode]) -> None:
    node = start().up()
    node.show(53)
    kind = 'penguin_ros/srv/Ask'
    asked = [node.peer.ask('/penguin/ask', kind, node.peer.new(f'{kind}_Request', question='Describe the scene with boxes.'))
             for _ in range(6)]
    assert asked[0].result(10.0).success    # by then the others have arrived
    assert node.end(signal.SIGINT) == 0, node.said()
    for answer in asked:
        heard = answer.result(5.0)
        assert heard.success or 'Ask again' in heard.message


def test_a_parameter_file_with_a_wrong_value_ends_the_node_with_the_reason(start: Callable[..., RunningNode]) -> None:
    node = start('-p', 'caption.deadline_s:=-3.0')
    assert node.process.wait(15.0) == 1
    assert 'caption.deadline_s' in node.said()
    assert 'Traceback' not in node.said()


def test_a_parameter_file_that_is_not_there_ends_the_node_with_the_reason(start: Callable[..., RunningNode]) -> None:
    node = start('--params-file', '/nowhere.yaml')
    assert node.process.wait(15.0) == 1
    assert '/nowhere.yaml' in node.said()
    assert 'Traceback' not in node.said()


def test_a_misspelt_parameter_is_named_with_the_one_that_is_meant(start: Callable[..., RunningNode]) -> None:
    node = start('-p', 'token_budget.window_token:=99')
    assert node.peer.change_state('configure', 30.0)
    assert 'Is token_budget.window_tokens meant?' in node.said()
