"""Recordings are written whole, read in order, and read as far as they go when they are cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from rosbags import rosbag2

from penguin_ros.core.errors import RecordingError
from penguin_ros.dds.interfaces import ros_types
from penguin_ros.dds.recording import MAGIC, Recording, RecordingWriter
from tests.dds.recordings import FIRST_NS, PERIOD_NS, write_recording

COLOURS = ['red', 'green', 'blue', 'grey'] * 10
LARGE = {'height': 240, 'width': 320}       # 230 kB an image: several chunks


def times(recording: Recording) -> list[int]:
    return [recorded.time_ns for recorded in recording.messages(recording.image_topics())]


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    with Recording(write_recording(tmp_path / 'drive.mcap', COLOURS, rear=True)) as recording:
        assert recording.image_topics() == ['/front/image_raw', '/rear/image_raw/compressed']
        assert recording.count(['/front/image_raw']) == len(COLOURS)
        found = list(recording.messages(recording.image_topics()))
        assert [recorded.time_ns for recorded in found] == [
            FIRST_NS + number * PERIOD_NS + rear for number in range(len(COLOURS)) for rear in (0, 1)]
        message = ros_types().decode(found[3].data, found[3].type_name)
        assert (message.format, message.header.frame_id) == ('png', 'rear_optical')
        assert recording.damage == ''


def test_the_same_messages_make_the_same_bytes(tmp_path: Path) -> None:
    one, other = (write_recording(tmp_path / name, COLOURS[:5]) for name in ('a.mcap', 'b.mcap'))
    assert len(one.read_bytes()) == len(other.read_bytes())
    assert one.read_bytes().replace(b'a.mcap', b'b.mcap') == other.read_bytes()


def test_a_rosbag2_folder_is_read_too(tmp_path: Path) -> None:
    types = ros_types()
    with rosbag2.Writer(tmp_path / 'bag', version=8) as bag:
        connection = bag.add_connection('/image', 'sensor_msgs/msg/Image', typestore=types.store)
        bag.write(connection, 5, types.encode(types.new('sensor_msgs/msg/Image', height=2), 'sensor_msgs/msg/Image'))
    with Recording(tmp_path / 'bag') as recording:
        (recorded,) = recording.messages(['/image'])
        assert types.decode(recorded.data, recorded.type_name).height == 2


@pytest.mark.parametrize('kept', [0.999, 0.9, 0.5, 0.2])
def test_a_recording_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, kept: float) -> None:
    whole = write_recording(tmp_path / 'whole.mcap', COLOURS, **LARGE)
    data = whole.read_bytes()
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(data[:int(len(data) * kept)])
    with Recording(cut) as recording:
        found = times(recording)
        assert 'cut.mcap is cut off' in recording.damage
    with Recording(whole) as recording:
        assert found == times(recording)[:len(found)]
    assert len(found) >= kept * len(COLOURS) - 6        # at most the chunk that was being written is lost


def test_a_recording_damaged_in_the_middle_is_read_up_to_there(tmp_path: Path) -> None:
    path = write_recording(tmp_path / 'drive.mcap', COLOURS, **LARGE)
    data = bytearray(path.read_bytes())
    chunk = len(data) // 2
    data[chunk:chunk + 2_000_000] = bytes(min(2_000_000, len(data) - chunk))
    path.write_bytes(data)
    with Recording(path) as recording:
        found = times(recording)
        assert 0 < len(found) < len(COLOURS)
        assert 'drive.mcap is' in recording.damage


@pytest.mark.parametrize('data', [b'', b'hello', MAGIC, MAGIC + b'\x01\x05'], ids=['empty', 'text', 'magic', 'header cut'])
def test_what_is_no_recording_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / 'odd.mcap'
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=r'odd\.mcap'):
        Recording(path)


def test_a_recording_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r'nowhere\.mcap does not exist'):
        Recording(tmp_path / 'nowhere.mcap')
    (tmp_path / 'notes.txt').write_text('hello')
    with pytest.raises(RecordingError, match='cannot be read as a recording'):
        Recording(tmp_path / 'notes.txt')


def test_a_file_that_exists_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / 'drive.mcap'
    path.write_bytes(b'precious')
    with pytest.raises(RecordingError, match='would be lost'):
        RecordingWriter(path, ros_types())
    with pytest.raises(RecordingError, match=r'\.mcap'):
        RecordingWriter(tmp_path / 'drive.bag', ros_types())
    assert path.read_bytes() == b'precious'


def test_nothing_is_left_of_a_recording_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RecordingWriter(tmp_path / 'drive.mcap', ros_types()):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
