"""ROS 2 actions: three services and two topics per action, as rclpy's clients and servers expect. Knows no DDS, only a bus.

https://design.ros2.org/articles/actions.html
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penguin_ros.core.bus import Job, JobResult, Message
from penguin_ros.core.errors import CancelledError, DeadlineError, PenguinError, TransportError

if TYPE_CHECKING:
    from penguin_ros.dds.bus import DdsBus

UNKNOWN, ACCEPTED, EXECUTING, CANCELING, SUCCEEDED, CANCELED, ABORTED = range(7)     # action_msgs/msg/GoalStatus
OUTCOMES = {'succeeded': SUCCEEDED, 'canceled': CANCELED, 'aborted': ABORTED}
CANCEL_REJECTED, CANCEL_UNKNOWN_GOAL, CANCEL_TERMINATED = 1, 2, 3                   # action_msgs/srv/CancelGoal
RESULT_KEPT_S = 60.0            # how long a result can be fetched after the goal has ended


@dataclass
class Goal:
    """One goal as the server holds it; a bus.Job for whoever works on it."""

    goal_id: bytes
    request: Message
    accepted_ns: int
    send_feedback: Callable[[Goal, Message], None]
    status: int = ACCEPTED
    cancelled: threading.Event = field(default_factory=threading.Event)
    result: Future[JobResult] = field(default_factory=Future)
    ended_s: float = float('inf')

    def feedback(self, message: Message) -> None:
        if not self.result.done():
            self.send_feedback(self, message)


class ActionServer:
    """Serves one action. Its callbacks come on the bus's thread; ``start`` must return at once."""

    def __init__(self, bus: DdsBus, name: str, ros_type: str, start: Callable[[Job], Future[JobResult]]) -> None:
        self._bus, self._type, self._start = bus, ros_type, start
        self._goals: dict[bytes, Goal] = {}
        self._lock = threading.Lock()
        self._feedback = bus.advertise(f'{name}/_action/feedback', f'{ros_type}_FeedbackMessage')
        self._status = bus.advertise(f'{name}/_action/status', 'action_msgs/msg/GoalStatusArray', latched=True)
        self._open = [
            bus.serve(f'{name}/_action/send_goal', f'{ros_type}_SendGoal', self._on_goal),
            bus.serve(f'{name}/_action/cancel_goal', 'action_msgs/srv/CancelGoal', self._on_cancel),
            bus.serve(f'{name}/_action/get_result', f'{ros_type}_GetResult', self._on_get_result),
            self._feedback, self._status]

    def close(self) -> None:
        for handle in self._open:
            handle.close()
        for goal in list(self._goals.values()):
            goal.cancelled.set()

    def _on_goal(self, request: Message) -> Future[Message]:
        response: Future[Message] = Future()
        goal = Goal(request.goal_id.uuid.tobytes(), request.goal, self._bus.now_ns(), self._send_feedback)
        with self._lock:
            self._forget_old()
            is_new = goal.goal_id not in self._goals
            if is_new:
                self._goals[goal.goal_id] = goal
        response.set_result(self._bus.new(
            f'{self._type}_SendGoal_Response', accepted=is_new, stamp=_stamp(self._bus, goal.accepted_ns)))
        if is_new:
            self._bus.soon(lambda: self._begin(goal))   # so that the asker knows of its goal before the first feedback comes
        return response

    def _begin(self, goal: Goal) -> None:
        self._set_status(goal, EXECUTING)
        try:
            outcome = self._start(goal)
        except PenguinError as error:
            outcome = Future()
            outcome.set_exception(error)
        outcome.add_done_callback(lambda done: self._finish(goal, done))

    def _finish(self, goal: Goal, done: Future[JobResult]) -> None:
        error = done.exception()
        if error is not None:
            self._bus.log().error(f'a goal of {self._type} failed: {error}')
            result = self._bus.new(f'{self._type}_Result')
            if hasattr(result, 'message'):
                result.message = str(error)
            ended = JobResult('canceled' if isinstance(error, CancelledError) else 'aborted', result)
        else:
            ended = done.result()
        goal.ended_s = time.monotonic()
        self._set_status(goal, OUTCOMES[ended.outcome])
        goal.result.set_result(ended)

    def _on_cancel(self, request: Message) -> Future[Message]:
        """Cancel one goal, or all that were accepted until a moment, or all (design article, "Cancel Goal")."""
        wanted = request.goal_info.goal_id.uuid.tobytes()
        stamp = request.goal_info.stamp
        until_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        with self._lock:
            goals = list(self._goals.values())
        one = [goal for goal in goals if goal.goal_id == wanted]
        before = [goal for goal in goals if goal.accepted_ns <= until_ns]
        everyone = not any(wanted) and not until_ns
        chosen = {goal.goal_id: goal for goal in (goals if everyone else one + before)}
        running = [goal for goal in chosen.values() if not goal.result.done()]
        for goal in running:
            self._set_status(goal, CANCELING)
            goal.cancelled.set()
        code = 0 if running else CANCEL_TERMINATED if one else CANCEL_UNKNOWN_GOAL if any(wanted) else CANCEL_REJECTED
        response: Future[Message] = Future()
        response.set_result(self._bus.new('action_msgs/srv/CancelGoal_Response', return_code=code,
                                          goals_canceling=[self._goal_info(goal) for goal in running]))
        return response

    def _on_get_result(self, request: Message) -> Future[Message]:
        response: Future[Message] = Future()
        with self._lock:
            goal = self._goals.get(request.goal_id.uuid.tobytes())
        type_name = f'{self._type}_GetResult_Response'
        if goal is None:
            response.set_result(self._bus.new(type_name, status=UNKNOWN))
        else:
            goal.result.add_done_callback(lambda done: response.set_result(self._bus.new(
                type_name, status=OUTCOMES[done.result().outcome], result=done.result().message)))
        return response

    def _send_feedback(self, goal: Goal, message: Message) -> None:
        self._feedback.publish(self._bus.new(
            f'{self._type}_FeedbackMessage', goal_id=_goal_id(self._bus, goal.goal_id), feedback=message))

    def _set_status(self, goal: Goal, status: int) -> None:
        with self._lock:
            if goal.status < SUCCEEDED:
                goal.status = status
            goals = list(self._goals.values())
        self._status.publish(self._bus.new('action_msgs/msg/GoalStatusArray', status_list=[
            self._bus.new('action_msgs/msg/GoalStatus', goal_info=self._goal_info(held), status=held.status)
            for held in goals]))

    def _goal_info(self, goal: Goal) -> Message:
        return self._bus.new('action_msgs/msg/GoalInfo', goal_id=_goal_id(self._bus, goal.goal_id),
                             stamp=_stamp(self._bus, goal.accepted_ns))

    def _forget_old(self) -> None:
        long_ago_s = time.monotonic() - RESULT_KEPT_S
        self._goals = {key: goal for key, goal in self._goals.items() if goal.ended_s > long_ago_s}


