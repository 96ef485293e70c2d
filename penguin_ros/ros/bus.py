"""The node's connection to ROS 2: a lifecycle node behind the bus contract. Knows nothing of what the node does with it.

One single-threaded executor on one thread runs every callback. A service or action callback is a coroutine that waits for
what a worker thread settles; its callback group must be reentrant, or everything else in the group would wait with it.
"""

from __future__ import annotations

import array
import functools
import importlib
import logging
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import rclpy.task
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from penguin_ros.core.bus import Job, JobResult, Lifecycle, Message, Setting
from penguin_ros.core.encoding import check_image, rgb_from_compressed, rgb_from_image
from penguin_ros.core.errors import ConfigError
from penguin_ros.core.settings import check_value
from penguin_ros.ros.lifecycle import ManagedNode
from penguin_ros.ros.log import logger_of
from penguin_ros.ros.parameters import descriptor_of, in_type_of

try:
    from cv_bridge import CvBridge
except ImportError:
    CvBridge = None         # core/encoding.py has the same conversions

STOP_CHECK_S = 0.2          # how late a request to stop may be noticed
DELIVERY_S = 1.0            # how long the last answers may take to be sent
BRIDGED = {     # encodings left to cv_bridge, with their bytes a pixel
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1}
NEWEST_IMAGE = QoSProfile(      # best effort takes reliable cameras as well as best-effort ones
    reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST, depth=1)
RELIABLE = QoSProfile(reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST, depth=10)
LATCHED = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL,
    history=HistoryPolicy.KEEP_LAST, depth=1)
RCLPY_PARAMETERS = ('use_sim_time', 'qos_overrides', 'start_type_description_service')  # not ours, and rightly there

Result = TypeVar('Result')


