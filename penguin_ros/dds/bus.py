"""A node's bus on Cyclone DDS with ROS 2's wire names: real ROS 2 machines see it as a node of theirs. Needs no ROS 2.

Keeps core/bus.py's contract. What rmw_fastrtps cannot exchange (services, actions) also exists as topics; see
reference/transport.md for what was measured and tried.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from penguin_ros.core.bus import Handle, Job, JobResult, Lifecycle, Message, Setting
from penguin_ros.dds import wire
from penguin_ros.dds.action import ActionClient, ActionServer
from penguin_ros.dds.interfaces import rgb_from_msg, ros_types
from penguin_ros.dds.lifecycle import UNCONFIGURED, LifecycleServices
from penguin_ros.dds.link import Endpoint, Link, Reader, Writer
from penguin_ros.dds.names import full_name
from penguin_ros.dds.parameters import serve_parameters
from penguin_ros.dds.service import ServiceClient, ServiceServer
from penguin_ros.dds.setting_table import Changed, Check, SettingTable

LOG_LEVELS = {logging.DEBUG: 10, logging.INFO: 20, logging.WARNING: 30, logging.ERROR: 40, logging.CRITICAL: 50}
LOG_KEPT = 100                  # messages a latecomer on /rosout gets
CLOCK_TYPE = 'rosgraph_msgs/msg/Clock'
CAPABILITIES = frozenset({'services', 'actions', 'lifecycle', 'parameters', 'graph'})
USE_SIM_TIME = Setting(name='use_sim_time', default=False, about='time is what /clock says, as from a simulator or a player')


class DdsBus:
    """One node on DDS. Callbacks come on one thread of its own and must return at once."""

    def __init__(self, node_name: str, *, namespace: str = '/', domain_id: int | None = None, interface: str = 'lo',
                 settings: Mapping[str, Any] | None = None) -> None:
        """``settings`` are values for what the node will declare. ``domain_id`` None means ROS_DOMAIN_ID."""
        self._node_name, self._namespace = node_name, '/' + namespace.strip('/')
        log_name = self._full('~')[1:].replace('/', '.')
        self._log = logging.getLogger(log_name)
        self._types = ros_types()
        self._table = SettingTable(settings or {})
        simulated = self._table.declare([USE_SIM_TIME], lambda _: None, lambda _: None)['use_sim_time']
        self._link = Link(self._types, node_name, self._namespace, domain_id=wire.domain_id_from(domain_id),
                          interface=interface, log=self._log)
        self._lifecycle: LifecycleServices | None = None
        self._parameters: list[Handle] = []
        self._rosout = _RosoutHandler(self._latched_outlet('/rosout', 'rcl_interfaces/msg/Log', LOG_KEPT), self.new, log_name)
        self._log.addHandler(self._rosout)
        self._clock_ns: int | None = None
        if simulated:
            self._clock_ns = 0
            clock = Endpoint(topic=self._topic('/clock'), ros_type=CLOCK_TYPE, reliable=False, depth=1)
            self._link.reader(clock, self._on_clock)

    # -- the contract of core/bus.py -----------------------------------------------------------------------------

    def now_ns(self) -> int:
        return time.time_ns() if self._clock_ns is None else self._clock_ns

    def new(self, type_name: str, **fields: Any) -> Message:
        return self._types.new(type_name, **fields)

    def newest_image(self, topic: str, on_image: Callable[[Message], None], *, compressed: bool) -> Handle:
        ros_type = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
        endpoint = Endpoint(topic=self._topic(topic), ros_type=ros_type, depth=1)
        return self._link.reader(endpoint, lambda data, _: on_image(self._types.decode(data, ros_type)), any_reliability=True)

    def rgb(self, image: Message, *, max_pixels: int) -> np.ndarray:
        return rgb_from_msg(image, max_pixels=max_pixels)

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None], *, latched: bool = False) -> Reader:
        """As the contract says; ``latched`` also asks for the last message of a latched topic."""
        endpoint = Endpoint(topic=self._topic(topic), ros_type=type_name, latched=latched)
        return self._link.reader(endpoint, lambda data, _: on_message(self._types.decode(data, type_name)))

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> Outlet:
        if latched:
            return self._latched_outlet(topic, type_name, 1)
        return Outlet(self._link, Endpoint(topic=self._topic(topic), ros_type=type_name))

    def serve(self, name: str, type_name: str, start: Callable[[Message], Future[Message]]) -> Handle:
        return ServiceServer(self._link, self._full(name), type_name, start, self._log)

    def job(self, name: str, type_name: str, start: Callable[[Job], Future[JobResult]]) -> Handle:
        return ActionServer(self, name, type_name, start)

    def declare(self, settings: Sequence[Setting], check: Check, changed: Changed) -> Mapping[str, Any]:
        values = self._table.declare(settings, check, changed)
        if not self._parameters:        # who has no settings of its own, as `penguin ask`, needs none of these services
            self._parameters = serve_parameters(self, self._table, self._is_configured)
        return values

    def settings(self) -> Mapping[str, Any]:
        return self._table.values()

    def every(self, period_s: float, call: Callable[[], None]) -> Handle:
        return self._link.every(period_s, call)

    def log(self) -> logging.Logger:
        return self._log

    def capabilities(self) -> frozenset[str]:
        return CAPABILITIES

    # -- beyond the contract -------------------------------------------------------------------------------------

    def manage(self, node: Lifecycle) -> None:
        """Let the node's state be seen and changed, from outside and by ``change_state``."""
        self._lifecycle = LifecycleServices(self, node)

    def change_state(self, transition: str) -> str | None:
        """Take a lifecycle transition ('configure', 'activate', ...); a returned text says why it was refused."""
        return self._lifecycle.states.take(transition) if self._lifecycle else 'no node is managed by this bus.'

    @property
    def state(self) -> int:
        """The number of the lifecycle state the node is in (lifecycle.py)."""
        return self._lifecycle.states.state if self._lifecycle else UNCONFIGURED

    def undeclared_settings(self) -> str | None:
        """What is wrong with settings that were given but that the node does not have."""
        return self._table.undeclared()

    def client(self, name: str, type_name: str) -> ServiceClient:
        return ServiceClient(self._link, self._full(name), type_name)

    def goals(self, name: str, type_name: str) -> ActionClient:
        return ActionClient(self, name, type_name)

    def soon(self, call: Callable[[], None]) -> None:
        """Call on the bus's thread, after what it is doing now."""
        self._link.soon(call)

    def advertise_images(self, topic: str, type_name: str, *, reliable: bool = True) -> Outlet:
        """An outlet as a camera driver has it: the newest image only."""
        return Outlet(self._link, Endpoint(topic=self._topic(topic), ros_type=type_name, reliable=reliable, depth=1))

    def close(self) -> None:
        """Leave the domain; no callback starts once this returns."""
        self._log.removeHandler(self._rosout)
        if self._lifecycle is not None:
            self._lifecycle.close()
        self._link.close()

    def _full(self, name: str) -> str:
        return full_name(name, self._node_name, self._namespace)

    def _topic(self, name: str) -> str:
        return wire.topic_name(self._full(name))

    def _is_configured(self) -> bool:
        return self.state != UNCONFIGURED

    def _latched_outlet(self, topic: str, type_name: str, depth: int) -> Outlet:
        return Outlet(self._link, Endpoint(topic=self._topic(topic), ros_type=type_name, latched=True, depth=depth))

    def _on_clock(self, data: bytes, _: object) -> None:
        clock = self._types.decode(data, CLOCK_TYPE).clock
        self._clock_ns = clock.sec * 1_000_000_000 + clock.nanosec


