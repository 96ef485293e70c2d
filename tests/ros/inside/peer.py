"""The rest of the world for a node under test: an rclpy node of its own with clients for all that is served."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterDescriptor, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from penguin_ros.core.bus import JobResult, Message
from tests.bus.contract import PATIENCE_S, wait_until

OUTCOMES = {GoalStatus.STATUS_SUCCEEDED: 'succeeded', GoalStatus.STATUS_ABORTED: 'aborted',
            GoalStatus.STATUS_CANCELED: 'canceled'}


def interface(type_name: str) -> Any:
    """'penguin_ros/srv/Ask' -> the class; 'penguin_ros/srv/Ask_Request' -> its part."""
    package, kind, name = type_name.split('/')
    whole, _, part = name.partition('_')
    found = getattr(importlib.import_module(f'{package}.{kind}'), whole)
    return getattr(found, part) if part else found


class Outlet:
    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self.publish = publisher.publish

    def wait_matched(self) -> None:
        wait_until(lambda: self._publisher.get_subscription_count() > 0, 'somebody listening')


class Goal:
    """A goal that was sent; keeps the contract's PeerGoal."""

    def __init__(self, handle: Any, send: Callable[[Callable[[], Any]], Future[Any]]) -> None:
        self._handle, self._send = handle, send
        self.accepted = handle.accepted
        self._result = send(handle.get_result_async)

    def cancel(self) -> bool:
        return len(self._send(self._handle.cancel_goal_async).result(PATIENCE_S).goals_canceling) == 1

    def result(self, timeout_s: float) -> JobResult:
        response = self._result.result(timeout_s)
        return JobResult(OUTCOMES[response.status], response.result)


class Peer:
    """Keeps the contract's Peer; also what the tests of the whole node need."""

    def __init__(self, name: str, node_name: str) -> None:
        self._node = rclpy.create_node(name)
        self._target = node_name
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def new(self, type_name: str, **fields: Any) -> Message:
        return interface(type_name)(**fields)

    def now_msg(self) -> Message:
        return self._node.get_clock().now().to_msg()

    def outlet(self, topic: str, type_name: str, *, reliable: bool = True, latched: bool = False) -> Outlet:
        return Outlet(self._node.create_publisher(interface(type_name), topic, qos(reliable=reliable, latched=latched)))

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None], *, latched: bool = False) -> Any:
        return self._node.create_subscription(interface(type_name), topic, on_message, qos(reliable=True, latched=latched))

    def ask(self, service: str, type_name: str, request: Message) -> Future[Message]:
        client = self._clients.get(service) or self._node.create_client(interface(type_name), service)
        self._clients[service] = client
        assert client.wait_for_service(PATIENCE_S), f'nobody serves {service}'
        return self._send(lambda: client.call_async(request))

    def start_goal(self, name: str, type_name: str, goal: Message, on_feedback: Callable[[Message], None]) -> Goal:
        client = self._clients.get(name) or ActionClient(self._node, interface(type_name), name)
        self._clients[name] = client
        assert client.wait_for_server(PATIENCE_S), f'nobody serves {name}'
        sent = self._send(lambda: client.send_goal_async(
            goal, feedback_callback=lambda message: on_feedback(message.feedback)))
        return Goal(sent.result(PATIENCE_S), self._send)

    def set_settings(self, values: Mapping[str, Any]) -> str | None:
        """Set parameters, all or none; the reason of a refusal."""
        parameters = [Parameter(name=name, value=parameter_value(value)) for name, value in values.items()]
        result = self._ask_node('set_parameters_atomically', SetParametersAtomically, parameters=parameters).result
        assert result.successful != bool(result.reason)
        return result.reason or None

    def describe(self, *names: str) -> list[ParameterDescriptor]:
        return self._ask_node('describe_parameters', DescribeParameters, names=names).descriptors

    def change_state(self, transition: str, timeout_s: float = PATIENCE_S) -> bool:
        asked = self._ask_node('change_state', ChangeState, timeout_s, transition=Transition(label=transition))
        return bool(asked.success)

    def state(self) -> str:
        return str(self._ask_node('get_state', GetState).current_state.label)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(PATIENCE_S)
        self._node.destroy_node()

    def _send(self, request: Callable[[], Any]) -> Future[Any]:
        """Send from the executor's thread: from another one, a quick response may come before rclpy awaits it."""
        answered: Future[Any] = Future()

        def send() -> None:
            request().add_done_callback(lambda found: answered.set_result(found.result()))

        self._executor.create_task(send)
        return answered

    def _ask_node(self, service: str, type_: Any, timeout_s: float = PATIENCE_S, **fields: Any) -> Message:
        package, kind = type_.__module__.split('.')[:2]
        name = f'{package}/{kind}/{type_.__name__}'
        return self.ask(f'{self._target}/{service}', name, type_.Request(**fields)).result(timeout_s)


def qos(*, reliable: bool, latched: bool) -> QoSProfile:
    return QoSProfile(
        depth=1 if latched else 50,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)


def parameter_value(value: Any) -> ParameterValue:
    field, kind = {bool: ('bool_value', 1), int: ('integer_value', 2), float: ('double_value', 3), str: ('string_value', 4),
                   list: ('string_array_value', 9)}[type(value)]
    message = ParameterValue(type=kind, **{field: value})
    assert parameter_value_to_python(message) == value
    return message
