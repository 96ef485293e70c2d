"""Settings answer to ROS 2's parameter services: what ros2 param list, get, describe and set see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from penguin_ros.core.bus import Message, Setting
from penguin_ros.dds.interfaces import ros_types
from penguin_ros.dds.parameters import BOOL, DOUBLE, INTEGER, NOT_SET, STRING, STRING_ARRAY, serve_parameters
from penguin_ros.dds.setting_table import SettingTable
from tests.bus.memory_bus import Hub, MemoryBus

SETTINGS = (
    Setting(name='budget.tokens', default=64, about='visual tokens', low=16, high=128, live=True),
    Setting(name='budget.share', default=0.5, about='a share', low=0.0, high=1.0, live=True),
    Setting(name='mode', default='slow', about='how', choices=('slow', 'fast')),
    Setting(name='annotated', default=True, about='draw', live=True),
    Setting(name='cameras', default=['front'], about='names'))
new = ros_types().new


class Asked:
    """The parameter services of a node, asked over a memory bus."""

    def __init__(self) -> None:
        self.table = SettingTable({})
        self.table.declare(SETTINGS, lambda proposed: None, lambda accepted: None)
        hub = Hub()
        self.configured = False
        self.node, self.world = MemoryBus(hub, 'penguin'), MemoryBus(hub, 'world')
        serve_parameters(self.node, self.table, lambda: self.configured)

    def __call__(self, short: str, **fields: Any) -> Message:
        name = ''.join(f'_{letter.lower()}' if letter.isupper() else letter for letter in short)[1:]
        return self.world.ask(f'/penguin/{name}', f'rcl_interfaces/srv/{short}',
                              new(f'rcl_interfaces/srv/{short}_Request', **fields)).result(5.0)


@pytest.fixture
def ask() -> Iterator[Asked]:
    asked = Asked()
    yield asked
    asked.node.close()
    asked.world.close()


def parameter(name: str, kind: int, **value: Any) -> Message:
    return new('rcl_interfaces/msg/Parameter', name=name, value=new('rcl_interfaces/msg/ParameterValue', type=kind, **value))


def test_all_are_listed_or_those_under_a_prefix(ask: Asked) -> None:
    assert ask('ListParameters').result.names == ['annotated', 'budget.share', 'budget.tokens', 'cameras', 'mode']
    found = ask('ListParameters', prefixes=['budget']).result
    assert (found.names, found.prefixes) == (['budget.share', 'budget.tokens'], ['budget'])
    assert ask('ListParameters', depth=1).result.names == ['annotated', 'cameras', 'mode']


def test_values_and_types_are_told_in_the_order_asked(ask: Asked) -> None:
    names = ['mode', 'budget.tokens', 'nothing', 'budget.share', 'annotated', 'cameras']
    kinds = [STRING, INTEGER, NOT_SET, DOUBLE, BOOL, STRING_ARRAY]
    assert list(ask('GetParameterTypes', names=names).types) == kinds
    values = ask('GetParameters', names=names).values
    assert [value.type for value in values] == kinds
    assert (values[0].string_value, values[1].integer_value, values[3].double_value) == ('slow', 64, 0.5)
    assert (values[4].bool_value, values[5].string_array_value) == (True, ['front'])


def test_a_description_has_range_choices_and_when_it_may_change(ask: Asked) -> None:
    names = ['budget.tokens', 'budget.share', 'mode', 'nothing']
    tokens, share, mode, nothing = ask('DescribeParameters', names=names).descriptors
    (span,) = tokens.integer_range
    assert (tokens.description, span.from_value, span.to_value) == ('visual tokens', 16, 128)
    assert share.floating_point_range[0].to_value == 1.0
    assert mode.additional_constraints == 'one of: slow, fast; only while the node is not configured'
    assert (nothing.name, nothing.type) == ('nothing', NOT_SET)


def test_each_of_several_is_set_or_refused_on_its_own(ask: Asked) -> None:
    results = ask('SetParameters', parameters=[
        parameter('budget.tokens', INTEGER, integer_value=100), parameter('budget.share', DOUBLE, double_value=2.0),
        parameter('mode', NOT_SET), parameter('budget.share', INTEGER, integer_value=1)]).results
    assert [result.successful for result in results] == [True, False, False, True]
    assert results[1].reason == 'budget.share is 2.0; it can be 0 to 1.'
    assert 'cannot be unset' in results[2].reason
    assert (ask.table.values()['budget.tokens'], ask.table.values()['budget.share']) == (100, 1.0)


def test_atomically_all_are_set_or_none(ask: Asked) -> None:
    result = ask('SetParametersAtomically', parameters=[
        parameter('budget.tokens', INTEGER, integer_value=100), parameter('mode', STRING, string_value='sideways')]).result
    assert (result.successful, result.reason) == (False, "mode is 'sideways'; it can be slow, fast.")
    assert ask.table.values()['budget.tokens'] == 64


def test_what_is_not_live_is_refused_while_the_node_is_configured(ask: Asked) -> None:
    ask.configured = True
    (result,) = ask('SetParameters', parameters=[parameter('mode', STRING, string_value='fast')]).results
    assert not result.successful
    assert 'Clean the node up' in result.reason