class Outlet:
    """Sends messages of one topic. Any thread may publish."""

    def __init__(self, link: Link, endpoint: Endpoint) -> None:
        self._types, self._ros_type = link.types, endpoint.ros_type
        self._writer: Writer = link.writer(endpoint)

    def publish(self, message: Message) -> None:
        self._writer.write(self._types.encode(message, self._ros_type))

    def publish_bytes(self, data: memoryview) -> None:
        """Send a message that is CDR already, as recordings hold it."""
        self._writer.write(data)

    def subscribers(self) -> int:
        return self._writer.readers()

    def close(self) -> None:
        self._writer.close()


class _RosoutHandler(logging.Handler):
    """Shows the node's log on /rosout, as ROS 2 nodes do."""

    def __init__(self, outlet: Outlet, new: Callable[..., Message], name: str) -> None:
        super().__init__()
        self._outlet, self._new, self._name = outlet, new, name

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stamp = self._new('builtin_interfaces/msg/Time', sec=int(record.created), nanosec=int(record.created % 1 * 1e9))
            self._outlet.publish(self._new(
                'rcl_interfaces/msg/Log', stamp=stamp, level=LOG_LEVELS.get(record.levelno, 20), name=self._name,
                msg=record.getMessage(), file=record.pathname, function=record.funcName or '', line=record.lineno))
        except Exception:       # as every logging handler: trouble in showing a record must not become the caller's
            self.handleError(record)
