"""One node's place in a DDS domain, and the one thread that waits for it: bytes in, bytes out, timers, the ROS graph.

Knows nothing of what the bytes mean. Everything it calls back runs on its own thread and must return at once.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from penguin_ros.core.errors import PenguinError, TransportError
from penguin_ros.dds import wire
from penguin_ros.dds.cyclone import (
    DataReader,
    DataWriter,
    DDSException,
    DDSStatus,
    Domain,
    DomainParticipant,
    GuardCondition,
    InstanceState,
    Policy,
    Qos,
    ReadCondition,
    SampleInfo,
    SampleState,
    Topic,
    ViewState,
    WaitSet,
    ddspy_take,
    ddspy_write,
)
from penguin_ros.dds.interfaces import RosTypes

OnData = Callable[[bytes, SampleInfo], None]

ANY_STATE = SampleState.Any | ViewState.Any | InstanceState.Any
RELIABILITY_POLICY = 11             # the DDS number of the policy two endpoints disagree on
LONGEST_WAIT_NS = 500_000_000
DISCOVERY_TOPIC = 'ros_discovery_info'
DISCOVERY_TYPE = 'rmw_dds_common/msg/ParticipantEntitiesInfo'


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What a reader or writer is for, in ROS 2's words."""

    topic: str                      # the name on the wire, 'rt/front/image_raw'
    ros_type: str
    reliable: bool = True
    latched: bool = False           # latecomers get the last message
    depth: int = 10
    call: bool = False              # part of a service: a header goes before the fields
    tag: str = ''                   # further user data, 'clientid=...;'


