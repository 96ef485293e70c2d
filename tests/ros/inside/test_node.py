"""The real node as a process of its own, driven over real ROS 2 as a robot would drive it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from sensor_msgs.msg import RegionOfInterest

from tests.bus.contract import Heard, wait_until
from tests.ros.inside.running_node import STALE, RunningNode, image_msg, jpeg_msg, picture, publish_until


@pytest.fixture(scope='module', autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope='module')
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with RunningNode(tmp_path_factory.mktemp('node')) as node:
        yield node.up()
        assert node.end(signal.SIGINT) == 0, node.said()
        assert 'Traceback' not in node.said()


@pytest.fixture
def node(one_node: RunningNode) -> RunningNode:
    """The node all tests share, active whatever the test before left it in."""
    if one_node.peer.state() == 'unconfigured':
        assert one_node.peer.change_state('configure', 30.0)
    if one_node.peer.state() == 'inactive':
        assert one_node.peer.change_state('activate')
    return one_node


# -- images in, scenes out ---------------------------------------------------------------------------------------------


def test_a_scene_has_its_images_own_stamp_and_frame_id(node: RunningNode) -> None:
    stamp = node.peer.now_msg()
    scene = node.show(1, stamp)
    assert (scene.header.stamp, scene.header.frame_id, scene.camera) == (stamp, 'front_optical_frame', 'front')
    assert 0 < scene.age_ms < 10_000
    assert 0 < scene.tokens.used <= scene.tokens.limit
    assert scene.latency.total_ms > 0
    assert re.fullmatch('[0-9a-f]{12}', scene.engine)
    for phrase in scene.phrases:
        assert scene.caption[phrase.begin:phrase.end] == phrase.text
        assert 0 <= phrase.x_min <= phrase.x_max <= 320


def test_a_camera_with_jpegs_and_best_effort_is_seen_too(node: RunningNode) -> None:
    message = jpeg_msg(node.peer, picture(2), node.peer.now_msg())
    publish_until(node.rear, message, lambda: any(s.header == message.header for s in node.scenes['rear'].messages))
    assert node.scene_of(message, 'rear').header == message.header


def test_detections_hold_the_same_boxes(node: RunningNode) -> None:
    heard = Heard()
    node.peer.listen('/penguin/front/detections', 'vision_msgs/msg/Detection2DArray', heard)
    time.sleep(0.3)     # until the node knows of the listener
    scene = node.show(3)
    wait_until(lambda: any(found.header == scene.header for found in heard.messages), 'the detections of the scene')
    detections = next(found for found in heard.messages if found.header == scene.header)
    boxes = [(phrase.text, (phrase.x_min + phrase.x_max) / 2) for phrase in scene.phrases if phrase.has_box]
    found = [(each.results[0].hypothesis.class_id, each.bbox.center.position.x) for each in detections.detections]
    assert [text for text, _ in found] == [text for text, _ in boxes]
    assert [x for _, x in found] == pytest.approx([x for _, x in boxes], abs=0.01)


def test_who_comes_late_gets_the_last_scene(node: RunningNode) -> None:
    node.show(4)
    late = Heard()
    node.peer.listen('/penguin/front/scene', 'penguin_ros/msg/SceneDescription', late, latched=True)
    assert late.wait(1)[0].camera == 'front'


def test_the_picture_with_boxes_is_published_to_whoever_looks(node: RunningNode) -> None:
    heard = Heard()
    node.peer.listen('/penguin/front/annotated', 'sensor_msgs/msg/Image', heard)
    time.sleep(0.3)
    scene = node.show(5)
    wait_until(lambda: any(image.header == scene.header for image in heard.messages), 'the annotated image')
    image = heard.messages[-1]
    assert (image.height, image.width, image.encoding, len(image.data)) == (240, 320, 'rgb8', 240 * 320 * 3)


def test_a_camera_that_stops_is_stale_never_silent(node: RunningNode) -> None:
    scene = node.show(6)
    wait_until(lambda: node.scenes['front'].messages[-1].status == STALE, 'a stale scene')
    stale = node.scenes['front'].messages[-1]
    assert (stale.header, stale.caption) == (scene.header, scene.caption)
    assert 'check the camera driver' in stale.reason
    wait_until(lambda: node.finding('camera front')[0] == 3, 'the diagnostics calling it stale')
    assert 'no image for' in node.finding('camera front')[1]
    assert node.show(7).status != STALE


# -- questions ---------------------------------------------------------------------------------------------------------


def test_questions_are_answered_about_now_the_past_and_a_region(node: RunningNode) -> None:
    first, second = node.show(10), node.show(11)
    now = node.ask(question='What is in front?')
    assert now.success, now.message
    assert (now.header, now.choice) == (second.header, -1)
    past = node.ask(question='What was in front?', stamp=first.header.stamp)
    assert past.success, past.message
    assert past.header == first.header
    region = node.ask('describe_region', region=RegionOfInterest(x_offset=40, y_offset=50, width=80, height=60))
    assert region.success, region.message
    assert region.header == second.header
    typed = node.ask(question='Is the path clear?', choices=['yes', 'no'])
    assert typed.answer == ['yes', 'no'][typed.choice]
    assert sum(typed.probabilities) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(('fields', 'remedy'), [
    ({'question': 'why ' * 600}, 'Shorten it'),
    ({'question': '?', 'camera': 'roof'}, 'there are: front, rear'),
    ({'question': '?', 'region': RegionOfInterest(x_offset=300, y_offset=10, width=100, height=10)}, 'pixels of that image'),
    ({'question': '?', 'stamp': Time(sec=5)}, 'Ask within that range'),
    ({'question': '?', 'timeout': -1.0}, 'timeout'),
    ({'question': ''}, 'Write one'),
], ids=['too long', 'no such camera', 'outside the image', 'too long ago', 'negative timeout', 'empty'])
def test_a_question_that_cannot_be_is_refused_with_a_remedy(node: RunningNode, fields: dict[str, Any], remedy: str) -> None:
    node.show(12)
    refused = node.ask(**fields)
    assert not refused.success
    assert remedy in refused.message
    assert node.ask(question='What is there?').success


def test_the_topic_pair_answers_by_request_id(node: RunningNode) -> None:
    node.show(13)
    heard = Heard()
    node.peer.listen('/penguin/answer', 'penguin_ros/msg/Answer', heard)
    outlet = node.peer.outlet('/penguin/question', 'penguin_ros/msg/Question')
    outlet.wait_matched()
    time.sleep(0.3)
    for question_id, camera in (('one', ''), ('two', 'roof')):
        outlet.publish(node.peer.new('penguin_ros/msg/Question', id=question_id, question='What is there?', camera=camera))
    answers = {answer.id: answer for answer in heard.wait(2)}
    assert answers['one'].success
    assert 'there are: front, rear' in answers['two'].message


def test_an_action_tells_its_answer_while_it_is_written(node: RunningNode) -> None:
    node.show(14)
    feedback = Heard()
    goal = node.peer.start_goal('/penguin/ask_stream', 'penguin_ros/action/AskStream', node.peer.new(
        'penguin_ros/action/AskStream_Goal', question='What is in front?'), feedback)
    assert goal.accepted
    result = goal.result(20.0)
    assert (result.outcome, result.message.success) == ('succeeded', True)
    wait_until(lambda: bool(feedback.messages), 'feedback')
    assert result.message.answer.startswith(feedback.messages[-1].partial)


def test_a_cancelled_action_ends_at_once_and_the_stream_goes_on(node: RunningNode) -> None:
    node.show(15)
    goals = [node.peer.start_goal('/penguin/ask_stream', 'penguin_ros/action/AskStream', node.peer.new(
        'penguin_ros/action/AskStream_Goal', question=f'What is in front? {number}'), Heard()) for number in range(6)]
    assert goals[-1].cancel()
    result = goals[-1].result(10.0)
    assert result.outcome == 'canceled'
    assert not result.message.success
    assert 'cancelled' in result.message.message
    assert goals[0].result(20.0).outcome == 'succeeded'
    node.show(16)


# -- bad images --------------------------------------------------------------------------------------------------------


GOOD = picture(20)
BAD_IMAGES = {
    'a step too small': {'step': 100}, 'data too short': {'data': GOOD.tobytes()[:-10]},
    'no size': {'height': 0, 'width': 0, 'step': 0, 'data': b''}, 'an unknown encoding': {'encoding': 'infrared9'},
    'sixteen pixels a side': {'height': 16, 'width': 16, 'step': 48, 'data': GOOD.tobytes()[:768]},
    'no stamp': {'stamp': Time()}, 'a stamp that jumps back': {'stamp': Time(sec=1_000_000_000)}}


@pytest.mark.parametrize('changes', BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_bad_image_is_refused_and_counted_and_the_next_good_one_works(node: RunningNode, changes: dict[str, Any]) -> None:
    node.show(21)
    before = node.refused('front')
    changes = dict(changes)
    node.front.publish(image_msg(node.peer, GOOD, changes.pop('stamp', node.peer.now_msg()), **changes))
    wait_until(lambda: node.refused('front') > before, 'the count of refused images')
    assert len(node.finding('camera front')[2]['last error']) > 20
    assert node.show(22).status != STALE


def test_an_image_of_8000_by_6000_is_refused_before_it_is_decoded(node: RunningNode) -> None:
    message = jpeg_msg(node.peer, np.zeros((6000, 8000, 3), np.uint8), node.peer.now_msg())
    message.data = message.data[:4000]      # says its size; all of it may be lost on a busy machine, again and again
    publish_until(node.rear, message, lambda: 'max_image_pixels' in node.finding('camera rear')[2]['last error'])
    assert '8000x6000' in node.finding('camera rear')[2]['last error']
    good = jpeg_msg(node.peer, picture(23), node.peer.now_msg())
    publish_until(node.rear, good, lambda: any(s.header == good.header for s in node.scenes['rear'].messages))
    node.scene_of(good, 'rear')


# -- parameters --------------------------------------------------------------------------------------------------------


def test_parameters_say_what_they_are(node: RunningNode) -> None:
    budget, backend, target, cameras = node.peer.describe(
        'token_budget.window_tokens', 'backend', 'latency.target_ms', 'cameras')
    assert 'vision tokens' in budget.description
    assert 'any time' in budget.description
    assert (budget.integer_range[0].from_value, budget.integer_range[0].to_value) == (16, 131072)
    assert 'onnx' in backend.additional_constraints
    assert 'when the node is configured' in backend.description
    assert target.floating_point_range[0].from_value == 0.0
    assert cameras.type == 9


@pytest.mark.parametrize(('values', 'reason'), [
    ({'token_budget.window_tokens': 3}, 'window_tokens'),
    ({'latency.target_ms': -1.0}, 'target_ms'),
    ({'latency.target_ms': 'fast'}, 'it is a number'),
    ({'caption.drafted': 1}, 'true or false'),
    ({'token_budget.min_frame_tokens': 4000}, 'min_frame_tokens'),
    ({'latency.targt_ms': 5.0}, 'Is latency.target_ms meant'),
    ({'engine': '/elsewhere'}, 'not configured'),
    ({'ask.timeout_s': 5.0, 'caption.max_new_tokens': 0}, 'max_new_tokens'),
])
def test_a_parameter_that_cannot_be_is_refused_with_the_reason(node: RunningNode, values: dict[str, Any], reason: str) -> None:
    refusal = node.peer.set_settings(values)
    assert refusal
    assert reason in refusal


def test_a_parameter_that_may_change_takes_effect_at_once(node: RunningNode) -> None:
    node.show(30)
    assert node.peer.set_settings({'token_budget.window_tokens': 128, 'latency.target_ms': 0}) is None
    limited = node.show(31)
    assert limited.tokens.used <= limited.tokens.limit <= 128
    assert node.peer.set_settings({'token_budget.window_tokens': 512}) is None


# -- lifecycle ---------------------------------------------------------------------------------------------------------


def test_the_node_goes_through_every_state_and_back(node: RunningNode) -> None:
    peer = node.peer
    assert peer.state() == 'active'
    assert not peer.change_state('configure'), 'there is no such transition now, and the node says so'
    for transition, state in (('deactivate', 'inactive'), ('activate', 'active'), ('deactivate', 'inactive'),
                              ('cleanup', 'unconfigured')):
        assert peer.change_state(transition), transition
        assert peer.state() == state
    assert peer.set_settings({'threads': 2}) is None
    assert peer.change_state('configure', 30.0)
    refused = node.ask(question='What is there?')
    assert 'Activate it' in refused.message
    assert peer.change_state('activate')
    node.front.wait_matched()
    assert node.show(40).tokens.frames == 1, 'a new life starts with an empty window'


def test_an_engine_that_is_not_there_refuses_to_be_configured(node: RunningNode) -> None:
    peer = node.peer
    engine = node.scenes['front'].messages[-1].engine
    assert peer.change_state('deactivate')
    assert peer.change_state('cleanup')
    right = rclpy_value(node, 'engine')
    assert peer.set_settings({'engine': '/nowhere/at/all'}) is None
    assert not peer.change_state('configure')
    assert peer.state() == 'unconfigured'
    assert '/nowhere/at/all holds no built engine' in node.said()
    assert peer.set_settings({'engine': right}) is None
    assert peer.change_state('configure', 30.0)
    assert peer.change_state('activate')
    node.front.wait_matched()
    assert node.show(41).engine == engine


def rclpy_value(node: RunningNode, name: str) -> str:
    request = node.peer.new('rcl_interfaces/srv/GetParameters_Request', names=[name])
    answer = node.peer.ask('/penguin/get_parameters', 'rcl_interfaces/srv/GetParameters', request).result(10.0)
    return str(answer.values[0].string_value)


# -- health, time, beginning and end -----------------------------------------------------------------------------------


def test_diagnostics_tell_of_every_camera_and_of_the_engines(node: RunningNode) -> None:
    node.show(50)
    node.ask(question='What is there?')
    wait_until(lambda: node.show(51) and node.finding('camera front')[0] == 0, 'the camera being well')
    _, text, values = node.finding('camera front')
    assert text == 'images arrive and are described'
    assert {'rate_hz', 'age_ms', 'tokens used', 'tokens limit', 'frames dropped',
            'images superseded by newer ones'} <= values.keys()
    level, _, values = node.finding('engines')
    assert level == 0
    assert int(values['answers']) > 0
