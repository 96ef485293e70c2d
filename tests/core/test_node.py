"""The whole node on the bus in memory, its model a tiny one in numpy: what goes in, what comes out, what is refused."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from penguin_ros.core.dialect import Dialect
from penguin_ros.core.errors import EngineError
from penguin_ros.core.node import PerceptionNode
from penguin_ros.core.perception import Engines, Perception
from tests.bus.contract import Heard, wait_until
from tests.bus.memory_bus import Hub, MemoryBus
from tests.core.numpy_engine import NumpyLanguage, NumpyVision, byte_words

SECOND = 1_000_000_000
SETTINGS = {'cameras': ['front', 'rear'], 'token_budget.window_tokens': 160, 'window.frames': 4, 'caption.max_new_tokens': 12,
            'ask.max_new_tokens': 12, 'ask.max_prompt_tokens': 96, 'ask.detail_tokens': 64, 'camera.rear.compressed': True,
            'latency.stale_after_s': 0.5}


def picture(seed: int, height: int = 168, width: int = 224) -> np.ndarray:
    """A scene of its own for every seed."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


class World:
    """The node, and everything around it."""

    def __init__(self, **settings: Any) -> None:
        self.hub = Hub()
        self.now_ns = 1000 * SECOND
        self.bus = MemoryBus(self.hub, 'penguin', settings={**SETTINGS, **settings}, now_ns=lambda: self.now_ns)
        self.peer = MemoryBus(self.hub, 'peer')
        self.vision, self.language = NumpyVision(), NumpyLanguage(max_positions=1200)
        self.node = PerceptionNode(self.bus, self.assemble)
        self.bus.manage(self.node)
        self.heard = {}
        for camera in ('front', 'rear'):
            for topic, kind in (('scene', 'penguin_ros/msg/SceneDescription'),
                                ('detections', 'vision_msgs/msg/Detection2DArray')):
                self.heard[camera, topic] = Heard()
                self.peer.listen(f'/penguin/{camera}/{topic}', kind, self.heard[camera, topic])
        self.diagnostics = Heard()
        self.peer.listen('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', self.diagnostics)
        self.front = self.peer.outlet('/front/image_raw', 'sensor_msgs/msg/Image')
        self.rear = self.peer.outlet('/rear/image_raw/compressed', 'sensor_msgs/msg/CompressedImage')

    def assemble(self, config, cameras, health, log) -> Perception:
        engines = Engines(vision=self.vision, language=self.language, words=byte_words(), dialect=Dialect(
            caption_instruction='Describe.', region_question='What is in {box}?'), model_name='tiny', engine_id='0123456789ab',
            cache_rows=800)
        return Perception(engines, config, cameras, health, log)

    def up(self) -> World:
        assert self.bus.states is not None
        assert self.bus.states.take('configure') is None
        assert self.bus.states.take('activate') is None
        return self

    def image(self, rgb: np.ndarray, stamp_s: float, **changes: Any) -> Any:
        new = self.peer.new
        stamp = new('builtin_interfaces/msg/Time', sec=int(stamp_s), nanosec=round(stamp_s % 1 * 1e9))
        fields: dict[str, Any] = {
            'header': new('std_msgs/msg/Header', stamp=stamp, frame_id='front_optical_frame'), 'height': rgb.shape[0],
            'width': rgb.shape[1], 'encoding': 'rgb8', 'is_bigendian': 0, 'step': rgb.shape[1] * 3, 'data': rgb.reshape(-1)}
        return new('sensor_msgs/msg/Image', **{**fields, **changes})

    def show(self, seed: int, stamp_s: float) -> Any:
        """One front image, and the scene that comes of it."""
        before = len(self.scenes())
        self.now_ns = int((stamp_s + 0.25) * SECOND)
        self.front.publish(self.image(picture(seed), stamp_s))
        wait_until(lambda: len(self.scenes()) > before, 'a scene')
        return self.scenes()[before]

    def scenes(self, camera: str = 'front') -> list[Any]:
        return [scene for scene in self.heard[camera, 'scene'].messages if scene.status != 2]

    def ask(self, service: str = 'ask', timeout_s: float = 10.0, **fields: Any) -> Any:
        kind = {'ask': 'penguin_ros/srv/Ask', 'describe_region': 'penguin_ros/srv/DescribeRegion'}[service]
        return self.peer.ask(f'/penguin/{service}', kind, self.peer.new(f'{kind}_Request', **fields)).result(timeout_s)

    def roi(self, x: int, y: int, width: int, height: int) -> Any:
        return self.peer.new('sensor_msgs/msg/RegionOfInterest', x_offset=x, y_offset=y, width=width, height=height)

    def stamp(self, seconds: float) -> Any:
        return self.peer.new('builtin_interfaces/msg/Time', sec=int(seconds), nanosec=round(seconds % 1 * 1e9))

    def finding(self, part: str) -> tuple[int, str, dict[str, str]]:
        """The newest diagnostic status of a part: level, text, values."""
        count = len(self.diagnostics.messages)
        self.diagnostics.wait(count + 1)
        status = next(s for s in self.diagnostics.messages[-1].status if s.name == f'penguin: {part}')
        level = status.level if isinstance(status.level, int) else ord(bytes(status.level))
        return level, status.message, {value.key: value.value for value in status.values}

    def close(self) -> None:
        self.node.cleanup()
        self.bus.close()
        self.peer.close()