class Link:
    """A DDS participant that shows itself as a ROS 2 node."""

    def __init__(self, ros_types: RosTypes, node_name: str, namespace: str, *, domain_id: int, interface: str,
                 log: logging.Logger) -> None:
        self.types = ros_types
        self._node_name, self._namespace, self._log = node_name, namespace, log
        self._descriptors = wire.Descriptors(ros_types)
        self._domain = _join_domain(domain_id, wire.cyclone_config(interface))
        self._participant = DomainParticipant(domain_id, Qos(Policy.Userdata(b'enclave=/;')))  # marks a ROS 2 context
        self._waitset = WaitSet(self._participant)
        self._wake = GuardCondition(self._participant)
        self._waitset.attach(self._wake)
        self._lock = threading.Lock()           # guards the next five
        self._readers: list[Reader] = []
        self._writers: list[Writer] = []
        self._tasks: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._announcing = False
        self._order = itertools.count()
        self._stopping = threading.Event()
        self._discovery = Writer(self, Endpoint(topic=DISCOVERY_TOPIC, ros_type=DISCOVERY_TYPE, latched=True, depth=1))
        self._thread = threading.Thread(target=self._run, name=f'dds {node_name}', daemon=True)
        self._thread.start()
        self._announce_soon()

    def reader(self, endpoint: Endpoint, on_data: OnData, *, any_reliability: bool = False) -> Reader:
        """Call ``on_data`` with every message's bytes. With ``any_reliability``, a reader that is refused because a writer
        offers less than reliable is opened again as best effort."""
        reader = Reader(self, endpoint, on_data, any_reliability)
        with self._lock:
            self._readers.append(reader)
        self._announce_soon()
        return reader

    def writer(self, endpoint: Endpoint) -> Writer:
        writer = Writer(self, endpoint)
        with self._lock:
            self._writers.append(writer)
        self._announce_soon()
        return writer

    def soon(self, call: Callable[[], None]) -> None:
        """Run on the link's thread."""
        with self._lock:
            if not self._stopping.is_set():
                self._tasks.append(call)
                self._wake.set(True)

    def every(self, period_s: float, call: Callable[[], None]) -> Timer:
        return self._start_timer(Timer(call, period_s))

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self._start_timer(Timer(call, delay_s, once=True))

    def close(self) -> None:
        """Leave the domain. No callback starts once this returns."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._wake.set(True)
            self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for reader in self._readers:
            reader.release()
        for writer in (*self._writers, self._discovery):
            writer.release()
        for entity in (self._waitset, self._wake, self._participant):
            release(entity)
        _leave_domain(self._domain)

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait_ns = LONGEST_WAIT_NS
            with self._lock:
                if self._timers:
                    wait_ns = min(wait_ns, max(0, int((self._timers[0][0] - time.monotonic()) * 1e9)))
            self._waitset.wait(wait_ns)
            for call in self._due():
                self.guard(call)
            for reader in tuple(self._readers):
                self.guard(reader.drain)

    def _due(self) -> Iterator[Callable[[], None]]:
        """Tasks that were handed over, then timers whose moment has come."""
        with self._lock:
            self._wake.set(False)
            tasks = tuple(self._tasks)
            self._tasks.clear()
        yield from tasks
        now_s = time.monotonic()
        while not self._stopping.is_set():
            with self._lock:
                if not self._timers or self._timers[0][0] > now_s:
                    return
                due_s, _, timer = heapq.heappop(self._timers)
                if timer.closed:
                    continue
                if not timer.once:
                    next_s = due_s + timer.period_s if due_s + timer.period_s > now_s else now_s + timer.period_s
                    heapq.heappush(self._timers, (next_s, next(self._order), timer))    # beats that were missed are skipped
            yield timer.call

    def _start_timer(self, timer: Timer) -> Timer:
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + timer.period_s, next(self._order), timer))
            if not self._stopping.is_set():
                self._wake.set(True)
        return timer

    def _announce_soon(self) -> None:
        with self._lock:
            if self._announcing or self._stopping.is_set():
                return
            self._announcing = True
        self.soon(self._announce)

    def _announce(self) -> None:
        """Tell the ROS graph which endpoints are this node's, so that `ros2 node list` and `ros2 node info` show them."""
        with self._lock:
            self._announcing = False
            readers, writers = tuple(self._readers), tuple(self._writers)
        new = self.types.new

        def gid(entity: Any) -> Any:
            return new('rmw_dds_common/msg/Gid', data=entity.guid.bytes)

        node = new('rmw_dds_common/msg/NodeEntitiesInfo', node_namespace=self._namespace, node_name=self._node_name,
                   reader_gid_seq=[gid(end.entity) for end in readers if end.is_open],
                   writer_gid_seq=[gid(end.entity) for end in writers if end.is_open])
        self._discovery.write(self.types.encode(
            new(DISCOVERY_TYPE, gid=gid(self._participant), node_entities_info_seq=[node]), DISCOVERY_TYPE))

    # For Reader and Writer below.

    def open_entity(self, kind: type[DataReader] | type[DataWriter], endpoint: Endpoint) -> Any:
        describe = self._descriptors.call if endpoint.call else self._descriptors.message
        qos = wire.endpoint_qos(reliable=endpoint.reliable, latched=endpoint.latched, depth=endpoint.depth,
                                user_data=wire.user_data(self.types, endpoint.ros_type, endpoint.tag))
        try:
            return kind(self._participant, Topic(self._participant, endpoint.topic, describe(endpoint.ros_type)), qos)
        except DDSException as error:
            raise TransportError(f'{endpoint.topic} ({endpoint.ros_type}) cannot be opened: {error} '
                                 'Look at the name, and at the memory left.') from error

    def guard(self, call: Callable[..., None], *args: Any) -> None:
        """Call back; a failure is logged and must not end the thread all others live on."""
        try:
            call(*args)
        except PenguinError as error:
            self._log.error(str(error))
        except Exception:
            self._log.exception('A callback failed; the node goes on.')

    def watch(self, condition: Any) -> None:
        self._waitset.attach(condition)

    def unwatch(self, condition: Any) -> None:
        self._waitset.detach(condition)

    def forget(self, end: Reader | Writer) -> None:
        """Delete a closed endpoint on the link's own thread, where nothing is using it."""
        def delete() -> None:
            with self._lock:
                ends: list[Any] = self._readers if isinstance(end, Reader) else self._writers
                if end in ends:
                    ends.remove(end)
            end.release()
            self._announce_soon()

        self.soon(delete)


@dataclass
class Timer:
    """A call that repeats, or comes once."""

    call: Callable[[], None]
    period_s: float
    once: bool = False
    closed: bool = field(default=False, init=False)

    def close(self) -> None:
        self.closed = True


