"""A replay looks at every image on the recording's own time, and gives the same scenes each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from penguin_ros.core.errors import PenguinError, RecordingError
from penguin_ros.dds.interfaces import ros_types
from penguin_ros.dds.recording import Recording, RecordingWriter
from penguin_ros.dds.replay import ReplaySummary, replay
from tests.dds.plain_perception import plain_perception
from tests.dds.recordings import FIRST_NS, PERIOD_NS, header, image, new, write_recording

COLOURS = ['red'] * 5 + ['blue'] * 15


def said(path: Path, topic: str) -> list[Any]:
    with Recording(path) as recording:
        return [ros_types().decode(recorded.data, recorded.type_name) for recorded in recording.messages([topic])]


def test_every_image_gets_its_scene_with_its_own_stamp_and_frame(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', COLOURS, rear=True)
    summary = replay(source, tmp_path / 'out.mcap', plain_perception)
    assert (summary.images, summary.scenes, summary.captions, summary.unchanged) == (40, 40, 4, 36)
    assert (summary.keyframes, summary.refused, summary.tokens_used_most, summary.tokens_limit) == (4, 0, 10, 100)
    assert summary.cameras == {'front': '/front/image_raw', 'rear': '/rear/image_raw/compressed'}
    assert summary.recorded_s == pytest.approx(1.9)
    scenes = said(tmp_path / 'out.mcap', '/penguin/front/scene')
    assert [scene.header.stamp.sec * 10**9 + scene.header.stamp.nanosec for scene in scenes] == [
        FIRST_NS + number * PERIOD_NS for number in range(20)]
    assert {scene.header.frame_id for scene in scenes} == {'front_optical'}
    assert [scene.keyframe_reason for scene in scenes[:7]] == [
        'another colour', *['the same colour'] * 4, 'another colour', 'the same colour']
    assert scenes[0].age_ms == 0.0              # on the recording's time, not on today's
    assert len(said(tmp_path / 'out.mcap', '/penguin/rear/detections')) == 20
    assert said(tmp_path / 'out.mcap', '/penguin/front/detections')[0].detections[0].bbox.size_x == 32.0


def test_diagnostics_come_once_a_second_of_recorded_time(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red'] * 35)
    replay(source, tmp_path / 'out.mcap', plain_perception)
    assert len(said(tmp_path / 'out.mcap', '/diagnostics')) == 3


def test_the_same_recording_gives_the_same_scenes(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', COLOURS, rear=True)
    for name in ('one.mcap', 'two.mcap'):
        replay(source, tmp_path / name, plain_perception)
    assert [repr(scene) for scene in said(tmp_path / 'one.mcap', '/penguin/front/scene')] == [
        repr(scene) for scene in said(tmp_path / 'two.mcap', '/penguin/front/scene')]


def test_one_camera_can_be_chosen_and_named(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', COLOURS, rear=True)
    summary = replay(source, tmp_path / 'out.mcap', plain_perception, cameras={'back': '/rear/image_raw/compressed'})
    assert (summary.images, summary.cameras) == (20, {'back': '/rear/image_raw/compressed'})
    assert len(said(tmp_path / 'out.mcap', '/penguin/back/scene')) == 20


def test_a_camera_the_recording_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', COLOURS)
    with pytest.raises(RecordingError, match='no images on /side/image_raw for camera side; it has them on: /front/image_raw'):
        replay(source, tmp_path / 'out.mcap', plain_perception, cameras={'side': '/side/image_raw'})


def test_recorded_questions_are_asked_again(tmp_path: Path) -> None:
    question = new('penguin_ros/msg/Question', id='7', question='what colour')
    extra = [('/penguin/question', 'penguin_ros/msg/Question', question, FIRST_NS + 10 * PERIOD_NS + 50)]
    source = write_recording(tmp_path / 'drive.mcap', COLOURS, extra=extra)
    replay(source, tmp_path / 'out.mcap', plain_perception)
    (answer,) = said(tmp_path / 'out.mcap', '/penguin/answer')
    assert (answer.id, answer.success, answer.answer) == ('7', True, 'blue')


def test_images_of_no_use_are_counted_and_the_next_good_one_works(tmp_path: Path) -> None:
    step_wrong = image('red', FIRST_NS + 2 * PERIOD_NS + 3)
    step_wrong.step = 1
    no_stamp = image('red', 0)
    extra = [('/front/image_raw', 'sensor_msgs/msg/Image', bad, FIRST_NS + 2 * PERIOD_NS + place)
             for place, bad in ((3, step_wrong), (4, no_stamp))]
    source = write_recording(tmp_path / 'drive.mcap', COLOURS, extra=extra)
    summary = replay(source, tmp_path / 'out.mcap', plain_perception)
    assert (summary.images, summary.scenes, summary.refused) == (22, 20, 2)
    values = {value.key: value.value for value in said(tmp_path / 'out.mcap', '/diagnostics')[0].status[0].values}
    assert (values['refused: ImageError'], values['refused: StampError']) == ('1', '1')


def test_a_recording_that_is_cut_off_is_used_and_the_summary_says_so(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', COLOURS, height=240, width=320)
    source.write_bytes(source.read_bytes()[:3_000_000])
    summary = replay(source, tmp_path / 'out.mcap', plain_perception)
    assert 0 < summary.images < 20
    assert 'drive.mcap is cut off' in summary.damage
    assert len(said(tmp_path / 'out.mcap', '/penguin/front/scene')) == summary.images


def test_a_recording_without_images_says_what_it_has(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / 'odd.mcap', ros_types()) as writer:
        writer.write('/odom', 'std_msgs/msg/Header', ros_types().encode(header(1, 'odom'), 'std_msgs/msg/Header'), 5)
    with pytest.raises(RecordingError, match='holds no images, only: /odom'):
        replay(tmp_path / 'odd.mcap', tmp_path / 'out.mcap', plain_perception)
    assert not (tmp_path / 'out.mcap').exists()


def test_an_engine_or_a_setting_that_does_not_exist_leaves_no_recording(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red'])
    for settings, match in (({'engine': 'missing'}, 'penguin build'), ({'token_budget.window_token': 5}, 'did you mean')):
        with pytest.raises(PenguinError, match=match):
            replay(source, tmp_path / 'out.mcap', plain_perception, settings=settings)
        assert not (tmp_path / 'out.mcap').exists()


def test_annotated_images_are_written_when_wanted(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red'] * 3)
    replay(source, tmp_path / 'out.mcap', plain_perception, annotated=True)
    drawn = said(tmp_path / 'out.mcap', '/penguin/front/annotated')
    assert [(picture.width, picture.height, picture.header.frame_id) for picture in drawn] == [(64, 48, 'front_optical')] * 3


def test_progress_is_told_for_each_message(tmp_path: Path) -> None:
    source = write_recording(tmp_path / 'drive.mcap', ['red'] * 4)
    told: list[tuple[int, int]] = []

    def progress(summary: ReplaySummary, of: int) -> None:
        told.append((summary.images, of))

    replay(source, tmp_path / 'out.mcap', plain_perception, progress=progress)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_replay_needs_no_dds_so_that_it_runs_on_a_robot_too() -> None:
    script = "import sys, penguin_ros.cli.replay, penguin_ros.dds.replay; print('cyclonedds' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, '-c', script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
