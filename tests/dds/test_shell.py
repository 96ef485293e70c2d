"""The whole node on DDS, from images to scenes and answers, with a plain perception in place of a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from penguin_ros.core.errors import ConfigError, DeadlineError, PenguinError, TransportError
from penguin_ros.core.frame import Region
from penguin_ros.core.scene import Question
from penguin_ros.dds.asking import Asker
from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.player import Played, Player
from penguin_ros.dds.recording import Recording
from penguin_ros.dds.shell import run_node
from tests.bus.contract import Heard, wait_until
from tests.dds.domains import DOMAIN_ID, own_name
from tests.dds.plain_perception import plain_perception
from tests.dds.recordings import FIRST_NS, PERIOD_NS, write_recording
from tests.dds.world import World


@pytest.fixture
def world() -> Iterator[World]:
    running = World()
    yield running
    running.close()


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_an_image_becomes_a_scene_with_the_images_own_stamp_and_frame(world: World) -> None:
    stamp_ns = world.show('red')
    wait_until(lambda: len(world.told()) == 1, 'the scene')
    (scene,) = world.told()
    assert (stamp_of(scene), scene.header.frame_id, scene.caption) == (stamp_ns, 'front', 'a red scene')
    assert 0 <= scene.age_ms < 10_000
    assert [(phrase.text, phrase.x_max) for phrase in scene.phrases] == [('a red scene', 32.0)]


def test_a_camera_that_stops_is_stale_and_diagnostics_say_so(world: World) -> None:
    diagnostics = Heard()
    world.bus.listen('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', diagnostics)
    world.show('red')
    wait_until(lambda: any(scene.status == scene.STATUS_STALE and 'no image for' in scene.reason
                           for scene in world.scenes.messages), 'the camera being stale')
    wait_until(lambda: any('check the camera driver' in status.message for array in diagnostics.messages
                           for status in array.status), 'diagnostics saying so')


def test_a_question_is_answered_by_service(world: World) -> None:
    world.show('green')
    wait_until(lambda: bool(world.told()), 'the image being described')
    asker = Asker(world.bus, world.node)
    answer = asker.ask(Question(text='which colour', choices=('red', 'green'), region=Region(0, 0, 10, 10)), 5.0)
    assert (answer.success, answer.answer, answer.choice, list(answer.probabilities)) == (True, 'green', 1, [0.0, 1.0])
    assert answer.header.frame_id == 'front'
    refused = asker.ask(Question(text='which colour', camera='rear'), 5.0)
    assert not refused.success
    assert "no camera 'rear'" in refused.message


def test_an_answer_streams_while_it_is_written(world: World) -> None:
    world.show('green')
    wait_until(lambda: bool(world.told()), 'the image being described')
    partial: list[str] = []
    answer = Asker(world.bus, world.node).ask_streaming(Question(text='one two three slowly'), 10.0, partial.append)
    assert answer.answer == 'green'
    assert partial[-1] == 'one two three slowly'
    assert len(partial) >= 2


def test_a_question_is_answered_by_topics_where_no_service_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.show('blue')
    wait_until(lambda: bool(world.told()), 'the image being described')
    monkeypatch.setattr('penguin_ros.dds.asking.SERVICE_PATIENCE_S', 0.0)      # as with rmw_fastrtps: none is ever known
    monkeypatch.setattr('penguin_ros.dds.service.ServiceClient.answers', False)
    answer = Asker(world.bus, world.node).ask(Question(text='which colour'), 5.0)
    assert (answer.success, answer.answer) == (True, 'blue')


def test_asking_nobody_says_what_to_start() -> None:
    bus = DdsBus(own_name('alone'), domain_id=DOMAIN_ID)
    with pytest.raises(TransportError, match=r'No node /nobody was found. Start it \(penguin run'):
        Asker(bus, '/nobody').ask(Question(text='hello'), 0.2)
    bus.close()


def test_a_node_that_says_nothing_in_time_is_reported() -> None:
    bus, silent = (DdsBus(own_name(name), domain_id=DOMAIN_ID) for name in ('alone', 'silent'))
    node = f'/{own_name("node")}'
    silent.listen(f'{node}/question', 'penguin_ros/msg/Question', lambda message: None)
    silent.advertise(f'{node}/answer', 'penguin_ros/msg/Answer')
    with pytest.raises(DeadlineError, match=r'has not answered within 0\.1 s'):
        Asker(bus, node).ask(Question(text='hello'), 0.1)
    bus.close()
    silent.close()


def test_a_recording_plays_as_a_live_camera(world: World, tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red', 'red', 'blue', 'blue', 'blue'])
    played: list[Played] = []
    with Recording(source) as recording:
        recording.topics = {f'{world.namespace}{topic}': kind for topic, kind in recording.topics.items()}
        # The same bytes under the topic of this test's own namespace.
        original = recording.messages
        recording.messages = lambda topics: (        # type: ignore[method-assign]
            type(one)(f'{world.namespace}{one.topic}', one.type_name, one.time_ns, one.data)
            for one in original(['/front/image_raw']))
        player = Player(recording, world.bus, on_image=played.append)
        started_ns = time.time_ns()
        assert player.wait_for_watchers(5.0)
        assert player.play(threading.Event()) == 5
        player.close()
    wait_until(lambda: len(world.told()) == 5, 'all images being described')
    scenes = world.told()
    assert [one.recorded_stamp_ns for one in played] == [FIRST_NS + number * PERIOD_NS for number in range(5)]
    assert [one.stamp_ns - one.recorded_stamp_ns for one in played] == [played[0].stamp_ns - FIRST_NS] * 5
    assert started_ns <= played[0].stamp_ns <= time.time_ns()
    assert [stamp_of(scene) for scene in scenes] == [one.stamp_ns for one in played]
    assert [scene.caption for scene in scenes] == ['a red scene'] * 2 + ['a blue scene'] * 3


def test_a_shutdown_from_outside_ends_the_node(world: World) -> None:
    client = world.bus.client(f'{world.node}/change_state', 'lifecycle_msgs/srv/ChangeState')
    shutdown = world.bus.new('lifecycle_msgs/msg/Transition', label='shutdown')
    assert client.call(world.bus.new('lifecycle_msgs/srv/ChangeState_Request', transition=shutdown), 5.0).success
    world.thread.join(5.0)
    assert not world.thread.is_alive()


@pytest.mark.parametrize(('settings', 'error', 'match'), [
    ({'engine': 'missing'}, PenguinError, 'penguin build'),
    ({'camera.front.image_topics': 'x'}, ConfigError, r'did you mean'),
    ({'token_budget.window_tokens': -1}, ConfigError, r'token_budget.window_tokens is -1')])
def test_a_node_that_cannot_start_says_why(settings: dict[str, Any], error: type[PenguinError], match: str) -> None:
    with pytest.raises(error, match=match):
        run_node(plain_perception, {'cameras': ['front'], **settings}, namespace=own_name('robot'), domain_id=DOMAIN_ID,
                 stop=threading.Event())