class ActionClient:
    """Asks for goals of one action. Any thread may use it."""

    def __init__(self, bus: DdsBus, name: str, ros_type: str) -> None:
        self._bus, self._name, self._type = bus, name, ros_type
        self._listeners: dict[bytes, Callable[[Message], None]] = {}
        self._send = bus.client(f'{name}/_action/send_goal', f'{ros_type}_SendGoal')
        self._get = bus.client(f'{name}/_action/get_result', f'{ros_type}_GetResult')
        self._cancel = bus.client(f'{name}/_action/cancel_goal', 'action_msgs/srv/CancelGoal')
        self._feedback = bus.listen(f'{name}/_action/feedback', f'{ros_type}_FeedbackMessage', self._on_feedback)

    @property
    def answers(self) -> bool:
        """Whether a server is there that is known to answer."""
        return all(client.answers for client in (self._send, self._get, self._cancel)) and self._feedback.writers() > 0

    def wait(self, timeout_s: float) -> bool:
        give_up_s = time.monotonic() + timeout_s
        return all(client.wait(max(0.0, give_up_s - time.monotonic())) for client in (self._send, self._get, self._cancel))

    def start(self, goal: Message, on_feedback: Callable[[Message], None], timeout_s: float) -> SentGoal:
        """Send a goal and wait until it is accepted. Feedback comes on the bus's thread."""
        goal_id = uuid.uuid4().bytes
        self._listeners[goal_id] = on_feedback
        response = self._send.call(self._bus.new(
            f'{self._type}_SendGoal_Request', goal_id=_goal_id(self._bus, goal_id), goal=goal), timeout_s)
        if not response.accepted:
            raise TransportError(f'{self._name} did not accept the goal. Look at the log of the node that serves it.')
        return SentGoal(self, goal_id, self._get.start(self._bus.new(
            f'{self._type}_GetResult_Request', goal_id=_goal_id(self._bus, goal_id))))

    def cancel(self, goal_id: bytes, timeout_s: float) -> bool:
        info = self._bus.new('action_msgs/msg/GoalInfo', goal_id=_goal_id(self._bus, goal_id))
        response = self._cancel.call(self._bus.new('action_msgs/srv/CancelGoal_Request', goal_info=info), timeout_s)
        return bool(response.goals_canceling)

    def forget(self, goal_id: bytes) -> None:
        self._listeners.pop(goal_id, None)

    def close(self) -> None:
        for handle in (self._send, self._get, self._cancel, self._feedback):
            handle.close()

    def _on_feedback(self, message: Message) -> None:
        on_feedback = self._listeners.get(message.goal_id.uuid.tobytes())
        if on_feedback is not None:
            on_feedback(message.feedback)


@dataclass(frozen=True)
class SentGoal:
    """A goal that was accepted."""

    client: ActionClient
    goal_id: bytes
    response: Future[Message]

    def cancel(self, timeout_s: float = 5.0) -> bool:
        """Ask for an end; False when the goal has ended already."""
        return self.client.cancel(self.goal_id, timeout_s)

    def result(self, timeout_s: float) -> JobResult:
        """Wait for the end. Raises DeadlineError when it does not come in time."""
        try:
            response = self.response.result(timeout_s)
        except FutureTimeoutError:
            raise DeadlineError(f'No result within {timeout_s:g} s. Allow more time, or cancel.') from None
        self.client.forget(self.goal_id)
        outcome = next((name for name, status in OUTCOMES.items() if status == response.status), 'aborted')
        return JobResult(outcome, response.result)


def _goal_id(bus: DdsBus, goal_id: bytes) -> Message:
    return bus.new('unique_identifier_msgs/msg/UUID', uuid=goal_id)


def _stamp(bus: DdsBus, stamp_ns: int) -> Message:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return bus.new('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
