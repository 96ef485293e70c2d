"""What stands in interface files, package.xml, parameter files and the launch file agrees with the code that uses it."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import penguin_ros
from penguin_ros.core.config import CameraConfig, PenguinConfig, camera_prefix, read_camera, read_config
from penguin_ros.core.frame import Region
from penguin_ros.core.messages import answer_fields, description_fields, detections_from_scene, msg_from_scene
from penguin_ros.core.scene import Answer, GroundedPhrase, Latency, Scene, Status, TokenUse
from penguin_ros.core.settings import settings_of

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / 'config').glob('*.yaml'))
ROS_PACKAGES = ('ament_index_python', 'cv_bridge', 'launch', 'launch_ros', 'rclpy')
LAUNCH_ARGUMENTS = ('params_file', 'namespace', 'cameras', 'engine', 'autostart', 'use_sim_time', 'log_level')
FIELD = re.compile(r'^([a-zA-Z][\w/]*)(?:\[[^]]*\])?[ \t]+([a-z]\w*)[ \t]*(?:#.*)?$', re.MULTILINE)

PHRASE = GroundedPhrase(text='a crate', begin=3, end=10, region=Region(1.5, 2.5, 30.5, 40.5), confidence=0.5, track_id=7)
NOWHERE = GroundedPhrase(text='nothing else', begin=12, end=24, region=None, confidence=0.25)
LATENCY = Latency(queue_ms=1.5, encode_ms=2.5, prefill_ms=3.5, decode_ms=4.5, total_ms=12.0)
SCENE = Scene(
    camera='front', stamp_ns=5_000_000_006, frame_id='front_optical', height_px=240, width_px=320,
    caption='is a crate, nothing else', phrases=(PHRASE, NOWHERE), keyframe=True, keyframe_reason='12 % changed',
    unchanged=True, caption_stamp_ns=4_000_000_003,
    confidence=0.75, age_ms=20.5, status=Status.DEGRADED, reason='half the budget', latency=LATENCY,
    tokens=TokenUse(limit=512, used=300, encoded=64, reused=236, frames=5, keyframes=2, dropped=9))
ANSWER = Answer(text='a crate', camera='front', stamp_ns=5_000_000_006, frame_id='front_optical', phrases=(PHRASE,), choice=1,
                probabilities=(0.25, 0.75), confidence=0.75, age_ms=20.5, latency=LATENCY)


class Message:
    """A message that knows which of its fields were given."""

    def __init__(self, type_name: str, fields: Mapping[str, Any]) -> None:
        self.type_name, self.given = type_name, dict(fields)

    def __getattr__(self, name: str) -> Any:
        return self.given[name]


def new(type_name: str, **fields: Any) -> Message:
    return Message(type_name, fields)


def fields_of(type_name: str) -> list[str]:
    """The fields of one of our interfaces; 'srv/Ask_Response' and 'action/AskStream_Result' are parts of a file."""
    kind, name = type_name.split('/')
    name, _, part = name.partition('_')
    parts = (ROOT / kind / f'{name}.{kind}').read_text().split('\n---\n')
    names = {'msg': [''], 'srv': ['Request', 'Response'], 'action': ['Goal', 'Result', 'Feedback']}[kind]
    return [field for _, field in FIELD.findall(parts[names.index(part)])]


# -- interfaces --------------------------------------------------------------------------------------------------------


def test_every_field_of_a_scene_is_filled_from_the_scene() -> None:
    message = msg_from_scene(new, SCENE, model='nano', engine='0123456789ab')
    assert set(message.given) == set(fields_of('msg/SceneDescription'))
    for part, name in ((message.tokens, 'TokenBudget'), (message.latency, 'Latency'), (message.phrases[0], 'GroundedPhrase')):
        assert set(part.given) == set(fields_of(f'msg/{name}')), name
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (5, 6, 'front_optical')
    assert (message.caption_stamp.sec, message.caption_stamp.nanosec) == (4, 3)
    assert (message.status, message.reason, message.unchanged, message.keyframe) == (1, 'half the budget', True, True)
    assert message.tokens.given == {'limit': 512, 'used': 300, 'encoded': 64, 'reused': 236, 'frames': 5, 'keyframes': 2,
                                    'dropped': 9}
    assert [message.phrases[0].given[name] for name in ('x_min', 'y_min', 'x_max', 'y_max')] == [1.5, 2.5, 30.5, 40.5]
    assert (message.phrases[1].has_box, message.phrases[1].x_max) == (False, 0.0)


def test_detections_hold_the_phrases_that_have_a_box() -> None:
    (detection,) = detections_from_scene(new, SCENE).detections
    assert (detection.results[0].hypothesis.class_id, detection.results[0].hypothesis.score) == ('a crate', 0.5)
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (16.0, 21.5)
    assert (detection.bbox.size_x, detection.bbox.size_y, detection.id) == (29.0, 38.0, '7')


@pytest.mark.parametrize(('type_name', 'fields', 'besides'), [
    ('srv/Ask_Response', answer_fields, set()), ('action/AskStream_Result', answer_fields, set()),
    ('msg/Answer', answer_fields, {'id'}), ('srv/DescribeRegion_Response', description_fields, set())])
def test_every_field_of_an_answer_is_filled(type_name: str, fields: Any, besides: set[str]) -> None:
    assert set(fields(new, ANSWER)) | besides == set(fields_of(type_name))


def test_all_ways_of_asking_take_the_same() -> None:
    ask = set(fields_of('srv/Ask_Request'))
    assert ask == set(fields_of('action/AskStream_Goal'))
    assert ask == set(fields_of('msg/Question')) - {'id'}
    assert ask - {'question', 'choices'} == set(fields_of('srv/DescribeRegion_Request'))


def test_the_numbers_of_a_status_are_those_of_the_message() -> None:
    stated = dict(re.findall(r'^uint8 STATUS_(\w+)=(\d)', (ROOT / 'msg' / 'SceneDescription.msg').read_text(), re.MULTILINE))
    assert {name: int(value) for name, value in stated.items()} == {status.name: status.value for status in Status}


# -- package -----------------------------------------------------------------------------------------------------------


def test_the_version_is_one() -> None:
    package = ElementTree.parse(ROOT / 'package.xml')
    pyproject = (ROOT / 'pyproject.toml').read_text()
    assert package.findtext('version') == penguin_ros.__version__
    assert f'version = "{penguin_ros.__version__}"' in pyproject


def test_every_ros_package_that_is_used_is_a_dependency() -> None:
    declared = {element.text for element in ElementTree.parse(ROOT / 'package.xml').getroot() if element.tag.endswith('depend')}
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    needed = {'ament_cmake', 'rosidl_default_generators'}
    needed |= set(re.search(r'set\(interface_dependencies ([\w ]+)\)', cmake)[1].split())    # type: ignore[index]
    for interface in (*ROOT.glob('msg/*'), *ROOT.glob('srv/*'), *ROOT.glob('action/*')):
        needed |= {kind.split('/')[0] for kind, _ in FIELD.findall(interface.read_text()) if '/' in kind}
    for source in (ROOT / 'penguin_ros' / 'core').glob('*.py'):
        needed |= set(re.findall(r"'(\w+)/(?:msg|srv|action)/\w+'", source.read_text()))
    for source in (*(ROOT / 'penguin_ros' / 'ros').glob('*.py'), *(ROOT / 'launch').glob('*.py')):
        needed |= {package for package in imported(source) if package in ROS_PACKAGES or package.endswith('_msgs')}
    assert needed - {'penguin_ros'} <= declared


def imported(source: Path) -> Iterator[str]:
    """The packages a file imports from."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield (node.module or '').split('.')[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)


