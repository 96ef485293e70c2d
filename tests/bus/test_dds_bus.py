"""The DDS bus keeps the contract, with another DDS node as the rest of the world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from penguin_ros.core.bus import Handle, JobResult, Message
from penguin_ros.dds.bus import DdsBus, Outlet
from penguin_ros.dds.parameters import BOOL, DOUBLE, INTEGER, STRING, STRING_ARRAY, VALUE_FIELDS
from tests.bus.contract import CHECKS, GIVEN, PATIENCE_S, Pair, wait_until
from tests.dds.domains import DOMAIN_ID, own_name


class DdsOutlet:
    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.publish = outlet.publish

    def wait_matched(self) -> None:
        wait_until(lambda: self._outlet.subscribers() > 0, 'somebody listening')


class DdsPeer:
    """Somebody on DDS who uses the node only through topics and services, as ROS 2's own tools do."""

    def __init__(self, bus: DdsBus, node_full_name: str) -> None:
        self._bus, self._node = bus, node_full_name
        self._clients: dict[str, Any] = {}
        self.new = bus.new

    def outlet(self, topic: str, type_name: str, *, reliable: bool = True, latched: bool = False) -> DdsOutlet:
        if not latched and type_name.startswith('sensor_msgs/'):
            return DdsOutlet(self._bus.advertise_images(topic, type_name, reliable=reliable))
        return DdsOutlet(self._bus.advertise(topic, type_name, latched=latched))

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None], *, latched: bool = False) -> Handle:
        return self._bus.listen(topic, type_name, on_message, latched=latched)

    def ask(self, service: str, type_name: str, request: Message) -> Future[Message]:
        client = self._clients.get(service) or self._bus.client(service, type_name)
        self._clients[service] = client
        assert client.wait(PATIENCE_S), f'nobody serves {service}'
        return client.start(request)

    def start_goal(self, name: str, type_name: str, goal: Message, on_feedback: Callable[[Message], None]) -> DdsGoal:
        client = self._clients.get(name) or self._bus.goals(name, type_name)
        self._clients[name] = client
        assert client.wait(PATIENCE_S), f'nobody serves {name}'
        return DdsGoal(client.start(goal, on_feedback, PATIENCE_S))

    def set_settings(self, values: Mapping[str, Any]) -> str | None:
        parameters = [self.new('rcl_interfaces/msg/Parameter', name=name, value=self._value(value))
                      for name, value in values.items()]
        request = self.new('rcl_interfaces/srv/SetParametersAtomically_Request', parameters=parameters)
        response = self.ask(f'{self._node}/set_parameters_atomically', 'rcl_interfaces/srv/SetParametersAtomically', request)
        result = response.result(PATIENCE_S).result
        assert result.successful != bool(result.reason)
        return result.reason or None

    def change_state(self, transition: str) -> bool:
        request = self.new('lifecycle_msgs/srv/ChangeState_Request',
                           transition=self.new('lifecycle_msgs/msg/Transition', label=transition))
        return self.ask(f'{self._node}/change_state', 'lifecycle_msgs/srv/ChangeState', request).result(PATIENCE_S).success

    def state(self) -> str:
        request = self.new('lifecycle_msgs/srv/GetState_Request')
        return self.ask(f'{self._node}/get_state', 'lifecycle_msgs/srv/GetState', request).result(
            PATIENCE_S).current_state.label

    def _value(self, value: Any) -> Message:
        kind = {bool: BOOL, int: INTEGER, float: DOUBLE, str: STRING, list: STRING_ARRAY}[type(value)]
        return self.new('rcl_interfaces/msg/ParameterValue', type=kind, **{VALUE_FIELDS[kind]: value})


class DdsGoal:
    def __init__(self, sent: Any) -> None:
        self._sent = sent

    def cancel(self) -> bool:
        return self._sent.cancel(PATIENCE_S)

    def result(self, timeout_s: float) -> JobResult:
        return self._sent.result(timeout_s)


@pytest.fixture
def pair(caplog: pytest.LogCaptureFixture) -> Iterator[Pair]:
    name = own_name('penguin')
    node = DdsBus(name, domain_id=DOMAIN_ID, settings=GIVEN)
    world = DdsBus(f'world_of_{name}', domain_id=DOMAIN_ID)
    yield Pair(node, DdsPeer(world, f'/{name}'), node.manage, lambda topic: f'/{name}/{topic[2:]}', lambda: caplog.text)
    node.close()
    world.close()


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_the_dds_bus_keeps_the_contract(pair: Pair, check: Callable[[Pair], None]) -> None:
    check(pair)
