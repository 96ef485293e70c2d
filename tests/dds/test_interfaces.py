"""Message types come from the interface files, and their bytes and hashes are ROS's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from penguin_ros.core.errors import PenguinError, TransportError
from penguin_ros.dds import interfaces
from penguin_ros.dds.interfaces import RosTypes, interface_folder, interface_texts, message_texts, ros_types

TYPES = ros_types()
FIELD_LINE = re.compile(r'^[a-zA-Z][\w/]*(?:\[[^]]*\])?[ \t]+([a-z]\w*)[ \t]*(?:#.*)?$', re.MULTILINE)


def test_every_field_of_every_interface_file_is_a_field_of_its_type() -> None:
    for name, text in interface_texts():
        for part_name, part in message_texts(name, text).items():
            written = FIELD_LINE.findall(part)
            read = [field for field, _ in TYPES.fields(part_name)]
            assert read == (written or ['structure_needs_at_least_one_member']), part_name


# As the packages of a real Jazzy state them (share/PACKAGE/KIND/NAME.json).
@pytest.mark.parametrize(('type_name', 'type_hash'), [
    ('std_msgs/msg/Header', 'RIHS01_f49fb3ae2cf070f793645ff749683ac6b06203e41c891e17701b1cb597ce6a01'),
    ('sensor_msgs/msg/Image', 'RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47'),
    ('vision_msgs/msg/Detection2DArray', 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'),
    ('rcl_interfaces/srv/ListParameters_Request', 'RIHS01_a1b0b5d6b967a5b8ac5bc8563c3ea678f349e312a6a4967227c5a96bc5ce38df'),
    ('lifecycle_msgs/srv/GetState_Request', 'RIHS01_77a9c844e7975f15bc2221e8bbebafc4d118afb78c7f7071eef91f83f940f2f6'),
    ('action_msgs/srv/CancelGoal_Response', 'RIHS01_35e682cf3f510e83c70a82a4aac888496dedee56773bf9d8e5e0aa81f9e1c960'),
])
def test_type_hashes_are_those_of_real_ros_packages(type_name: str, type_hash: str) -> None:
    assert TYPES.type_hash(type_name) == type_hash


def test_a_message_starts_with_default_values_and_takes_what_is_given() -> None:
    answer = TYPES.new('penguin_ros/msg/Answer', id='7', probabilities=[0.5])
    assert (answer.id, answer.success, answer.choice, answer.header.frame_id, answer.phrases) == ('7', False, 0, '', [])
    assert TYPES.new('penguin_ros/msg/SceneDescription').STATUS_STALE == 2


def test_a_field_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(TransportError, match=r'no field wrong; it has id, success'):
        TYPES.new('penguin_ros/msg/Answer', wrong=1)
    with pytest.raises(TransportError, match='penguin_ros/msg/Nothing is not a known type'):
        TYPES.new('penguin_ros/msg/Nothing')


def test_bytes_of_a_message_give_the_message_back() -> None:
    phrases = [TYPES.new('penguin_ros/msg/GroundedPhrase', text=text, x_max=1.5, has_box=True) for text in ('a', 'ein Faß 🐧')]
    latency = TYPES.new('penguin_ros/msg/Latency', decode_ms=2.5)
    answer = TYPES.new('penguin_ros/msg/Answer', id='7', probabilities=(0.25, 0.5), phrases=phrases, latency=latency)
    data = TYPES.encode(answer, 'penguin_ros/msg/Answer')
    assert len(data) % 4 == 0
    back = TYPES.decode(data, 'penguin_ros/msg/Answer')
    assert [phrase.text for phrase in back.phrases] == ['a', 'ein Faß 🐧']
    assert (back.latency.decode_ms, back.phrases[1].x_max, list(back.probabilities)) == (2.5, 1.5, [0.25, 0.5])


def test_a_header_before_the_fields_is_kept_apart_from_them() -> None:
    request = TYPES.new('penguin_ros/srv/Ask_Request', question='why', timeout=1.5)
    data = TYPES.encode(request, 'penguin_ros/srv/Ask_Request', b'0123456789abcdef')
    assert bytes(data[4:20]) == b'0123456789abcdef'
    back = TYPES.decode(data, 'penguin_ros/srv/Ask_Request', 16)
    assert (back.question, back.timeout) == ('why', 1.5)


@pytest.mark.parametrize('pixels', [
    bytes(range(12)), bytearray(range(12)), memoryview(bytes(range(12))), list(range(12)), np.arange(12, dtype=np.uint8),
    np.arange(24, dtype=np.uint8)[::2] // 2], ids=['bytes', 'bytearray', 'memoryview', 'list', 'array', 'strided array'])
def test_number_sequences_may_be_given_as_anything_that_holds_numbers(pixels: object) -> None:
    image = TYPES.new('sensor_msgs/msg/Image', data=pixels)
    back = TYPES.decode(TYPES.encode(image, 'sensor_msgs/msg/Image'), 'sensor_msgs/msg/Image')
    assert back.data.tobytes() == bytes(range(12))


def test_a_byte_field_takes_what_rclpy_takes() -> None:
    status = TYPES.new('diagnostic_msgs/msg/DiagnosticStatus', level=bytes([2]), name='camera')
    array = TYPES.new('diagnostic_msgs/msg/DiagnosticArray', status=[status])
    back = TYPES.decode(TYPES.encode(array, 'diagnostic_msgs/msg/DiagnosticArray'), 'diagnostic_msgs/msg/DiagnosticArray')
    assert back.status[0].level == 2


def test_an_image_is_read_without_copying_its_pixels() -> None:
    image = TYPES.new('sensor_msgs/msg/Image', data=bytes(300))
    data = bytes(TYPES.encode(image, 'sensor_msgs/msg/Image'))
    assert np.shares_memory(TYPES.decode(data, 'sensor_msgs/msg/Image').data, np.frombuffer(data, np.uint8))


def test_bytes_that_are_cut_off_anywhere_are_refused_and_never_misread() -> None:
    phrase = TYPES.new('penguin_ros/msg/GroundedPhrase', text='a crate')
    answer = TYPES.new('penguin_ros/msg/Answer', id='7', probabilities=[0.5, 0.5], phrases=[phrase])
    data = bytes(TYPES.encode(answer, 'penguin_ros/msg/Answer'))
    for length in range(len(data) - 3):         # the last three may be padding
        with pytest.raises(TransportError, match='penguin_ros/msg/Answer'):
            TYPES.decode(data[:length], 'penguin_ros/msg/Answer')


def test_an_interface_with_the_wrong_number_of_parts_is_named() -> None:
    with pytest.raises(TransportError, match=r'penguin_ros/srv/Odd has 1 parts; a \.srv file has 2'):
        message_texts('penguin_ros/srv/Odd', 'string name')


def test_interface_files_are_found_in_the_source_tree() -> None:
    assert interface_folder() == Path(__file__).resolve().parents[2]


def test_interface_files_that_are_nowhere_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(relative: str) -> Path:
        raise PenguinError(f'{relative} does not come with this installation')

    monkeypatch.setattr(interfaces, 'shipped', nowhere)
    with pytest.raises(PenguinError, match=r'msg/SceneDescription\.msg does not come with'):
        RosTypes()