class RclpyBus:
    """Implements bus.Bus. Made in an initialised rclpy context; ``run`` gives it its thread."""

    def __init__(self, node_name: str, *, settings: Mapping[str, Any] | None = None, context: Context | None = None) -> None:
        """``settings`` are values for what the node will declare, over those of the command line's parameter files."""
        given = [Parameter(name, value=value) for name, value in (settings or {}).items()]
        self._declared: dict[str, Setting] = {}
        self._node = ManagedNode(node_name, self._take_transition, self._declared, parameter_overrides=given, context=context)
        self._context = self._node.context
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._log = logger_of(self._node)
        self._waiting = ReentrantCallbackGroup()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._cv_bridge = CvBridge() if CvBridge is not None else None
        self._lifecycle: Lifecycle | None = None
        self._refused = ''          # why the last transition was
        self._configured = self._active = False
        self._unsettled = 0         # services and jobs whose answer is awaited
        self._check: Callable[[Mapping[str, Any]], str | None] = lambda proposed: None
        self._changed: Callable[[Mapping[str, Any]], None] = lambda accepted: None
        self.failures = 0           # exceptions that callbacks let out
        self._node.add_on_set_parameters_callback(self._on_set_parameters)
        if hasattr(self._node, 'add_post_set_parameters_callback'):
            self._node.add_post_set_parameters_callback(self._on_parameters_set)

    # -- running -------------------------------------------------------------------------------------------------

    def manage(self, lifecycle: Lifecycle) -> None:
        """Say who is asked when the node changes state."""
        self._lifecycle = lifecycle

    def change_state(self, transition: str) -> str | None:
        """Take a lifecycle transition ('configure', 'activate', ...); a returned text says why it was refused."""
        self._refused = f'{transition} failed. See the log of the node.'
        done = getattr(self._node, f'trigger_{transition}')() == TransitionCallbackReturn.SUCCESS
        return None if done else self._refused

    def run(self, stop: threading.Event) -> None:
        """Run callbacks on this thread until stopped, or until the context is shut down by somebody else."""
        while self._context.ok() and not stop.is_set():
            try:
                self._executor.spin_once(timeout_sec=STOP_CHECK_S)
            except (ExternalShutdownException, ShutdownException):
                return
            except Exception:  # of rclpy's own callbacks: one bad request must not end the node
                self._count_failure('a callback of rclpy')

    def close(self) -> None:
        """Leave the lifecycle in order, then ROS. Not while ``run`` runs."""
        if not self._context.ok():
            self._take_transition('cleanup')        # somebody ended ROS under us; nothing can be said any more
        elif not self._node.is_finalized:
            if self._active:
                self._node.trigger_deactivate()
                self._deliver_answers()
            self._node.trigger_shutdown()
        self._executor.shutdown()
        self._node.destroy_node()

    def _deliver_answers(self) -> None:
        """Questions were settled with the worker's end; whoever asked should hear it rather than wait for a timeout."""
        give_up_s = time.monotonic() + DELIVERY_S
        while self._unsettled and time.monotonic() < give_up_s:
            self._executor.spin_once(timeout_sec=0.01)

    def _take_transition(self, transition: str) -> TransitionCallbackReturn:
        if self._lifecycle is None:
            return TransitionCallbackReturn.SUCCESS
        try:
            refusal = getattr(self._lifecycle, transition)()
        except Exception:
            self._count_failure(transition)
            return TransitionCallbackReturn.ERROR
        if refusal:
            self._refused = refusal
            self._log.error('%s was refused: %s', transition, refusal)
            return TransitionCallbackReturn.FAILURE
        self._active = transition == 'activate'
        if transition in ('configure', 'cleanup'):
            self._configured = transition == 'configure'
        if transition == 'configure':
            self._warn_of_unknown_parameters()
        return TransitionCallbackReturn.SUCCESS

    # -- clock, messages, log ------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def new(self, type_name: str, **fields: Any) -> Message:
        made = _message_class(type_name)
        field_types = made.get_fields_and_field_types()
        for name, value in fields.items():
            if isinstance(value, bytes) and field_types.get(name) == 'sequence<uint8>':
                fields[name] = array.array('B', value)  # the one type rclpy takes over without a look at every byte
        return made(**fields)

    def log(self) -> logging.Logger:
        return self._log

    def capabilities(self) -> frozenset[str]:
        return frozenset({'services', 'actions', 'lifecycle', 'parameters', 'graph'})

    # -- images --------------------------------------------------------------------------------------------------

    def newest_image(self, topic: str, on_image: Callable[[Message], None], *, compressed: bool) -> _Handle:
        subscription = self._node.create_subscription(
            CompressedImage if compressed else Image, topic, self._guarded(f'an image on {topic}', on_image), NEWEST_IMAGE)
        return _Handle(lambda: self._node.destroy_subscription(subscription))

    def rgb(self, image: Message, *, max_pixels: int) -> np.ndarray:
        if isinstance(image, CompressedImage):
            return rgb_from_compressed(image.data, image.format, max_pixels=max_pixels)
        layout: dict[str, Any] = {'encoding': image.encoding, 'width': image.width, 'height': image.height, 'step': image.step}
        if self._cv_bridge is not None and image.encoding in BRIDGED:
            check_image(image.data, **layout, max_pixels=max_pixels)
            # cv_bridge reads rows padded to no whole number of pixels askew, and cannot swap bytes under numpy 2.
            if image.step % BRIDGED[image.encoding] == 0 and not image.is_bigendian:
                pixels = self._cv_bridge.imgmsg_to_cv2(image, 'rgb8')
                pixels.flags.writeable = False
                return pixels
        return rgb_from_image(image.data, **layout, is_bigendian=bool(image.is_bigendian), max_pixels=max_pixels)

    # -- topics and timers ---------------------------------------------------------------------------------------

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None]) -> _Handle:
        subscription = self._node.create_subscription(
            _message_class(type_name), topic, self._guarded(f'a message on {topic}', on_message), RELIABLE)
        return _Handle(lambda: self._node.destroy_subscription(subscription))

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> _Publisher:
        publisher = self._node.create_publisher(_message_class(type_name), topic, LATCHED if latched else RELIABLE)
        return _Publisher(publisher, lambda: self._node.destroy_publisher(publisher))

    def every(self, period_s: float, call: Callable[[], None]) -> _Handle:
        # By the steady clock: the node must say that it is well also when simulated time stands still.
        timer = self._node.create_timer(period_s, self._guarded('a timer', call), clock=self._steady)
        return _Handle(lambda: self._node.destroy_timer(timer))

    # -- services and jobs ---------------------------------------------------------------------------------------

    def serve(self, name: str, type_name: str, start: Callable[[Message], Future[Message]]) -> _Handle:
        async def answer(request: Message, response: Message) -> Message:
            try:
                return await self._settled(start(request))
            except Exception as error:
                return _explained(response, self._count_failure(f'service {name}', error))

        service = self._node.create_service(_interface(type_name), name, answer, callback_group=self._waiting)
        return _Handle(lambda: self._node.destroy_service(service))

    def job(self, name: str, type_name: str, start: Callable[[Job], Future[JobResult]]) -> _Handle:
        running: dict[bytes, _Job] = {}

        async def execute(goal: ServerGoalHandle) -> Message:
            job = _Job(goal)
            running[bytes(goal.goal_id.uuid)] = job
            try:
                if goal.is_cancel_requested:    # between acceptance and this moment
                    job.cancelled.set()
                result = await self._settled(start(job))
            except Exception as error:
                empty = _interface(type_name).Result()
                result = JobResult('aborted', _explained(empty, self._count_failure(f'action {name}', error)))
            finally:
                del running[bytes(goal.goal_id.uuid)]
            if result.outcome == 'succeeded':
                goal.succeed()
            elif result.outcome == 'canceled' and goal.is_cancel_requested:
                goal.canceled()
            else:
                goal.abort()
            return result.message

        def cancel(goal: ServerGoalHandle) -> CancelResponse:
            job = running.get(bytes(goal.goal_id.uuid))
            if job is not None:
                job.cancelled.set()
            return CancelResponse.ACCEPT

        server = ActionServer(self._node, _interface(type_name), name, execute, cancel_callback=cancel,
                              callback_group=self._waiting)
        return _Handle(server.destroy)

    async def _settled(self, work: Future[Result]) -> Result:
        """Wait, without holding the executor's thread, for what another thread settles."""
        arrived = rclpy.task.Future(executor=self._executor)

        def hand_over(_: Future[Result]) -> None:
            arrived.set_result(None)
            self._executor.wake()       # setting a result wakes nobody

        work.add_done_callback(hand_over)
        self._unsettled += 1
        await arrived
        self._unsettled -= 1
        return work.result()

    # -- settings ------------------------------------------------------------------------------------------------

    def declare(self, settings: Sequence[Setting], check: Callable[[Mapping[str, Any]], str | None],
                changed: Callable[[Mapping[str, Any]], None]) -> Mapping[str, Any]:
        self._check, self._changed = check, changed
        for setting in settings:
            if setting.name not in self._declared:
                self._declare(setting)
        return self.settings()

    def settings(self) -> Mapping[str, Any]:
        return {name: in_type_of(setting, self._node.get_parameter(name).value) for name, setting in self._declared.items()}

    def _declare(self, setting: Setting) -> None:
        default = list(setting.default) if isinstance(setting.default, (list, tuple)) else setting.default
        # The range comes second: our refusal of a value from a parameter file says more than rclpy's.
        value = self._node.declare_parameter(setting.name, default, ParameterDescriptor(dynamic_typing=True)).value
        problem = check_value(setting, in_type_of(setting, value))
        if problem:
            self._node.undeclare_parameter(setting.name)
            raise ConfigError(f'{problem} Correct it in the parameter file or on the command line.')
        self._node.set_descriptor(setting.name, descriptor_of(setting))
        self._declared[setting.name] = setting

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        proposed = {parameter.name: parameter.value for parameter in parameters if parameter.name in self._declared}
        problem = self._refusal(proposed) if proposed else None
        if proposed and problem is None and not hasattr(self._node, 'add_post_set_parameters_callback'):
            self._executor.create_task(self._on_parameters_set, parameters)     # Humble: as soon as they are in force
        return SetParametersResult(successful=problem is None, reason=problem or '')

    def _refusal(self, proposed: Mapping[str, Any]) -> str | None:
        try:
            for name, value in proposed.items():
                setting = self._declared[name]
                if self._configured and not setting.live:
                    return (f'{name} can be set only while the node is not configured. Clean it up first: '
                            f'ros2 lifecycle set {self._node.get_fully_qualified_name()} deactivate, then cleanup.')
                problem = check_value(setting, in_type_of(setting, value))
                if problem:
                    return problem
            return self._check({name: in_type_of(self._declared[name], value) for name, value in proposed.items()})
        except Exception as error:
            return f'it cannot be checked: {self._count_failure("the check of a parameter", error)}'

    def _on_parameters_set(self, parameters: list[Parameter]) -> None:
        accepted = {parameter.name: in_type_of(self._declared[parameter.name], parameter.value)
                    for parameter in parameters if parameter.name in self._declared}
        if accepted:
            self._guarded('a changed parameter', self._changed)(accepted)

    def _warn_of_unknown_parameters(self) -> None:
        """A misspelt name in a parameter file would otherwise do nothing, in silence."""
        for name in getattr(self._node, '_parameter_overrides', {}):
            if not self._node.has_parameter(name) and name.split('.')[0] not in RCLPY_PARAMETERS:
                self._log.warning('%s It was given in a parameter file or on the command line, and does nothing.',
                                  self._node.no_such_parameter(name))

    # -- failures ------------------------------------------------------------------------------------------------

    def _guarded(self, what: str, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            try:
                call(*arguments)
            except Exception as error:
                self._count_failure(what, error)

        return guarded

    def _count_failure(self, what: str, error: Exception | None = None) -> str:
        """Log the exception in hand; the text is for whoever waits for an answer."""
        self.failures += 1
        self._log.exception('%s failed', what)
        error = error or sys.exc_info()[1]  # type: ignore[assignment]
        return f'{type(error).__name__}: {error}. See the log of the node.'


class _Handle:
    """Closes once."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close: Callable[[], object] | None = close

    @property
    def is_open(self) -> bool:
        return self._close is not None

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()


class _Publisher(_Handle):
    """Implements bus.Publisher; rclpy's own is thread safe."""

    def __init__(self, publisher: Any, close: Callable[[], object]) -> None:
        super().__init__(close)
        self._publisher = publisher

    def publish(self, message: Message) -> None:
        if self.is_open:
            self._publisher.publish(message)

    def subscribers(self) -> int:
        return int(self._publisher.get_subscription_count()) if self.is_open else 0


class _Job:
    """Implements bus.Job over an accepted goal."""

    def __init__(self, goal: ServerGoalHandle) -> None:
        self._goal = goal
        self.request: Message = goal.request
        self.cancelled = threading.Event()

    def feedback(self, message: Message) -> None:
        self._goal.publish_feedback(message)


@functools.cache
def _message_class(type_name: str) -> Any:
    """'penguin_ros/msg/Answer' -> the class; also 'penguin_ros/srv/Ask_Response', a part of a service or an action."""
    package, kind, name = type_name.split('/')
    whole, _, part = name.partition('_')
    found = _interface(f'{package}/{kind}/{whole}')
    return getattr(found, part) if part else found


def _interface(type_name: str) -> Any:
    package, kind, name = type_name.split('/')
    module: types.ModuleType = importlib.import_module(f'{package}.{kind}')
    return getattr(module, name)


def _explained(response: Message, reason: str) -> Message:
    """Our responses and results have success and message; anything else stays empty."""
    if hasattr(response, 'success') and hasattr(response, 'message'):
        response.success, response.message = False, reason
    return response
