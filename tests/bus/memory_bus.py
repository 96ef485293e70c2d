"""A bus in memory, for tests: core/bus.py's contract without any middleware. Knows message types, but no wire.

All buses of one Hub hear each other. Each has one thread for its callbacks, as the real ones; messages are copied on the way.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penguin_ros.core.bus import Job, JobResult, Lifecycle, Message, Setting
from penguin_ros.core.errors import TransportError
from penguin_ros.dds.interfaces import rgb_from_msg, ros_types
from penguin_ros.dds.lifecycle import LABELS, UNCONFIGURED, States
from penguin_ros.dds.setting_table import Changed, Check, SettingTable

Start = Callable[[Any], Future[Any]]


@dataclass
class Hub:
    """What several memory buses share."""

    listeners: dict[str, list[Listener]] = field(default_factory=lambda: defaultdict(list))
    latched: dict[str, Message] = field(default_factory=dict)
    services: dict[str, tuple[MemoryBus, Start]] = field(default_factory=dict)
    jobs: dict[str, tuple[MemoryBus, Start]] = field(default_factory=dict)


@dataclass(eq=False)
class Listener:
    """One subscription; with ``newest_only`` a message that was not yet handed over is replaced by the next."""

    bus: MemoryBus
    topic: str
    on_message: Callable[[Message], None]
    newest_only: bool = False
    waiting: Message | None = None
    closed: bool = False

    def receive(self, message: Message) -> None:
        if not self.newest_only:
            self.bus.soon(lambda: self._hand_over(message))
            return
        under_way, self.waiting = self.waiting is not None, message
        if not under_way:
            self.bus.soon(self._hand_over_waiting)

    def _hand_over_waiting(self) -> None:
        message, self.waiting = self.waiting, None
        self._hand_over(message)

    def _hand_over(self, message: Message) -> None:
        if not self.closed:
            self.on_message(message)

    def close(self) -> None:
        self.closed = True
        if self in self.bus.hub.listeners[self.topic]:
            self.bus.hub.listeners[self.topic].remove(self)


@dataclass
class Outlet:
    hub: Hub
    topic: str
    type_name: str
    latched: bool
    closed: bool = False

    def publish(self, message: Message) -> None:
        if self.closed:
            return
        types = ros_types()     # through the bytes, so that what no real bus could send fails here too
        received = types.decode(types.encode(copy.deepcopy(message), self.type_name), self.type_name)
        if self.latched:
            self.hub.latched[self.topic] = received
        for listener in list(self.hub.listeners[self.topic]):
            listener.receive(received)

    def wait_matched(self) -> None:
        give_up_s = time.monotonic() + 5.0
        while not self.subscribers():
            assert time.monotonic() < give_up_s, f'nobody listens to {self.topic}'
            time.sleep(0.005)

    def subscribers(self) -> int:
        return 0 if self.closed else len(self.hub.listeners[self.topic])

    def close(self) -> None:
        self.closed = True


@dataclass
class MemoryJob:
    """A job as the bus hands it over, and a goal as the peer holds it."""

    request: Message
    on_feedback: Callable[[Message], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: Future[JobResult] = field(default_factory=Future)

    def feedback(self, message: Message) -> None:
        self.on_feedback(message)

    def cancel(self) -> bool:
        if self.ended.done():
            return False
        self.cancelled.set()
        return True

    def result(self, timeout_s: float) -> JobResult:
        return self.ended.result(timeout_s)


@dataclass
class Closer:
    close: Callable[[], None]


@dataclass
class Timer:
    call: Callable[[], None]
    period_s: float
    closed: bool = False

    def close(self) -> None:
        self.closed = True


class MemoryBus:
    """One node. Also has what a peer needs: ``outlet``, ``ask``, ``start_goal``."""

    def __init__(self, hub: Hub, node_name: str, *, settings: Mapping[str, Any] | None = None,
                 now_ns: Callable[[], int] = time.time_ns) -> None:
        self.hub, self.node_name = hub, node_name
        self._table = SettingTable(settings or {})
        self._log = logging.getLogger(f'memory.{node_name}')
        self._now_ns = now_ns
        self.states: States | None = None
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None] | Timer]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f'memory bus {node_name}', daemon=True)
        self._thread.start()

    # -- the contract ------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        return self._now_ns()

    def new(self, type_name: str, **fields: Any) -> Message:
        return ros_types().new(type_name, **fields)

    def newest_image(self, topic: str, on_image: Callable[[Message], None], *, compressed: bool) -> Listener:
        return self._listen(Listener(self, self.full(topic), on_image, newest_only=True))

    def rgb(self, image: Message, *, max_pixels: int) -> np.ndarray:
        return rgb_from_msg(image, max_pixels=max_pixels)

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None], *, latched: bool = False) -> Listener:
        listener = self._listen(Listener(self, self.full(topic), on_message))
        if latched and listener.topic in self.hub.latched:
            listener.receive(self.hub.latched[listener.topic])
        return listener

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> Outlet:
        return Outlet(self.hub, self.full(topic), type_name, latched)

    def serve(self, name: str, type_name: str, start: Start) -> Closer:
        full = self.full(name)
        self.hub.services[full] = self, start
        return Closer(lambda: self.hub.services.pop(full, None) and None)

    def job(self, name: str, type_name: str, start: Callable[[Job], Future[JobResult]]) -> Closer:
        full = self.full(name)
        self.hub.jobs[full] = self, start
        return Closer(lambda: self.hub.jobs.pop(full, None) and None)

    def declare(self, settings: Sequence[Setting], check: Check, changed: Changed) -> Mapping[str, Any]:
        return self._table.declare(settings, check, changed)

    def settings(self) -> Mapping[str, Any]:
        return self._table.values()

    def every(self, period_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call, period_s)
        self._schedule(time.monotonic() + period_s, timer)
        return timer

    def log(self) -> logging.Logger:
        return self._log

    def capabilities(self) -> frozenset[str]:
        return frozenset({'services', 'actions', 'lifecycle', 'parameters'})

    # -- for tests ---------------------------------------------------------------------------------------------------

    def full(self, name: str) -> str:
        return f'/{self.node_name}/{name[2:]}' if name.startswith('~/') else '/' + name.lstrip('/')

    def manage(self, node: Lifecycle) -> None:
        self.states = States(node, self._log, lambda transition, before, after: None)

    def set_settings(self, values: Mapping[str, Any]) -> str | None:
        return self._table.change(values, configured=self.states is not None and self.states.state != UNCONFIGURED)

    def outlet(self, topic: str, type_name: str, *, reliable: bool = True, latched: bool = False) -> Outlet:
        return self.advertise(topic, type_name, latched=latched)

    def ask(self, service: str, type_name: str, request: Message) -> Future[Message]:
        if service not in self.hub.services:
            raise TransportError(f'nobody serves {service}')
        bus, start = self.hub.services[service]
        response: Future[Message] = Future()
        bus.soon(lambda: start(request).add_done_callback(lambda done: _pass_on(done, response)))
        return response

    def start_goal(self, name: str, type_name: str, goal: Message, on_feedback: Callable[[Message], None]) -> MemoryJob:
        bus, start = self.hub.jobs[name]
        job = MemoryJob(goal, on_feedback)
        bus.soon(lambda: start(job).add_done_callback(lambda done: _pass_on(done, job.ended)))
        return job

    def soon(self, call: Callable[[], None]) -> None:
        self._schedule(0.0, call)

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _listen(self, listener: Listener) -> Listener:
        self.hub.listeners[listener.topic].append(listener)
        return listener

    def _schedule(self, due_s: float, what: Callable[[], None] | Timer) -> None:
        with self._changed:
            heapq.heappush(self._due, (due_s, next(self._order), what))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not (self._due and self._due[0][0] <= time.monotonic()):
                    self._changed.wait(max(0.0, self._due[0][0] - time.monotonic()) if self._due else None)
                if self._stopping:
                    return
                due_s, _, what = heapq.heappop(self._due)
            if isinstance(what, Timer):
                if what.closed:
                    continue
                self._schedule(max(due_s + what.period_s, time.monotonic()), what)
            try:
                what.call() if isinstance(what, Timer) else what()
            except Exception:
                self._log.exception('A callback failed; the bus goes on.')


@dataclass
class MemoryPeer:
    """The rest of the world for one memory bus."""

    me: MemoryBus
    node: MemoryBus

    def __getattr__(self, name: str) -> Any:
        return getattr(self.me, name)       # new, outlet, listen, ask, start_goal: the same on both sides

    def set_settings(self, values: Mapping[str, Any]) -> str | None:
        return self.node.set_settings(values)

    def change_state(self, transition: str) -> bool:
        assert self.node.states is not None
        return self.node.states.take(transition) is None

    def state(self) -> str:
        assert self.node.states is not None
        return LABELS[self.node.states.state]


def _pass_on(done: Future[Any], to: Future[Any]) -> None:
    error = done.exception()
    if error is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
