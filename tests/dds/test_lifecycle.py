"""The node's states follow ROS 2's lifecycle, and every step can be seen."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from penguin_ros.dds.lifecycle import ACTIVE, FINALIZED, INACTIVE, LABELS, UNCONFIGURED, LifecycleServices, States, Transition
from tests.bus.contract import Heard, RecordedLifecycle
from tests.bus.memory_bus import Hub, MemoryBus

LOG = logging.getLogger('test.lifecycle')


def ignore(transition: Transition, before: int, after: int) -> None:
    return None


def test_a_transition_that_does_not_start_here_is_refused_with_those_that_do() -> None:
    states = States(RecordedLifecycle(), LOG, ignore)
    assert states.take('activate') == (
        'activate is no transition of a node that is unconfigured; there is: configure, shutdown.')


def test_a_transition_may_be_named_by_number() -> None:
    states = States(RecordedLifecycle(), LOG, ignore)
    assert states.take(number=1) is None
    assert states.state == INACTIVE


def test_shutdown_undoes_what_was_done() -> None:
    for steps, undone in (([], []), (['configure'], ['cleanup']), (['configure', 'activate'], ['deactivate', 'cleanup'])):
        node = RecordedLifecycle()
        states = States(node, LOG, ignore)
        for step in steps:
            assert states.take(step) is None
        assert states.take('shutdown') is None
        assert (states.state, node.asked[len(steps):]) == (FINALIZED, undone)
        assert states.possible() == []


def test_a_step_that_raises_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RecordedLifecycle):
        def activate(self) -> str | None:
            raise MemoryError('no room')

    states = States(Broken(), LOG, ignore)
    assert states.take('configure') is None
    assert states.take('activate') == 'MemoryError: no room'
    assert states.state == INACTIVE
    assert 'activate failed' in caplog.text


def test_each_step_is_published_through_its_passing_state() -> None:
    hub = Hub()
    bus, world = MemoryBus(hub, 'penguin'), MemoryBus(hub, 'world')
    node = RecordedLifecycle(refusals={'activate': 'no camera'})
    services = LifecycleServices(bus, node)
    heard = Heard()
    world.listen('/penguin/transition_event', 'lifecycle_msgs/msg/TransitionEvent', heard)
    services.states.take('configure')
    services.states.take('activate')
    events = heard.wait(4)
    assert [(event.transition.label, event.start_state.label, event.goal_state.label) for event in events] == [
        ('configure', 'unconfigured', 'configuring'), ('configure', 'configuring', 'inactive'),
        ('activate', 'inactive', 'activating'), ('activate', 'activating', 'inactive')]

    def ask(name: str, short: str) -> list[str]:
        response = world.ask(f'/penguin/{name}', f'lifecycle_msgs/srv/{short}', bus.new(f'lifecycle_msgs/srv/{short}_Request'))
        found = response.result(5.0)
        if short == 'GetAvailableStates':
            return [state.label for state in found.available_states]
        return [way.transition.label for way in found.available_transitions]

    assert ask('get_available_states', 'GetAvailableStates') == list(LABELS.values())
    assert ask('get_available_transitions', 'GetAvailableTransitions') == ['cleanup', 'activate', 'shutdown']
    assert len(ask('get_transition_graph', 'GetAvailableTransitions')) == 7
    services.close()
    bus.close()
    world.close()


def test_states_have_ros_2s_numbers() -> None:
    assert (UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED) == (1, 2, 3, 4)
