"""The in-memory bus of the tests keeps the contract of the real ones, so what is tested on it holds on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.bus.contract import CHECKS, GIVEN, Pair
from tests.bus.memory_bus import Hub, MemoryBus, MemoryPeer


@pytest.fixture
def pair(caplog: pytest.LogCaptureFixture) -> Iterator[Pair]:
    hub = Hub()
    node, world = MemoryBus(hub, 'penguin', settings=GIVEN), MemoryBus(hub, 'world')
    yield Pair(node, MemoryPeer(world, node), node.manage, node.full, lambda: caplog.text)
    node.close()
    world.close()


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_the_memory_bus_keeps_the_contract(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)