class Reader:
    """Receives one topic's messages. Made by ``Link.reader``."""

    def __init__(self, link: Link, endpoint: Endpoint, on_data: OnData, any_reliability: bool) -> None:
        self._link, self._endpoint, self._on_data, self._any_reliability = link, endpoint, on_data, any_reliability
        self.is_open = True
        self._open()

    def _open(self) -> None:
        self.entity = self._link.open_entity(DataReader, self._endpoint)
        self._has_data = ReadCondition(self.entity, ANY_STATE)
        self._link.watch(self._has_data)
        if self._any_reliability and self._endpoint.reliable:
            self.entity.set_status_mask(DDSStatus.RequestedIncompatibleQos)
            self._link.watch(self.entity)

    def drain(self) -> None:
        """Hand over what has come. Called on the link's thread only."""
        if not self.is_open:
            return
        if self._any_reliability and self._endpoint.reliable:
            self._accept_best_effort_if_refused()
        samples = ddspy_take(self.entity._ref, ANY_STATE, self._endpoint.depth)
        if isinstance(samples, int):
            raise DDSException(samples, f'while taking from {self._endpoint.topic}')
        for data, info in samples:
            if info.valid_data and self.is_open:
                self._link.guard(self._on_data, data, info)

    def _accept_best_effort_if_refused(self) -> None:
        status = self.entity.get_requested_incompatible_qos_status()
        if status.total_count_change > 0 and status.last_policy_id == RELIABILITY_POLICY:
            self.release()
            self._endpoint = replace(self._endpoint, reliable=False)
            self._open()

    def writers(self) -> int:
        """How many writers are matched."""
        return len(self.entity.get_matched_publications()) if self.is_open else 0

    def sender_value(self, info: SampleInfo, key: str) -> str:
        """A value of the user data of whoever wrote a sample; '' if it is gone or gave none."""
        return self.writer_value(info.publication_handle, key)

    def writer_value(self, handle: int, key: str) -> str:
        found = self.entity.get_matched_publication_data(handle)
        return wire.user_data_value(found.qos, key) if found is not None else ''

    def writer_values(self, key: str) -> set[str]:
        return {self.writer_value(handle, key) for handle in self.entity.get_matched_publications()} if self.is_open else set()

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._link.forget(self)

    def release(self) -> None:
        self._link.unwatch(self._has_data)
        self._link.unwatch(self.entity)
        release(self._has_data)
        release(self.entity)


class Writer:
    """Sends one topic's messages. Made by ``Link.writer``; any thread may write."""

    def __init__(self, link: Link, endpoint: Endpoint) -> None:
        self._link, self._endpoint = link, endpoint
        self._lock = threading.Lock()
        self.is_open = True
        self.entity = link.open_entity(DataWriter, endpoint)

    def write(self, data: memoryview) -> None:
        """Send CDR bytes; nothing happens once the writer is closed. A reader that hangs can hold this up for 0.1 s."""
        with self._lock:
            if not self.is_open:
                return
            result = ddspy_write(self.entity._ref, data)
        if result < 0:
            raise TransportError(f'A message on {self._endpoint.topic} was not sent: {DDSException(result)} It may not be a '
                                 f'message of that type ({self._endpoint.ros_type}), or the network interface may be gone.')

    def readers(self) -> int:
        """How many readers are matched."""
        with self._lock:
            return len(self.entity.get_matched_subscriptions()) if self.is_open else 0

    def reader_values(self, key: str) -> set[str]:
        """The values matched readers give for a key of their user data."""
        with self._lock:
            if not self.is_open:
                return set()
            found = (self.entity.get_matched_subscription_data(handle) for handle in self.entity.get_matched_subscriptions())
            return {wire.user_data_value(reader.qos, key) for reader in found if reader is not None}

    def close(self) -> None:
        with self._lock:
            if not self.is_open:
                return
            self.is_open = False
        self._link.forget(self)

    def release(self) -> None:
        with self._lock:
            self.is_open = False
            release(self.entity)


def release(entity: Any) -> None:
    """Delete a DDS entity now, not when Python happens to collect it."""
    if hasattr(entity, '_ref'):
        entity.__del__()
        vars(entity).clear()    # its number may be given to another entity, which a second __del__ would take along


@dataclass
class _SharedDomain:
    """Cyclone has one configuration per domain and process; all links of a process share it."""

    domain_id: int
    config: str
    entity: Any
    links: int = 0


_domains: dict[int, _SharedDomain] = {}
_domains_lock = threading.Lock()


def _join_domain(domain_id: int, config: str) -> _SharedDomain:
    with _domains_lock:
        if domain_id not in _domains:
            try:
                _domains[domain_id] = _SharedDomain(domain_id, config, Domain(domain_id, config))
            except DDSException as error:
                raise TransportError(f'DDS domain {domain_id} cannot be joined: {error} Look at the interface (`ip link`), and '
                                     'whether more than 40 processes are in this domain on this machine.') from error
        domain = _domains[domain_id]
        if domain.config != config:
            raise TransportError(f'This process is already in DDS domain {domain_id} on another network interface. '
                                 'Use one interface per domain, or another domain id.')
        domain.links += 1
        return domain


def _leave_domain(domain: _SharedDomain) -> None:
    with _domains_lock:
        domain.links -= 1
        if domain.links == 0:
            del _domains[domain.domain_id]
            release(domain.entity)
