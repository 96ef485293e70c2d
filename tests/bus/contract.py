"""What core/bus.py promises, as checks that run on any bus and any peer: in memory, on DDS, on real rclpy. Knows none of them.

A test module makes a Pair (the node's bus, and a peer that plays the rest of the world) and runs every check of CHECKS on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from penguin_ros.core.bus import Bus, Handle, Job, JobResult, Lifecycle, Message, Setting

GIVEN = {'given.whole': 7}      # settings every pair's bus is started with, as from a parameter file
PATIENCE_S = 10.0               # how long something that must happen may take on a loaded machine
SETTLE_S = 0.3                  # how long to watch for something that must not happen


class PeerOutlet(Protocol):
    def publish(self, message: Message) -> None: ...

    def wait_matched(self) -> None: ...     # until somebody listens


class PeerGoal(Protocol):
    def cancel(self) -> bool: ...

    def result(self, timeout_s: float) -> JobResult: ...


class Peer(Protocol):
    """The rest of the world. Names are absolute."""

    def new(self, type_name: str, **fields: Any) -> Message: ...

    def outlet(self, topic: str, type_name: str, *, reliable: bool = True, latched: bool = False) -> PeerOutlet: ...

    def listen(self, topic: str, type_name: str, on_message: Callable[[Message], None], *, latched: bool = False) -> Handle: ...

    def ask(self, service: str, type_name: str, request: Message) -> Future[Message]: ...    # waits until somebody serves

    def start_goal(self, name: str, type_name: str, goal: Message, on_feedback: Callable[[Message], None]) -> PeerGoal: ...

    def set_settings(self, values: Mapping[str, Any]) -> str | None: ...     # all or none; the reason of a refusal

    def change_state(self, transition: str) -> bool: ...

    def state(self) -> str: ...


@dataclass(frozen=True)
class Pair:
    """A bus under test and somebody to talk to it."""

    bus: Bus
    peer: Peer
    manage: Callable[[Lifecycle], None]     # let this bus's node be configured, activated ... from outside
    full: Callable[[str], str]              # '~/scene' -> its absolute name
    logged: Callable[[], str]               # all that the bus's log has said


class Heard:
    """Collects what arrives and waits for it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._arrived = threading.Condition()

    def __call__(self, message: Any) -> None:
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()

    def wait(self, count: int, timeout_s: float = PATIENCE_S) -> list[Any]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.messages) >= count, timeout_s), (
                f'{len(self.messages)} of {count} messages came within {timeout_s} s')
            return list(self.messages)


@dataclass
class RecordedLifecycle:
    """A node that does nothing but remember what it was asked, and refuse what it is told to."""

    asked: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)

    def configure(self) -> str | None:
        return self._note('configure')

    def activate(self) -> str | None:
        return self._note('activate')

    def deactivate(self) -> str | None:
        return self._note('deactivate')

    def cleanup(self) -> str | None:
        return self._note('cleanup')

    def _note(self, step: str) -> str | None:
        self.asked.append(step)
        return self.refusals.get(step)


