"""The lifecycle of a node as ROS 2 defines it, and its services. Knows no middleware and not what the states do.

https://design.ros2.org/articles/node_lifecycle.html; numbers and labels are those of lifecycle_msgs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from penguin_ros.core.bus import Bus, Handle, Lifecycle, Message

UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = 1, 2, 3, 4
LABELS = {UNCONFIGURED: 'unconfigured', INACTIVE: 'inactive', ACTIVE: 'active', FINALIZED: 'finalized',
          10: 'configuring', 11: 'cleaningup', 12: 'shuttingdown', 13: 'activating', 14: 'deactivating'}
CONFIGURED = {INACTIVE, ACTIVE, 11, 13, 14}


@dataclass(frozen=True)
class Transition:
    """One way from a state to another; while it is taken the node is in ``through``."""

    number: int
    label: str
    start: int
    through: int
    goal: int


TRANSITIONS = (
    Transition(1, 'configure', UNCONFIGURED, 10, INACTIVE), Transition(2, 'cleanup', INACTIVE, 11, UNCONFIGURED),
    Transition(3, 'activate', INACTIVE, 13, ACTIVE), Transition(4, 'deactivate', ACTIVE, 14, INACTIVE),
    Transition(5, 'shutdown', UNCONFIGURED, 12, FINALIZED), Transition(6, 'shutdown', INACTIVE, 12, FINALIZED),
    Transition(7, 'shutdown', ACTIVE, 12, FINALIZED))


class States:
    """In which state the node is; changes it by asking the node."""

    def __init__(self, node: Lifecycle, log: logging.Logger, changed: Callable[[Transition, int, int], None]) -> None:
        """``changed`` is told of each step, as the transition and the states before and after it."""
        self._node, self._log, self._changed = node, log, changed
        self._taking = threading.Lock()
        self.state = UNCONFIGURED

    def possible(self) -> list[Transition]:
        return [transition for transition in TRANSITIONS if transition.start == self.state]

    def take(self, label: str = '', number: int = 0) -> str | None:
        """Take a transition, by label or by number; a returned text says why it was refused. Waits for one being taken."""
        with self._taking:
            transition = next((way for way in self.possible() if way.label == label or way.number == number), None)
            if transition is None:
                there_is = ', '.join(way.label for way in self.possible()) or 'none'
                return f'{label or number} is no transition of a node that is {LABELS[self.state]}; there is: {there_is}.'
            self._go(transition, transition.start, transition.through)
            problem = self._run(transition)
            if problem:
                self._log.error(f'{transition.label} was refused: {problem}')
            self._go(transition, transition.through, transition.start if problem else transition.goal)
            return problem

    def _go(self, transition: Transition, before: int, after: int) -> None:
        self.state = after
        self._changed(transition, before, after)

    def _run(self, transition: Transition) -> str | None:
        steps = {'configure': [self._node.configure], 'activate': [self._node.activate],
                 'deactivate': [self._node.deactivate], 'cleanup': [self._node.cleanup],
                 'shutdown': {ACTIVE: [self._node.deactivate, self._node.cleanup], INACTIVE: [self._node.cleanup],
                              UNCONFIGURED: []}[transition.start]}[transition.label]
        try:
            return next(filter(None, (step() for step in steps)), None)
        except Exception as error:      # the node's own fault; it stays where it was, and can be asked again
            self._log.exception(f'{transition.label} failed')
            return f'{type(error).__name__}: {error}'


class LifecycleServices:
    """States seen and changed from outside: `ros2 lifecycle get`, `set`, `list`. Transitions run on a thread of their own."""

    def __init__(self, bus: Bus, node: Lifecycle) -> None:
        self._bus = bus
        self._events = bus.advertise('~/transition_event', 'lifecycle_msgs/msg/TransitionEvent')
        self._pool = ThreadPoolExecutor(1, thread_name_prefix='lifecycle')
        self.states = States(node, bus.log(), self._publish)
        self._open: list[Handle] = [self._events] + [
            bus.serve(f'~/{name}', f'lifecycle_msgs/srv/{short}', start) for name, short, start in (
                ('change_state', 'ChangeState', self._change), ('get_state', 'GetState', self._get),
                ('get_available_states', 'GetAvailableStates', self._all_states),
                ('get_available_transitions', 'GetAvailableTransitions', self._possible),
                ('get_transition_graph', 'GetAvailableTransitions', self._graph))]

    def close(self) -> None:
        self._pool.shutdown()       # whoever asked for a transition that is under way should still hear how it went
        for handle in self._open:
            handle.close()

    def _change(self, request: Message) -> Future[Message]:
        wanted = request.transition

        def take() -> Message:
            problem = self.states.take(str(wanted.label), int(wanted.id))
            return self._bus.new('lifecycle_msgs/srv/ChangeState_Response', success=problem is None)

        return self._pool.submit(take)

    def _get(self, _: Message) -> Future[Message]:
        return self._reply('GetState', current_state=self._state_msg(self.states.state))

    def _all_states(self, _: Message) -> Future[Message]:
        return self._reply('GetAvailableStates', available_states=[self._state_msg(state) for state in LABELS])

    def _possible(self, _: Message) -> Future[Message]:
        return self._reply('GetAvailableTransitions', available_transitions=[
            self._description(way) for way in self.states.possible()])

    def _graph(self, _: Message) -> Future[Message]:
        return self._reply('GetAvailableTransitions', available_transitions=[self._description(way) for way in TRANSITIONS])

    def _reply(self, short: str, **fields: Any) -> Future[Message]:
        response: Future[Message] = Future()
        response.set_result(self._bus.new(f'lifecycle_msgs/srv/{short}_Response', **fields))
        return response

    def _publish(self, transition: Transition, before: int, after: int) -> None:
        self._bus.log().info(f'{LABELS[before]} -> {LABELS[after]}')
        self._events.publish(self._bus.new(
            'lifecycle_msgs/msg/TransitionEvent', timestamp=self._bus.now_ns(), transition=self._transition_msg(transition),
            start_state=self._state_msg(before), goal_state=self._state_msg(after)))

    def _state_msg(self, state: int) -> Message:
        return self._bus.new('lifecycle_msgs/msg/State', id=state, label=LABELS[state])

    def _transition_msg(self, transition: Transition) -> Message:
        return self._bus.new('lifecycle_msgs/msg/Transition', id=transition.number, label=transition.label)

    def _description(self, transition: Transition) -> Message:
        return self._bus.new(
            'lifecycle_msgs/msg/TransitionDescription', transition=self._transition_msg(transition),
            start_state=self._state_msg(transition.start), goal_state=self._state_msg(transition.goal))