@pytest.fixture(autouse=True)
def quick_health(monkeypatch) -> None:
    monkeypatch.setattr('penguin_ros.core.node.HEALTH_PERIOD_S', 0.1)


@pytest.fixture
def make_world() -> Iterator[Any]:
    made: list[World] = []

    def make(**settings: Any) -> World:
        made.append(World(**settings))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world) -> World:
    return make_world().up()


def test_a_scene_keeps_its_images_stamp_and_frame_id_and_tells_its_age(world: World) -> None:
    scene = world.show(1, 1000.125)
    assert (scene.header.stamp.sec, scene.header.stamp.nanosec) == (1000, 125_000_000)
    assert scene.header.frame_id == 'front_optical_frame'
    assert scene.camera == 'front'
    assert scene.age_ms == pytest.approx(250.0)
    assert scene.keyframe
    assert scene.keyframe_reason == 'first frame'
    assert not scene.unchanged
    assert (scene.model, scene.engine) == ('tiny', '0123456789ab')
    assert 0 < scene.confidence <= 1
    assert scene.latency.total_ms >= scene.latency.decode_ms > 0
    assert 16 <= scene.tokens.used <= scene.tokens.limit == 160
    assert world.finding('camera front')[2]['age_ms'] == '250.0'


def test_what_does_not_change_is_published_as_unchanged_without_decoding(world: World) -> None:
    first = world.show(1, 1000.0)
    calls = len(world.language.appended_rows)
    second = world.show(1, 1000.2)
    assert second.unchanged
    assert second.caption == first.caption
    assert second.caption_stamp == first.header.stamp
    assert second.header.stamp.nanosec == 200_000_000
    assert second.tokens.encoded == 0
    assert second.tokens.reused == first.tokens.used
    assert len(world.language.appended_rows) == calls
    third = world.show(1, 1001.5)       # after window.interval_s an intermediate frame is read, and nothing is said of it
    assert third.unchanged
    assert 16 <= third.tokens.encoded < first.tokens.encoded
    changed = world.show(2, 1002.0)
    assert changed.keyframe
    assert not changed.unchanged


def test_old_frames_are_never_encoded_or_read_again(world: World) -> None:
    for number in range(12):
        world.show(number, 1000.0 + number)
    assert len(world.vision.encoded_tokens) == 12
    assert max(world.language.appended_rows) < 100, 'no call read a whole window'


def test_the_token_budget_is_kept_over_all_cameras_at_every_step(world: World) -> None:
    for number in range(10):
        world.show(number, 1000.0 + number)
        jpeg = cv2.imencode('.jpg', picture(50 + number))[1].reshape(-1)
        header = world.peer.new('std_msgs/msg/Header', stamp=world.stamp(1000.5 + number), frame_id='rear_optical_frame')
        world.rear.publish(world.peer.new('sensor_msgs/msg/CompressedImage', header=header, format='jpeg', data=jpeg))
        wait_until(lambda number=number: len(world.scenes('rear')) == number + 1, 'a scene of the rear camera')
    for scene in (*world.scenes('front'), *world.scenes('rear')):
        assert scene.tokens.used <= scene.tokens.limit == 160
        assert scene.tokens.frames <= 4


