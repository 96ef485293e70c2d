"""Asks a node a question over DDS, by whichever way reaches it: service, action or topic pair. Knows no command line.

Works with both shells. Services do not cross to rmw_fastrtps, though both sides think they do (reference/transport.md);
a server that is known to answer says so by a ``serviceid``, any other is asked by topics.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from penguin_ros.core.bus import Message
from penguin_ros.core.errors import DeadlineError, TransportError
from penguin_ros.core.scene import Question
from penguin_ros.dds.action import ActionClient, SentGoal
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.service import ServiceClient

SERVICE_PATIENCE_S = 2.0        # how long a service may take to be discovered before topics are used
ANSWER_SLACK_S = 2.0            # the node keeps its own deadline; its refusal should still arrive
STEP_S = 0.02

OnPartial = Callable[[str], None]


@dataclass(frozen=True)
class Asker:
    """Asks one node."""

    bus: DdsBus
    node: str = '/penguin'      # its full name

    def ask(self, question: Question, timeout_s: float) -> Message:
        """The answer (an Ask_Response or an Answer: same fields). Raises DeadlineError or TransportError."""
        give_up_s = time.monotonic() + timeout_s + ANSWER_SLACK_S
        client = self.bus.client(f'{self.node}/ask', 'penguin_ros/srv/Ask')
        try:
            if _wait(lambda: client.answers, min(SERVICE_PATIENCE_S, timeout_s)):
                return self._call(client, question, timeout_s, give_up_s)
        finally:
            client.close()
        return self._by_topics(question, timeout_s, give_up_s)

    def ask_streaming(self, question: Question, timeout_s: float, on_partial: OnPartial) -> Message:
        """The same, telling the text so far while it is written; where the node has no action, only the whole answer."""
        goals = self.bus.goals(f'{self.node}/ask_stream', 'penguin_ros/action/AskStream')
        try:
            if _wait(lambda: goals.answers, min(SERVICE_PATIENCE_S, timeout_s)):
                return self._stream(goals, question, timeout_s, on_partial)
        finally:
            goals.close()
        return self.ask(question, timeout_s)

    def _call(self, client: ServiceClient, question: Question, timeout_s: float, give_up_s: float) -> Message:
        request = self._message('penguin_ros/srv/Ask_Request', question, timeout_s)
        return client.call(request, max(0.0, give_up_s - time.monotonic()))

    def _stream(self, goals: ActionClient, question: Question, timeout_s: float, on_partial: OnPartial) -> Message:
        goal = self._message('penguin_ros/action/AskStream_Goal', question, timeout_s)
        sent: SentGoal = goals.start(goal, lambda feedback: on_partial(feedback.partial), ANSWER_SLACK_S + timeout_s)
        try:
            return sent.result(timeout_s + ANSWER_SLACK_S).message
        except KeyboardInterrupt:
            sent.cancel()       # nobody reads the answer any more; the engine should not go on writing it
            raise

    def _by_topics(self, question: Question, timeout_s: float, give_up_s: float) -> Message:
        question_id = uuid.uuid4().hex
        answered = threading.Event()
        answers: list[Message] = []

        def on_answer(message: Message) -> None:
            if message.id == question_id:
                answers.append(message)
                answered.set()

        listener = self.bus.listen(f'{self.node}/answer', 'penguin_ros/msg/Answer', on_answer)
        outlet = self.bus.advertise(f'{self.node}/question', 'penguin_ros/msg/Question')
        try:
            if not _wait(lambda: bool(outlet.subscribers() and listener.writers()), max(0.0, give_up_s - time.monotonic())):
                raise TransportError(f'No node {self.node} was found. Start it (penguin run, or ros2 launch), and use the same '
                                     'domain (ROS_DOMAIN_ID) and interface here as there.')
            outlet.publish(self._message('penguin_ros/msg/Question', question, timeout_s, id=question_id))
            if not answered.wait(max(0.0, give_up_s - time.monotonic())):
                raise DeadlineError(f'{self.node} has not answered within {timeout_s:g} s. Allow more time with --timeout, or '
                                    "look at the node's log.")
            return answers[0]
        finally:
            listener.close()
            outlet.close()

    def _message(self, type_name: str, question: Question, timeout_s: float, **more: str) -> Message:
        new, region = self.bus.new, question.region
        roi = new('sensor_msgs/msg/RegionOfInterest') if region is None else new(
            'sensor_msgs/msg/RegionOfInterest', x_offset=round(region.x_min), y_offset=round(region.y_min),
            width=round(region.width_px), height=round(region.height_px))
        seconds, nanoseconds = divmod(question.stamp_ns, 1_000_000_000)
        return new(type_name, camera=question.camera, question=question.text, region=roi, choices=list(question.choices),
                   stamp=new('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds), timeout=timeout_s, **more)


def _wait(true: Callable[[], bool], timeout_s: float) -> bool:
    give_up_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() >= give_up_s:
            return False
        time.sleep(STEP_S)
    return True
