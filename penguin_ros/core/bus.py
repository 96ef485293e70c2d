"""What the node needs from any middleware: images in, messages out, services, jobs, settings, timers. Knows no middleware.

Kept by the in-memory bus of the tests, by dds/bus.py and by ros/bus.py; one contract test suite runs against all three.
Message objects only need ROS attribute names; they are made by ``Bus.new``. Type names are ROS's: 'penguin_ros/msg/Answer',
and for the parts of services and actions 'penguin_ros/srv/Ask_Response', 'penguin_ros/action/AskStream_Feedback'.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Message = Any
"""A message object with ROS attribute names: an rclpy message, or a rosbags dataclass."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting a user may turn, as a middleware declares it."""

    name: str                           # dotted, 'token_budget.window_tokens'
    default: bool | int | float | str | list[str]
    about: str                          # one sentence with the unit
    low: float | None = None            # range of a number, both ends included
    high: float | None = None
    choices: Sequence[str] = ()
    live: bool = False                  # may change while the node runs; others are read when it is configured


class Handle(Protocol):
    """Something open that can be closed: a subscription, a service, a timer."""

    def close(self) -> None: ...


class Publisher(Protocol):
    """One topic's outlet; may be used from any thread."""

    def publish(self, message: Message) -> None: ...

    def subscribers(self) -> int: ...   # how many listen now, as far as the middleware can tell

    def close(self) -> None: ...


class Job(Protocol):
    """One accepted request of a streaming job (an action goal)."""

    @property
    def request(self) -> Message: ...

    @property
    def cancelled(self) -> threading.Event: ...     # set when whoever asked no longer wants the result

    def feedback(self, message: Message) -> None: ...   # may be called from any thread


@dataclass(frozen=True)
class JobResult:
    """How a job ended; ``outcome`` is 'succeeded', 'aborted' or 'canceled' (ROS 2's words)."""

    outcome: str
    message: Message


class Lifecycle(Protocol):
    """What a bus calls when the node is asked to change state. A returned text refuses the transition and is logged."""

    def configure(self) -> str | None: ...

    def activate(self) -> str | None: ...

    def deactivate(self) -> str | None: ...

    def cleanup(self) -> str | None: ...


class Bus(Protocol):
    """One node's connection to a middleware. Names of topics are relative, or start with '~/' for the node's own.

    Callbacks come on the bus's own thread and must return at once; what takes time is answered through a Future.
    """

    def now_ns(self) -> int: ...        # ROS time (simulated where so configured), nanoseconds

    def new(self, type_name: str, **fields: Any) -> Message: ...   # fields left out have their default values

    def newest_image(self, topic: str, on_image: Callable[[Message], None], *, compressed: bool) -> Handle:
        """Subscribe to camera images, newest wins: queue of one, best effort or reliable, whatever the camera offers."""
        ...

    def rgb(self, image: Message, *, max_pixels: int) -> np.ndarray:
        """Pixels of an Image or CompressedImage message, uint8 [height, width, 3], RGB; a view where that is possible.

        Raises ImageError (core/encoding.py) for anything that cannot be used. May be called from any thread.
        """
        ...

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None]) -> Handle: ...

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> Publisher:
        """A reliable outlet; latched keeps the last message for those who come later."""
        ...

    def serve(self, name: str, type_name: str, start: Callable[[Message], Future[Message]]) -> Handle:
        """Answer requests of a service. ``start`` returns at once; the Future carries the response."""
        ...

    def job(self, name: str, type_name: str, start: Callable[[Job], Future[JobResult]]) -> Handle:
        """Serve a streaming job as an action. A bus without actions raises TransportError; see ``capabilities``."""
        ...

    def declare(self, settings: Sequence[Setting], check: Callable[[Mapping[str, Any]], str | None],
                changed: Callable[[Mapping[str, Any]], None]) -> Mapping[str, Any]:
        """Declare settings and return their values in force.

        ``check`` sees proposed changes, must have no side effect, and refuses them all by returning a text; ``changed``
        is told the accepted ones. Ranges, choices and unknown names are refused by the bus itself. A setting that is not
        live can be set only while the node is not configured.
        """
        ...

    def settings(self) -> Mapping[str, Any]: ...        # values in force

    def every(self, period_s: float, call: Callable[[], None]) -> Handle: ...

    def log(self) -> logging.Logger: ...

    def capabilities(self) -> frozenset[str]: ...       # of 'services', 'actions', 'lifecycle', 'parameters', 'graph'