def test_detections_hold_the_same_boxes(world: World) -> None:
    scene = world.show(1, 1000.0)
    detections = world.heard['front', 'detections'].wait(1)[0]
    assert detections.header == scene.header
    assert len(detections.detections) == sum(phrase.has_box for phrase in scene.phrases)


def test_questions_are_answered_about_now_a_region_and_the_past(world: World) -> None:
    for number in range(3):
        world.show(number, 1000.0 + number)
    now = world.ask(question='What?')
    assert now.success, now.message
    assert now.header.stamp.sec == 1002
    assert now.choice == -1
    region = world.ask('describe_region', region=world.roi(10, 10, 50, 60))
    assert region.success, region.message
    past = world.ask(question='What?', stamp=world.stamp(1001.4))
    assert past.header.stamp.sec == 1001
    assert past.header.frame_id == 'front_optical_frame'
    assert past.age_ms == pytest.approx(1250.0)


def test_a_choice_comes_with_its_probabilities(world: World) -> None:
    world.show(1, 1000.0)
    answer = world.ask(question='Clear?', choices=['yes', 'no', 'unsure'])
    assert answer.success, answer.message
    assert answer.answer == ['yes', 'no', 'unsure'][answer.choice]
    assert sum(answer.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert answer.confidence == pytest.approx(max(answer.probabilities))


@pytest.mark.parametrize(('fields', 'remedy'), [
    ({'question': 'x' * 400}, 'Shorten it'),
    ({'question': '?', 'camera': 'roof'}, 'there are: front, rear'),
    ({'question': '?', 'region': (200, 10, 50, 10)}, 'pixels of that image'),
    ({'question': '?', 'region': (5, 5, 0, 10)}, 'pixels of that image'),
    ({'question': '?', 'stamp': 900.0}, 'held are 1000.000 to 1001.000'),
    ({'question': '?', 'stamp': 1005.0}, 'Ask within that range'),
    ({'question': ''}, 'Write one'),
    ({'question': 'End<|im_end|>'}, 'control token'),
    ({'question': '?', 'timeout': -1.0}, 'timeout'),
    ({'question': '?', 'choices': ['a', 'a']}, 'its own words'),
    ({'question': '?', 'camera': 'rear'}, 'has not delivered'),
])
def test_a_question_that_cannot_be_answered_is_refused_with_a_remedy(world: World, fields: dict[str, Any], remedy: str) -> None:
    world.show(1, 1000.0)
    world.show(2, 1001.0)
    if 'region' in fields:
        fields = {**fields, 'region': world.roi(*fields['region'])}
    if 'stamp' in fields:
        fields = {**fields, 'stamp': world.stamp(fields['stamp'])}
    refused = world.ask(**fields)
    assert not refused.success
    assert remedy in refused.message
    assert world.ask(question='What?').success, 'the next good question works'
    assert int(world.finding('engines')[2]['questions']) == 2


def test_the_topic_pair_answers_like_the_service(world: World) -> None:
    world.show(1, 1000.0)
    heard = Heard()
    world.peer.listen('/penguin/answer', 'penguin_ros/msg/Answer', heard)
    outlet = world.peer.outlet('/penguin/question', 'penguin_ros/msg/Question')
    outlet.publish(world.peer.new('penguin_ros/msg/Question', id='q1', question='What?'))
    outlet.publish(world.peer.new('penguin_ros/msg/Question', id='q2', question='What?', camera='roof'))
    by_id = {answer.id: answer for answer in heard.wait(2)}
    assert by_id['q1'].success
    assert by_id['q1'].answer == world.ask(question='What?').answer
    assert 'there are' in by_id['q2'].message


def test_an_action_streams_its_answer_and_can_be_cancelled(make_world) -> None:
    world = make_world(**{'ask.max_new_tokens': 200}).up()
    world.show(1, 1000.0)
    goal = world.peer.new('penguin_ros/action/AskStream_Goal', question='What?')
    feedback = Heard()
    result = world.peer.start_goal('/penguin/ask_stream', 'penguin_ros/action/AskStream', goal, feedback).result(20.0)
    if result.message.answer:
        assert result.outcome == 'succeeded'
        assert result.message.answer.startswith(feedback.messages[-1].partial)
    counted = threading.Event()
    original = world.language.append

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.01)
        counted.set()
        return original(*args, **options)

    world.language.append = slow    # type: ignore[method-assign]
    job = world.peer.start_goal('/penguin/ask_stream', 'penguin_ros/action/AskStream', goal, feedback)
    counted.wait(5.0)
    assert job.cancel()
    cancelled = job.result(5.0)
    assert cancelled.outcome == 'canceled'
    assert 'cancelled' in cancelled.message.message


