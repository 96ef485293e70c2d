"""ROS 2 services over a link, as rmw_cyclonedds sends them: a request topic, a reply topic, a header that ties them.

Knows messages and links, but no node. reference/transport.md: they cross to rmw_cyclonedds, not to rmw_fastrtps.
"""

from __future__ import annotations

import itertools
import logging
import struct
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from penguin_ros.core.bus import Message
from penguin_ros.core.errors import DeadlineError, PenguinError, TransportError
from penguin_ros.dds import wire
from penguin_ros.dds.link import Endpoint, Link

HEADER = struct.Struct('<Qq')           # who asks (the client's writer), and its running number
REPLY_PATIENCE_S = 1.0                  # how long a reply waits until the asker's reader has been discovered
RETRY_S = 0.01


class ServiceServer:
    """Answers one service. ``start`` runs on the link's thread; its Future may be resolved from any thread, in any order."""

    def __init__(self, link: Link, full_name: str, ros_type: str, start: Callable[[Message], Future[Message]],
                 log: logging.Logger) -> None:
        self._link, self._name, self._start, self._log = link, full_name, start, log
        self._request_type, self._response_type = f'{ros_type}_Request', f'{ros_type}_Response'
        tag = f'serviceid={_identity()};'
        self._writer = link.writer(Endpoint(
            topic=wire.reply_topic(full_name), ros_type=self._response_type, call=True, tag=tag))
        self._reader = link.reader(Endpoint(
            topic=wire.request_topic(full_name), ros_type=self._request_type, call=True, tag=tag), self._on_request)

    def _on_request(self, data: bytes, info: Any) -> None:
        request = self._link.types.decode(data, self._request_type, HEADER.size)
        header = data[4:4 + HEADER.size]
        asker = self._reader.sender_value(info, 'clientid')
        try:
            response = self._start(request)
        except PenguinError as error:
            response = Future()
            response.set_exception(error)
        response.add_done_callback(lambda done: self._reply(done, header, asker, time.monotonic() + REPLY_PATIENCE_S))

    def _reply(self, done: Future[Message], header: bytes, asker: str, give_up_s: float) -> None:
        """Send the response; a reply sent before the asker's reader is known would be lost, so wait for it a little."""
        if asker and asker not in self._writer.reader_values('clientid') and time.monotonic() < give_up_s:
            self._link.after(RETRY_S, lambda: self._reply(done, header, asker, give_up_s))
            return
        error = done.exception()
        try:
            response = done.result() if error is None else self._refusal(error)
            if response is not None:
                self._writer.write(self._link.types.encode(response, self._response_type, header))
        except (PenguinError, struct.error, AttributeError, ValueError) as problem:
            self._log.error(f'{self._name}: the response could not be sent: {problem}')

    def _refusal(self, error: BaseException) -> Message | None:
        self._log.error(f'{self._name} failed: {error}')
        fields = {name for name, _ in self._link.types.fields(self._response_type)}
        if not {'success', 'message'} <= fields:
            return None         # this service has no words for a failure; the asker's time-out must do
        return self._link.types.new(self._response_type, success=False, message=str(error))

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class ServiceClient:
    """Asks one service. Any thread may call."""

    def __init__(self, link: Link, full_name: str, ros_type: str) -> None:
        self._link, self._name = link, full_name
        self._request_type, self._response_type = f'{ros_type}_Request', f'{ros_type}_Response'
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Message]] = {}
        self._lock = threading.Lock()
        tag = f'clientid={_identity()};'
        self._reader = link.reader(Endpoint(
            topic=wire.reply_topic(full_name), ros_type=self._response_type, call=True, tag=tag), self._on_reply)
        self._writer = link.writer(Endpoint(
            topic=wire.request_topic(full_name), ros_type=self._request_type, call=True, tag=tag))
        self._guid = self._writer.entity.instance_handle & 0xFFFF_FFFF_FFFF_FFFF

    def is_available(self) -> bool:
        """Whether a server's reader and writer are both known; asking earlier could lose the request or the reply."""
        servers = self._writer.reader_values('serviceid') & self._reader.writer_values('serviceid')
        return bool(servers) and (servers != {''} or self._reader.writers() > 0)

    @property
    def answers(self) -> bool:
        """Whether a server is there that is known to answer: rmw_cyclonedds's and ours say so, rmw_fastrtps's cannot."""
        return bool(self._writer.reader_values('serviceid') & self._reader.writer_values('serviceid') - {''})

    def wait(self, timeout_s: float) -> bool:
        give_up_s = time.monotonic() + timeout_s
        while not self.is_available():
            if time.monotonic() >= give_up_s:
                return False
            time.sleep(RETRY_S)
        return True

    def start(self, request: Message) -> Future[Message]:
        """Send a request; the Future carries the response once it comes, if it comes."""
        number = next(self._numbers)
        response: Future[Message] = Future()
        with self._lock:
            self._waiting[number] = response
        self._writer.write(self._link.types.encode(request, self._request_type, HEADER.pack(self._guid, number)))
        return response

    def call(self, request: Message, timeout_s: float) -> Message:
        """Send a request and wait for the response. Raises DeadlineError when none comes in time."""
        give_up_s = time.monotonic() + timeout_s
        if not self.wait(timeout_s):
            raise TransportError(f'Nobody serves {self._name}. Start the node (penguin run) in the same domain (ROS_DOMAIN_ID) '
                                 'and on the same interface. ROS 2 nodes are reached where they run rmw_cyclonedds_cpp.')
        response = self.start(request)
        try:
            return response.result(max(0.0, give_up_s - time.monotonic()))
        except FutureTimeoutError:
            with self._lock:
                self._waiting = {number: waiting for number, waiting in self._waiting.items() if waiting is not response}
            raise DeadlineError(f'{self._name} has not answered within {timeout_s:g} s. Allow more time, or look at the '
                                "node's log.") from None

    def _on_reply(self, data: bytes, info: Any) -> None:
        guid, number = HEADER.unpack_from(data, 4)
        with self._lock:
            response = self._waiting.pop(number, None) if guid == self._guid else None
        if response is not None:
            response.set_result(self._link.types.decode(data, self._response_type, HEADER.size))

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _identity() -> str:
    """What ties a service's reader and writer together in the graph; written as rmw_cyclonedds writes it."""
    return '.'.join(f'{byte:x}' for byte in uuid.uuid4().bytes)