def wait_until(true: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up_s, f'{what} did not happen within {PATIENCE_S} s'
        time.sleep(0.005)


def image(peer: Peer, number: int) -> Message:
    stamp = peer.new('builtin_interfaces/msg/Time', sec=number, nanosec=5)
    return peer.new('sensor_msgs/msg/Image', header=peer.new('std_msgs/msg/Header', stamp=stamp, frame_id='front'),
                    height=2, width=3, encoding='rgb8', step=9, data=bytes(range(18)))


def text(peer: Peer, data: str) -> Message:
    return peer.new('std_msgs/msg/String', data=data)


def ready(value: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(value)
    return done


# -- images ------------------------------------------------------------------------------------------------------------


def the_newest_image_wins(pair: Pair) -> None:
    heard, may_go_on, first_came = Heard(), threading.Event(), threading.Event()

    def on_image(message: Message) -> None:
        heard(message.header.stamp.sec)
        first_came.set()
        may_go_on.wait(PATIENCE_S)

    pair.bus.newest_image('~/image', on_image, compressed=False)
    outlet = pair.peer.outlet(pair.full('~/image'), 'sensor_msgs/msg/Image')
    outlet.wait_matched()
    outlet.publish(image(pair.peer, 1))
    assert first_came.wait(PATIENCE_S)
    for number in range(2, 12):
        outlet.publish(image(pair.peer, number))
        time.sleep(0.01)
    time.sleep(SETTLE_S)
    may_go_on.set()
    wait_until(lambda: 11 in heard.messages, 'the newest image')
    time.sleep(SETTLE_S)
    assert heard.messages[0] == 1
    assert heard.messages[-1] == 11
    assert len(heard.messages) <= 4, f'a queue of one may not hold {heard.messages}'


def cameras_of_either_reliability_are_heard(pair: Pair) -> None:
    for name, reliable in (('steady', True), ('hasty', False)):
        heard = Heard()
        pair.bus.newest_image(f'~/{name}/image', heard, compressed=False)
        outlet = pair.peer.outlet(pair.full(f'~/{name}/image'), 'sensor_msgs/msg/Image', reliable=reliable)
        outlet.wait_matched()
        outlet.publish(image(pair.peer, 3))
        (message,) = heard.wait(1)
        assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (3, 5, 'front')
        assert (message.height, message.width, message.step, message.encoding) == (2, 3, 9, 'rgb8')
        assert bytes(message.data) == bytes(range(18))


def compressed_images_are_heard(pair: Pair) -> None:
    heard = Heard()
    pair.bus.newest_image('~/image/compressed', heard, compressed=True)
    outlet = pair.peer.outlet(pair.full('~/image/compressed'), 'sensor_msgs/msg/CompressedImage')
    outlet.wait_matched()
    outlet.publish(pair.peer.new('sensor_msgs/msg/CompressedImage', format='jpeg', data=b'\xff\xd8\xff\x00\x01'))
    (message,) = heard.wait(1)
    assert (message.format, bytes(message.data)) == ('jpeg', b'\xff\xd8\xff\x00\x01')


# -- topics ------------------------------------------------------------------------------------------------------------


def messages_go_both_ways_whole_and_in_order(pair: Pair) -> None:
    heard_by_bus, heard_by_peer = Heard(), Heard()
    pair.bus.listen('~/question', 'penguin_ros/msg/Question', heard_by_bus)
    outlet = pair.peer.outlet(pair.full('~/question'), 'penguin_ros/msg/Question')
    outlet.wait_matched()
    publisher = pair.bus.advertise('~/answer', 'penguin_ros/msg/Answer')
    pair.peer.listen(pair.full('~/answer'), 'penguin_ros/msg/Answer', heard_by_peer)
    wait_until(lambda: publisher.subscribers() == 1, 'the peer listening')
    for number in range(5):
        roi = pair.peer.new('sensor_msgs/msg/RegionOfInterest', x_offset=1, y_offset=2, width=30, height=40)
        outlet.publish(pair.peer.new('penguin_ros/msg/Question', id=f'{number}', question='Was ist das? 🐧', region=roi,
                                     choices=['ja', 'nein'], timeout=1.5))
        phrase = pair.bus.new('penguin_ros/msg/GroundedPhrase', text='a crate', begin=2, end=9, has_box=True, x_max=0.5)
        publisher.publish(pair.bus.new('penguin_ros/msg/Answer', id=f'{number}', success=True, probabilities=[0.25, 0.75],
                                       phrases=[phrase, phrase], choice=-1))
    questions, answers = heard_by_bus.wait(5), heard_by_peer.wait(5)
    assert [question.id for question in questions] == [answer.id for answer in answers] == ['0', '1', '2', '3', '4']
    question, answer = questions[0], answers[0]
    assert (question.question, list(question.choices), question.timeout) == ('Was ist das? 🐧', ['ja', 'nein'], 1.5)
    assert (question.region.x_offset, question.region.height, question.stamp.sec) == (1, 40, 0)
    assert (answer.success, answer.choice, list(answer.probabilities)) == (True, -1, [0.25, 0.75])
    assert [(phrase.text, phrase.end, phrase.has_box, phrase.x_max) for phrase in answer.phrases] == [
        ('a crate', 9, True, 0.5)] * 2


def a_latched_message_waits_for_those_who_come_later(pair: Pair) -> None:
    publisher = pair.bus.advertise('~/front/scene', 'std_msgs/msg/String', latched=True)
    for word in ('old', 'newest'):
        publisher.publish(text(pair.bus, word))         # type: ignore[arg-type]  # Bus.new is Peer.new
    late = Heard()
    pair.peer.listen(pair.full('~/front/scene'), 'std_msgs/msg/String', late, latched=True)
    assert [message.data for message in late.wait(1)] == ['newest']
    publisher.publish(text(pair.bus, 'live'))           # type: ignore[arg-type]
    assert late.wait(2)[1].data == 'live'


def a_callback_that_fails_is_logged_and_the_bus_goes_on(pair: Pair) -> None:
    heard = Heard()

    def fail_at_first(message: Message) -> None:
        heard(message.data)
        if message.data == 'bad':
            raise RuntimeError('the callback tripped')

    pair.bus.listen('~/words', 'std_msgs/msg/String', fail_at_first)
    outlet = pair.peer.outlet(pair.full('~/words'), 'std_msgs/msg/String')
    outlet.wait_matched()
    outlet.publish(text(pair.peer, 'bad'))
    heard.wait(1)
    outlet.publish(text(pair.peer, 'good'))
    assert heard.wait(2) == ['bad', 'good']
    assert 'the callback tripped' in pair.logged()


def what_is_closed_is_silent(pair: Pair) -> None:
    closed, still_open = Heard(), Heard()
    handle = pair.bus.listen('~/words', 'std_msgs/msg/String', closed)
    pair.bus.listen('~/words', 'std_msgs/msg/String', still_open)
    outlet = pair.peer.outlet(pair.full('~/words'), 'std_msgs/msg/String')
    outlet.wait_matched()
    outlet.publish(text(pair.peer, 'one'))
    closed.wait(1)
    handle.close()
    handle.close()                                      # twice does no harm
    outlet.publish(text(pair.peer, 'two'))
    still_open.wait(2)
    time.sleep(SETTLE_S)
    assert [message.data for message in closed.messages] == ['one']

    publisher = pair.bus.advertise('~/answer', 'std_msgs/msg/String')
    heard = Heard()
    pair.peer.listen(pair.full('~/answer'), 'std_msgs/msg/String', heard)
    wait_until(lambda: publisher.subscribers() == 1, 'the peer listening')
    publisher.close()
    publisher.publish(text(pair.bus, 'too late'))       # type: ignore[arg-type]
    time.sleep(SETTLE_S)
    assert heard.messages == []
    assert publisher.subscribers() == 0


# -- services ----------------------------------------------------------------------------------------------------------


def answers_find_their_askers_in_any_order_from_any_thread(pair: Pair) -> None:
    waiting: dict[str, Future[Message]] = {}

    def start(request: Message) -> Future[Message]:
        return waiting.setdefault(request.question, Future())

    def answer(question: str) -> None:
        waiting[question].set_result(pair.bus.new('penguin_ros/srv/Ask_Response', success=True, answer=f'{question}!'))

    pair.bus.serve('~/ask', 'penguin_ros/srv/Ask', start)
    asked = {word: pair.peer.ask(pair.full('~/ask'), 'penguin_ros/srv/Ask',
                                 pair.peer.new('penguin_ros/srv/Ask_Request', question=word)) for word in 'abc'}
    wait_until(lambda: len(waiting) == 3, 'three questions arriving')
    for word in 'cab':
        thread = threading.Thread(target=answer, args=(word,))
        thread.start()
        assert asked[word].result(PATIENCE_S).answer == f'{word}!'
        thread.join()


def a_slow_answer_holds_up_neither_images_nor_short_calls(pair: Pair) -> None:
    slow: Future[Message] = Future()
    response = pair.bus.new('penguin_ros/srv/Ask_Response', success=True, answer='done')
    pair.bus.serve('~/ask', 'penguin_ros/srv/Ask',
                   lambda request: slow if request.question == 'slow' else ready(response))
    heard = Heard()
    pair.bus.newest_image('~/image', heard, compressed=False)
    outlet = pair.peer.outlet(pair.full('~/image'), 'sensor_msgs/msg/Image')
    outlet.wait_matched()

    def ask(question: str) -> Future[Message]:
        return pair.peer.ask(pair.full('~/ask'), 'penguin_ros/srv/Ask',
                             pair.peer.new('penguin_ros/srv/Ask_Request', question=question))

    asked = ask('slow')
    for number in range(10):
        outlet.publish(image(pair.peer, number))
        heard.wait(number + 1)
        assert ask('short').result(PATIENCE_S).answer == 'done'
    assert not asked.done()
    slow.set_result(response)
    assert asked.result(PATIENCE_S).answer == 'done'


# -- jobs --------------------------------------------------------------------------------------------------------------


def a_job_streams_feedback_and_ends_with_a_result(pair: Pair) -> None:
    def start(job: Job) -> Future[JobResult]:
        ended: Future[JobResult] = Future()

        def work() -> None:
            for count in range(1, 6):
                job.feedback(pair.bus.new('penguin_ros/action/AskStream_Feedback', partial='red'[:count], tokens=count))
                time.sleep(0.05)
            ended.set_result(JobResult('aborted' if job.request.question == 'bad' else 'succeeded', pair.bus.new(
                'penguin_ros/action/AskStream_Result', success=True, answer='red', choice=-1)))

        threading.Thread(target=work).start()
        return ended

    pair.bus.job('~/ask_stream', 'penguin_ros/action/AskStream', start)
    for question, outcome in (('good', 'succeeded'), ('bad', 'aborted')):
        partial = Heard()
        goal = pair.peer.start_goal(pair.full('~/ask_stream'), 'penguin_ros/action/AskStream', pair.peer.new(
            'penguin_ros/action/AskStream_Goal', question=question), partial)
        result = goal.result(PATIENCE_S)
        assert (result.outcome, result.message.answer, result.message.choice) == (outcome, 'red', -1)
        # The first feedback may be sent before the asker's reader is known; the last may not be lost.
        wait_until(lambda seen=partial: any(message.tokens == 5 for message in seen.messages), 'the last feedback')
        assert not goal.cancel()


def a_cancelled_job_is_told_so(pair: Pair) -> None:
    jobs = Heard()

    def start(job: Job) -> Future[JobResult]:
        ended: Future[JobResult] = Future()

        def work() -> None:
            jobs(job)
            assert job.cancelled.wait(PATIENCE_S)
            ended.set_result(JobResult('canceled', pair.bus.new(
                'penguin_ros/action/AskStream_Result', message='as you wish')))

        threading.Thread(target=work).start()
        return ended

    pair.bus.job('~/ask_stream', 'penguin_ros/action/AskStream', start)
    goals = [pair.peer.start_goal(pair.full('~/ask_stream'), 'penguin_ros/action/AskStream', pair.peer.new(
        'penguin_ros/action/AskStream_Goal', question=word), Heard()) for word in ('first', 'second')]
    running = {job.request.question: job for job in jobs.wait(2)}
    assert goals[0].cancel()
    result = goals[0].result(PATIENCE_S)
    assert (result.outcome, result.message.message) == ('canceled', 'as you wish')
    assert not running['second'].cancelled.is_set()
    assert goals[1].cancel()
    assert goals[1].result(PATIENCE_S).outcome == 'canceled'


# -- settings ----------------------------------------------------------------------------------------------------------


SETTINGS = (
    Setting(name='given.whole', default=1, about='a number that was given at the start', low=0, high=10, live=True),
    Setting(name='size_tokens', default=64, about='tokens', low=16, high=128, live=True),
    Setting(name='share', default=0.5, about='a share', low=0.0, high=1.0, live=True),
    Setting(name='mode', default='slow', about='a choice', choices=('slow', 'fast'), live=True),
    Setting(name='annotated', default=True, about='a switch', live=True),
    Setting(name='engine', default='nano', about='read when the node is configured'),
    Setting(name='cameras', default=['front'], about='names', live=True),
)


def settings_are_declared_given_and_changed(pair: Pair) -> None:
    told = Heard()
    values = pair.bus.declare(SETTINGS, lambda proposed: None, told)
    assert values['given.whole'] == GIVEN['given.whole']
    assert (values['size_tokens'], values['mode'], list(values['cameras'])) == (64, 'slow', ['front'])
    changes = {'size_tokens': 100, 'share': 0.25, 'mode': 'fast', 'annotated': False, 'cameras': ['left', 'right']}
    assert pair.peer.set_settings(changes) is None
    in_force = pair.bus.settings()
    assert {name: list(in_force[name]) if name == 'cameras' else in_force[name] for name in changes} == changes
    assert isinstance(in_force['size_tokens'], int)
    assert isinstance(in_force['share'], float)
    accepted = {name: value for change in told.wait(1) for name, value in change.items()}
    assert accepted.keys() == changes.keys()


def settings_that_cannot_be_are_refused_with_the_reason(pair: Pair) -> None:
    told = Heard()
    pair.bus.declare(SETTINGS, lambda proposed: 'fast needs more tokens' if proposed.get('mode') == 'fast' else None, told)
    for bad, words in (({'size_tokens': 1000}, ('size_tokens', '128')), ({'share': 1.5}, ('share', '1')),
                       ({'mode': 'sideways'}, ('mode',)), ({'annotated': 'yes'}, ('annotated',)),
                       ({'no_such_setting': 1}, ('no_such_setting',)), ({'mode': 'fast'}, ('fast needs more tokens',))):
        reason = pair.peer.set_settings({'share': 0.75, **bad})
        assert reason, f'{bad} was accepted'
        for word in words:
            assert word in reason, f'{bad} was refused with {reason!r}'
    assert pair.bus.settings()['share'] == 0.5      # one bad value refuses the others with it
    assert told.messages == []
    assert pair.peer.set_settings({'share': 0.75}) is None


def what_is_not_live_can_change_only_before_the_node_is_configured(pair: Pair) -> None:
    pair.bus.declare(SETTINGS, lambda proposed: None, lambda accepted: None)
    pair.manage(RecordedLifecycle())
    assert pair.peer.set_settings({'engine': 'large'}) is None
    assert pair.peer.change_state('configure')
    reason = pair.peer.set_settings({'engine': 'nano'})
    assert reason
    assert 'engine' in reason
    assert pair.peer.set_settings({'size_tokens': 20}) is None
    assert pair.bus.settings()['engine'] == 'large'
    assert pair.peer.change_state('cleanup')
    assert pair.peer.set_settings({'engine': 'nano'}) is None


# -- timers and states -------------------------------------------------------------------------------------------------


def timers_tick_until_they_are_closed(pair: Pair) -> None:
    ticks = Heard()
    started_s = time.monotonic()
    handle = pair.bus.every(0.05, lambda: ticks(time.monotonic() - started_s))
    times_s = ticks.wait(6)
    assert times_s[5] > 0.2
    handle.close()
    time.sleep(0.1)         # a tick may be under way
    count = len(ticks.messages)
    time.sleep(SETTLE_S)
    assert len(ticks.messages) == count


def the_node_goes_through_its_states_when_asked(pair: Pair) -> None:
    node = RecordedLifecycle()
    pair.manage(node)
    assert pair.peer.state() == 'unconfigured'
    assert not pair.peer.change_state('activate')
    for transition, state in (('configure', 'inactive'), ('activate', 'active'), ('deactivate', 'inactive'),
                              ('activate', 'active'), ('deactivate', 'inactive'), ('cleanup', 'unconfigured')):
        assert pair.peer.change_state(transition), transition
        assert pair.peer.state() == state
    assert node.asked == ['configure', 'activate', 'deactivate', 'activate', 'deactivate', 'cleanup']


def a_refused_transition_changes_nothing_and_its_reason_is_logged(pair: Pair) -> None:
    node = RecordedLifecycle(refusals={'configure': 'no engine at engines/none. Run penguin build.'})
    pair.manage(node)
    assert not pair.peer.change_state('configure')
    assert pair.peer.state() == 'unconfigured'
    wait_until(lambda: 'no engine at engines/none. Run penguin build.' in pair.logged(), 'the reason being logged')
    node.refusals.clear()
    assert pair.peer.change_state('configure')
    node.refusals['activate'] = 'no camera'
    assert not pair.peer.change_state('activate')
    assert pair.peer.state() == 'inactive'


def the_clock_is_the_time_of_day(pair: Pair) -> None:
    before_ns = time.time_ns()
    now_ns = pair.bus.now_ns()
    assert before_ns <= now_ns <= time.time_ns()


CHECKS: tuple[Callable[[Pair], None], ...] = (
    the_newest_image_wins,
    cameras_of_either_reliability_are_heard,
    compressed_images_are_heard,
    messages_go_both_ways_whole_and_in_order,
    a_latched_message_waits_for_those_who_come_later,
    a_callback_that_fails_is_logged_and_the_bus_goes_on,
    what_is_closed_is_silent,
    answers_find_their_askers_in_any_order_from_any_thread,
    a_slow_answer_holds_up_neither_images_nor_short_calls,
    a_job_streams_feedback_and_ends_with_a_result,
    a_cancelled_job_is_told_so,
    settings_are_declared_given_and_changed,
    settings_that_cannot_be_are_refused_with_the_reason,
    what_is_not_live_can_change_only_before_the_node_is_configured,
    timers_tick_until_they_are_closed,
    the_node_goes_through_its_states_when_asked,
    a_refused_transition_changes_nothing_and_its_reason_is_logged,
    the_clock_is_the_time_of_day,
)