def test_an_answer_that_takes_too_long_is_an_error_with_a_remedy(world: World) -> None:
    world.show(1, 1000.0)
    original = world.language.append
    world.language.append = lambda *a, **o: (time.sleep(0.05), original(*a, **o))[1]    # type: ignore[method-assign]
    late = world.ask(question='What?', timeout=0.08)
    assert not late.success
    assert 'longer timeout' in late.message


GOOD = picture(9)
BAD_IMAGES = {
    'a step too small for its width': {'step': 100},
    'data too short for its size': {'data': GOOD.reshape(-1)[:-10]},
    'no size': {'height': 0, 'width': 0, 'step': 0, 'data': GOOD.reshape(-1)[:0]},
    'an unknown encoding': {'encoding': 'infrared9'},
    'sixteen pixels a side': {'height': 16, 'width': 16, 'step': 48, 'data': GOOD.reshape(-1)[:768]},
}


@pytest.mark.parametrize('changes', BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_bad_image_is_refused_counted_and_followed_by_good_ones(world: World, changes: dict[str, Any], caplog) -> None:
    with caplog.at_level(logging.ERROR):
        world.front.publish(world.image(GOOD, 1000.0, **changes))
        wait_until(lambda: any('camera front:' in record.message for record in caplog.records), 'an error in the log')
    assert not world.show(1, 1001.0).unchanged
    values = world.finding('camera front')[2]
    assert values['images refused'] == values['refused: ImageError'] == '1'
    assert values['last error']


def test_an_image_too_large_is_refused_before_its_pixels_are_made(make_world, caplog) -> None:
    world = make_world(max_image_pixels=200 * 200).up()
    with caplog.at_level(logging.ERROR):
        world.front.publish(world.image(picture(1, 300, 400), 1000.0))
        wait_until(lambda: 'max_image_pixels' in caplog.text, 'an error that names the setting')
    world.show(1, 1001.0)


def test_stamps_that_cannot_be_true_are_refused_or_start_anew(world: World, caplog) -> None:
    world.show(1, 1000.0)
    with caplog.at_level(logging.WARNING):
        world.front.publish(world.image(picture(2), 0.0))
        wait_until(lambda: 'Set header.stamp' in caplog.text, 'an error about the stamp 0')
        world.front.publish(world.image(picture(2), 999.5))
        wait_until(lambda: int(world.finding('camera front')[2]['images refused']) == 2, 'a refusal of a short jump back')
        scene = world.show(3, 500.0)
    assert scene.keyframe
    assert scene.tokens.frames == 1, 'the window started anew'
    assert 'jumped back by 500.000 s' in caplog.text
    assert world.finding('camera front')[2]['refused: StampError'] == '3'


def test_a_camera_that_stops_is_stale_and_comes_back(world: World) -> None:
    first = world.show(1, 1000.0)
    heard = world.heard['front', 'scene']
    wait_until(lambda: heard.messages[-1].status == 2, 'a stale scene')
    stale = heard.messages[-1]
    assert stale.caption == first.caption
    assert stale.header == first.header
    assert not stale.unchanged, 'nobody knows'
    assert 'check the camera driver' in stale.reason
    assert world.finding('camera front')[0] == 3
    wait_until(lambda: world.heard['rear', 'scene'].messages != [], 'a stale scene of a camera that never delivered')
    assert 'no image' in world.heard['rear', 'scene'].messages[-1].reason
    assert world.show(2, 1010.0).status == 0


def test_a_failing_engine_is_reported_and_the_stream_goes_on(world: World) -> None:
    world.show(1, 1000.0)
    original = world.vision.encode
    world.vision.encode = lambda *a: (_ for _ in ()).throw(EngineError('no device memory'))     # type: ignore[method-assign]
    world.front.publish(world.image(picture(2), 1001.0))
    heard = world.heard['front', 'scene']
    wait_until(lambda: any('no device memory' in scene.reason for scene in heard.messages), 'a scene that says so')
    world.vision.encode = original      # type: ignore[method-assign]
    scene = world.show(2, 1002.0)
    assert scene.status != 2
    assert not scene.unchanged
    assert scene.keyframe, 'the frame stands in for the keyframe that was lost'
    level, text, values = world.finding('engines')
    assert level == 1
    assert values['engine failures'] == '1'
    assert 'no device memory' in text


def test_settings_change_live_or_are_refused_with_the_reason(world: World) -> None:
    for number in range(4):
        world.show(number, 1000.0 + number)
    assert world.bus.set_settings({'token_budget.window_tokens': 64}) is None
    assert world.show(7, 1010.0).tokens.used <= 64
    assert 'can be' in (world.bus.set_settings({'token_budget.window_tokens': 1}) or '')
    assert world.bus.set_settings({'token_budget.min_frame_tokens': 900}) is not None
    assert world.bus.set_settings({'engine': 'other'}) is not None


def test_the_node_goes_through_all_states_and_back(world: World) -> None:
    states = world.bus.states
    assert states is not None
    world.show(1, 1000.0)
    assert states.take('deactivate') is None
    world.front.publish(world.image(picture(2), 1001.0))
    refused = world.ask(question='What?')
    assert 'Activate it' in refused.message
    assert states.take('activate') is None
    assert world.show(3, 1002.0).tokens.frames == 1, 'a new life starts with an empty window'
    assert states.take('deactivate') is None
    assert states.take('cleanup') is None
    assert states.take('configure') is None
    assert states.take('activate') is None
    world.show(4, 1003.0)


def test_a_model_that_cannot_be_loaded_refuses_to_be_configured(make_world, caplog) -> None:
    world = make_world()
    world.node._assemble = lambda *parts: (_ for _ in ()).throw(EngineError('no such engine. Build it.'))
    assert world.bus.states is not None
    with caplog.at_level(logging.ERROR):
        assert world.bus.states.take('configure') is not None
    assert 'Build it' in caplog.text
    world.node._assemble = world.assemble
    world.up()


def test_a_budget_that_does_not_fit_the_engine_says_what_to_lower(make_world, caplog) -> None:
    world = make_world(**{'token_budget.window_tokens': 4000})
    assert world.bus.states is not None
    with caplog.at_level(logging.ERROR):
        world.bus.states.take('configure')
    assert 'Lower token_budget.window_tokens to' in caplog.text


def test_the_annotated_image_is_drawn_only_while_someone_looks(world: World, monkeypatch) -> None:
    drawn: list[Any] = []
    real = __import__('penguin_ros.core.node', fromlist=['draw_scene']).draw_scene
    monkeypatch.setattr('penguin_ros.core.node.draw_scene', lambda *a: drawn.append(1) or real(*a))
    world.show(1, 1000.0)
    assert drawn == []
    heard = Heard()
    world.peer.listen('/penguin/front/annotated', 'sensor_msgs/msg/Image', heard)
    world.show(2, 1001.0)
    image = heard.wait(1)[0]
    assert (image.height, image.width, image.encoding, len(image.data)) == (168, 224, 'rgb8', 168 * 224 * 3)
    assert image.header.frame_id == 'front_optical_frame'


def test_the_same_images_give_the_same_scenes(make_world) -> None:
    def run() -> list[Any]:
        world = make_world().up()
        scenes = [world.show(seed, 1000.0 + index) for index, seed in enumerate((1, 1, 2, 2, 3, 1))]
        names = ('caption', 'keyframe', 'unchanged', 'phrases', 'tokens')
        return [SimpleNamespace(**{name: getattr(scene, name) for name in names}) for scene in scenes]

    assert run() == run()
