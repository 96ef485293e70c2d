"""Recordings can be read back, repeat byte for byte, and bad ones are refused with their remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penguin_ros.core.errors import RecordingError
from penguin_ros.sim.drive import sample_drive
from penguin_ros.sim.messages import camera_matrix
from penguin_ros.sim.recording import FIRST_STAMP_NS, read_recording, record_drive, record_rig
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.rig import sample_rig
from penguin_ros.sim.world import Camera

pytest.importorskip('rosbags', reason='rosbags is not installed: pip install "penguin_ros[dds]"')

from rosbags import rosbag2
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_JAZZY)


@pytest.fixture(scope='module')
def recording(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('recording') / 'drive.mcap'
    record_drive(path, seconds=3.0, rate_hz=2.0, seed=4, split='unit test')
    return path


def test_a_recording_gives_back_images_stamps_and_truth(recording: Path, renderer: Renderer) -> None:
    frames = list(read_recording(recording))
    assert [frame.stamp_ns for frame in frames] == [FIRST_STAMP_NS + index * 500_000_000 for index in range(6)]
    assert {frame.frame_id for frame in frames} == {'camera_optical_frame'}
    picture, truth = renderer.frame(sample_drive('unit test', 4, 3.0), 1.5)
    assert np.abs(frames[3].pixels.astype(int) - picture).mean() < 4         # JPEG
    assert frames[3].truth['objects'] == truth.as_dict()['objects']
    assert frames[3].truth['stamp_ns'] == frames[3].stamp_ns


def test_raw_images_come_back_exactly(renderer: Renderer, tmp_path: Path) -> None:
    record_drive(tmp_path / 'raw.mcap', seconds=0.5, rate_hz=2.0, seed=4, split='unit test', compressed=False)
    (frame,) = read_recording(tmp_path / 'raw.mcap')
    assert np.array_equal(frame.pixels, renderer.frame(sample_drive('unit test', 4, 0.5), 0.0)[0])


def test_the_same_seed_gives_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    record_drive(tmp_path / 'drive.mcap', seconds=3.0, rate_hz=2.0, seed=4, split='unit test')
    assert (tmp_path / 'drive.mcap').read_bytes() == recording.read_bytes()


def test_the_camera_matrix_puts_a_point_on_the_axis_in_the_middle() -> None:
    pixel = camera_matrix(Camera()) @ np.array([0.0, 0.0, 2.0])
    assert pixel[:2] / pixel[2] == pytest.approx([159.5, 119.5])


def test_a_recording_cut_off_is_refused_with_its_remedy(recording: Path, tmp_path: Path) -> None:
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(recording.read_bytes()[:3000])
    with pytest.raises(RecordingError, match='whole'):
        list(read_recording(cut))


def test_a_missing_recording_and_an_existing_target_are_refused(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match='cannot be read'):
        list(read_recording(tmp_path / 'none.mcap'))
    with pytest.raises(RecordingError, match='exists already'):
        record_drive(recording, seconds=1.0, rate_hz=1.0, seed=0)
    with pytest.raises(RecordingError, match=r'does not end in \.mcap'):
        record_drive(tmp_path / 'drive.bag', seconds=1.0, rate_hz=1.0, seed=0)


@pytest.fixture(scope='module')
def around(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('rig') / 'around.mcap'
    assert record_rig(path, cameras=('front', 'rear'), seconds=3.0, rate_hz=1.0, seed=4, split='unit test', plain=True) == 6
    return path


def test_each_camera_of_a_rig_has_topics_of_its_own_and_a_place_on_the_robot(around: Path) -> None:
    with rosbag2.Reader(around) as bag:
        topics = {one.topic: (one.msgtype.rpartition('/')[2], one.msgcount) for one in bag.connections}
        read = {connection.topic: store.deserialize_cdr(raw, connection.msgtype) for connection, _, raw in bag.messages()}
        latched = [one.topic for one in bag.connections
                   if any(qos.durability.name == 'TRANSIENT_LOCAL' for qos in one.ext.offered_qos_profiles)]
    assert topics == {
        '/tf_static': ('TFMessage', 1), '/tf': ('TFMessage', 3),
        **{f'/{camera}/{topic}': (kind, 3) for camera in ('front', 'rear') for topic, kind in (
            ('image/compressed', 'CompressedImage'), ('camera_info', 'CameraInfo'), ('ground_truth', 'String'))}}
    assert latched == ['/tf_static']
    assert [(one.header.frame_id, one.child_frame_id) for one in read['/tf_static'].transforms] == [
        ('base_link', 'front_optical_frame'), ('base_link', 'rear_optical_frame')]
    assert [(one.header.frame_id, one.child_frame_id) for one in read['/tf'].transforms] == [('map', 'base_link')]
    for mount in sample_rig('unit test', 4, ('front', 'rear')):
        info = read[f'/{mount.name}/camera_info']
        assert info.header.frame_id == mount.frame_id
        assert info.k == pytest.approx(camera_matrix(mount.camera).reshape(-1))


def test_images_of_a_rig_come_back_with_the_truth_of_their_camera(around: Path) -> None:
    frames = list(read_recording(around, ('rear', 'front')))
    assert [(frame.camera, frame.truth['camera'], frame.frame_id) for frame in frames] == 3 * [
        (camera, camera, f'{camera}_optical_frame') for camera in ('front', 'rear')]
    assert [frame.stamp_ns - FIRST_STAMP_NS for frame in frames[::2]] == [0, 10**9, 2 * 10**9]
    with pytest.raises(RecordingError, match=r'its topics are: .*/front/image/compressed'):
        list(read_recording(around))


def test_a_camera_sees_the_same_whichever_others_are_recorded(around: Path, tmp_path: Path) -> None:
    record_rig(tmp_path / 'rear.mcap', cameras=('rear',), seconds=3.0, rate_hz=1.0, seed=4, split='unit test', plain=True)
    for alone, among in zip(read_recording(tmp_path / 'rear.mcap', ('rear',)), read_recording(around, ('rear',))):
        assert alone.truth == among.truth
        assert np.array_equal(alone.pixels, among.pixels)


def test_a_recording_that_fails_leaves_nothing_behind(renderer: Renderer, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_rig(tmp_path / 'half.mcap', cameras=('front',), seconds=2.0, rate_hz=1.0, seed=4, plain=True, progress=stop)
    assert list(tmp_path.iterdir()) == []