def test_what_cmake_installs_is_there() -> None:
    cmake = (ROOT / 'CMakeLists.txt').read_text()
    installed = re.search(r'install\(DIRECTORY ([\w ]+) DESTINATION share', cmake)[1].split()    # type: ignore[index]
    programs = re.search(r'install\(PROGRAMS ([\w/ ]+) DESTINATION', cmake)[1].split()           # type: ignore[index]
    for name in (*installed, *programs):
        assert (ROOT / name).exists(), name


# -- parameters and launch ---------------------------------------------------------------------------------------------


def parameters_of(file: Path) -> dict[str, Any]:
    """A ROS parameter file's values by dotted name."""
    def flat(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, Mapping):
                yield from flat(value, f'{prefix}{name}.')
            else:
                yield prefix + name, value

    return dict(flat(yaml.safe_load(file.read_text())['/**']['ros__parameters']))


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: file.stem)
def test_every_parameter_of_a_shipped_file_exists_and_is_accepted(file: Path) -> None:
    values = parameters_of(file)
    config = read_config(values)
    cameras = [read_camera(name, values) for name in config.cameras]
    declared = {setting.name: setting for setting in settings_of(PenguinConfig)}
    for camera in cameras:
        declared |= {setting.name: setting for setting in settings_of(CameraConfig, camera_prefix(camera.name))}
    assert values.keys() <= declared.keys()
    for name in values:
        line = next(line for line in file.read_text().splitlines() if line.strip().startswith(name.rpartition('.')[2] + ':'))
        assert ('(live)' in line) == declared[name].live, line


def test_there_is_a_parameter_file_for_every_kind_of_robot() -> None:
    assert [file.stem for file in CONFIGS] == ['agx_orin', 'laptop', 'orin_nano', 'orin_nx']
    for file in CONFIGS:
        assert f'params_file:={file.name}' in file.read_text()


def test_every_launch_argument_is_there_and_described() -> None:
    tree = ast.parse((ROOT / 'launch' / 'penguin.launch.py').read_text())
    declared = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == 'DeclareLaunchArgument':
            keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            declared[ast.literal_eval(call.args[0])] = keywords
    assert set(LAUNCH_ARGUMENTS) <= declared.keys()
    for name, keywords in declared.items():
        assert len(keywords['description']) > 10, name
        assert 'default_value' in keywords, name


def test_the_ros_packages_of_the_tests_are_pinned() -> None:
    for line in (ROOT / 'tests' / 'ros' / 'requirements.txt').read_text().splitlines():
        assert not line.startswith('ros-') or '==' in line, line
