"""Settings are given, declared, changed and refused as the bus contract says."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from penguin_ros.core.bus import Setting
from penguin_ros.core.errors import ConfigError
from penguin_ros.dds.setting_table import SettingTable

TOKENS = Setting(name='budget.tokens', default=64, about='tokens', low=16, high=128, live=True)
SHARE = Setting(name='share', default=0.5, about='a share', live=True)


def accept(_: Any) -> None:
    return None


def test_a_given_value_is_in_force_once_its_setting_is_declared() -> None:
    table = SettingTable({'budget.tokens': 100, 'share': 1})
    values = table.declare([TOKENS, SHARE], accept, accept)
    assert values == {'budget.tokens': 100, 'share': 1.0}
    assert isinstance(values['share'], float)
    assert table.undeclared() is None


def test_a_given_value_that_cannot_be_is_refused_when_its_setting_is_declared() -> None:
    with pytest.raises(ConfigError, match=r'budget\.tokens is 1000; it can be 16 to 128'):
        SettingTable({'budget.tokens': 1000}).declare([TOKENS], accept, accept)


def test_a_given_name_nobody_declares_is_reported_with_the_nearest_that_exists() -> None:
    table = SettingTable({'budget.token': 100})
    table.declare([TOKENS], accept, accept)
    assert table.undeclared() == 'budget.token is not a setting of this node; did you mean budget.tokens?'


def test_a_setting_declared_again_keeps_its_value() -> None:
    table = SettingTable({})
    table.declare([TOKENS], accept, accept)
    assert table.change({'budget.tokens': 20}, configured=True) is None
    assert table.declare([TOKENS], accept, accept) == {'budget.tokens': 20}


def test_each_watcher_is_asked_and_told_once_for_several_changes() -> None:
    asked: list[Any] = []
    told: list[Any] = []
    table = SettingTable({})
    table.declare([TOKENS, SHARE], asked.append, told.append)
    assert table.change({'budget.tokens': 20, 'share': 0.25}, configured=True) is None
    assert asked == told == [{'budget.tokens': 20, 'share': 0.25}]


def test_nothing_changes_when_a_watcher_refuses() -> None:
    table = SettingTable({})
    table.declare([TOKENS], lambda proposed: 'not today', accept)
    assert table.change({'budget.tokens': 20}, configured=True) == 'not today'
    assert table.values() == {'budget.tokens': 64}
