"""penguin doctor sees what is wrong, names the command that mends it, and says what it could not look at."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penguin_ros.backends.manifest import read_manifest, write_manifest
from penguin_ros.cli import doctor
from penguin_ros.cli.main import main
from penguin_ros.core.config import CameraConfig, PenguinConfig, read_config
from penguin_ros.doctor.cameras import COMPRESSED, IMAGE, Heard, look_at_cameras
from penguin_ros.doctor.device import look_at_device, look_at_network
from penguin_ros.doctor.engine import look_at_engine
from penguin_ros.doctor.finding import FAULT, OK, UNSEEN, WARNING, Finding
from penguin_ros.doctor.packages import look_at_packages
from penguin_ros.doctor.surroundings import Surroundings

NANO = Path(__file__).parents[2] / 'engines' / 'nano'
MEMINFO = 'MemTotal:       {total} kB\nMemAvailable:   {free} kB\nSwapTotal:      {swap} kB\n'
ORIN_FILES = {
    '/proc/device-tree/model': 'NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0',
    '/etc/nv_tegra_release': '# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64',
    '/etc/nvpmodel.conf': '< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >',
    '/sys/class/devfreq/17000000.gpu/min_freq': '1020000000\n', '/sys/class/devfreq/17000000.gpu/max_freq': '1020000000\n',
    '/sys/class/devfreq/17000000.gpu/cur_freq': '1020000000\n', '/proc/sys/net/core/rmem_max': '8388608\n',
    '/proc/meminfo': MEMINFO.format(total=7_800_000, free=6_000_000, swap=16_000_000)}
ORIN_COMMANDS = {('nvpmodel', '-q'): 'NV Power Mode: MAXN_SUPER\n2'}
ORIN_PYTHON = {'numpy': '1.26.4', 'cv2': '4.10.0', 'PIL': '10.4.0', 'tokenizers': '0.21.0', 'yaml': '6.0.2',
               'cv_bridge': '/opt/ros/humble/lib/python3.10/site-packages/cv_bridge/__init__.py', 'onnxruntime': '1.19.2',
               'tensorrt': '10.3.0', 'pycuda': 'Orin|8.7|12.6'}


class FakeMachine(Surroundings):
    """A machine made of a folder and of answers."""

    def __init__(self, root: Path, files: Mapping[str, str], commands: Mapping[tuple[str, ...], str],
                 python: Mapping[str, str]) -> None:
        super().__init__(root)
        self.commands, self.python = commands, python
        for name, text in files.items():
            (root / name.lstrip('/')).parent.mkdir(parents=True, exist_ok=True)
            (root / name.lstrip('/')).write_text(text)

    def run(self, *command: str) -> str | None:
        return self.commands.get(command)

    def ask_python(self, code: str) -> tuple[bool, str]:
        module = code.split()[1].split('.')[0].rstrip(';')
        answer = self.python.get('details' if 'machine_details' in code else module)
        if answer is None:
            return False, f"ModuleNotFoundError: No module named '{module}'"
        return not answer.startswith('error'), answer


def machine(tmp_path: Path, *, files: Mapping[str, str | None] | None = None,
            commands: Mapping[tuple[str, ...], str] | None = None,
            python: Mapping[str, str | None] | None = None) -> FakeMachine:
    """A good Orin Nano, changed as told; None takes something away."""
    def merged(good: Mapping[Any, str], changes: Mapping[Any, str | None] | None) -> dict[Any, str]:
        return {name: text for name, text in {**good, **(changes or {})}.items() if text is not None}
    return FakeMachine(tmp_path / 'root', merged(ORIN_FILES, files), ORIN_COMMANDS if commands is None else commands,
                       merged(ORIN_PYTHON, python))


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.about: finding for finding in findings}


def test_a_good_orin_has_nothing_to_mend(tmp_path: Path) -> None:
    orin = machine(tmp_path)
    findings = [*look_at_packages(orin, 'tensorrt'), *look_at_device(orin, 'tensorrt'), *look_at_network(orin)]
    assert {finding.level for finding in findings} == {OK}, findings
    assert not any(finding.remedy for finding in findings)
    shown = by_name(findings)
    assert shown['JetPack'].text == '6.2 (L4T 36.4.3, TensorRT 10.3)'
    assert shown['GPU'].text == 'Orin, compute capability 8.7, CUDA driver 12.6'
    assert shown['clocks'].text == 'GPU at 1020 MHz, from 1020 to 1020, held'


def test_on_a_laptop_nothing_is_a_fault_and_what_was_not_looked_at_is_said(tmp_path: Path) -> None:
    laptop = FakeMachine(tmp_path, {'/proc/meminfo': MEMINFO.format(total=16_000_000, free=9_000_000, swap=0)}, {},
                         {name: text for name, text in ORIN_PYTHON.items() if name not in ('tensorrt', 'pycuda', 'cv_bridge')})
    found = by_name([*look_at_packages(laptop, 'onnx'), *look_at_device(laptop, 'onnx'), *look_at_network(laptop)])
    assert {name for name, finding in found.items() if finding.level == UNSEEN} == {
        'cv_bridge', 'TensorRT', 'module', 'GPU', 'DDS buffers'}
    assert not {name for name, finding in found.items() if finding.level in (FAULT, WARNING)}
    assert 'no Jetson' in found['module'].text
    assert 'power mode' not in found


@pytest.mark.parametrize('about, level, text, remedy, change', [
    ('numpy', FAULT, '1.21.5; 1.26 or later', 'pip install "numpy>=1.26"', {'python': {'numpy': '1.21.5'}}),
    ('tokenizers', FAULT, 'cannot be imported', 'pip install "tokenizers', {'python': {'tokenizers': None}}),
    ('cv_bridge', WARNING, 'cannot be imported (numpy 2.1.0)', 'pip install "numpy<2"',
     {'python': {'numpy': '2.1.0', 'cv_bridge': 'error: AttributeError: _ARRAY_API not found'}}),
    ('cv_bridge', WARNING, 'cannot be imported', 'apt install --reinstall', {'python': {'cv_bridge': 'error: libopencv'}}),
    ('TensorRT', FAULT, '8.6.1; 10.3 or later', 'JetPack 6.2', {'python': {'tensorrt': '8.6.1'}}),
    ('TensorRT', FAULT, 'the engine needs it', 'sudo apt install nvidia-jetpack', {'python': {'tensorrt': None}}),
    ('JetPack', FAULT, '6.0 (L4T 36.3) brings TensorRT 8.6', 'install JetPack 6.2',
     {'files': {'/etc/nv_tegra_release': '# R36 (release), REVISION: 3, GCID: 1'}}),
    ('JetPack', FAULT, '5 (L4T 35.4.1)', 'JetPack 6.2',
     {'files': {'/etc/nv_tegra_release': '# R35 (release), REVISION: 4.1,'}}),
    ('JetPack', OK, '7.2 (L4T 39.0, TensorRT 10.16)', '',
     {'files': {'/etc/nv_tegra_release': '# R39 (release), REVISION: 0,'}}),
    ('JetPack', UNSEEN, 'mount it from the host', '', {'files': {'/etc/nv_tegra_release': None}}),
    ('GPU', FAULT, 'pycuda cannot be imported', 'pip install pycuda', {'python': {'pycuda': None}}),
    ('GPU', FAULT, 'finds no GPU', 'usermod -aG video', {'python': {'pycuda': 'error: cuInit failed: no device'}}),
    ('GPU', UNSEEN, 'no Orin (8.7)', '', {'python': {'pycuda': 'NVIDIA H200|9.0|13.0'}}),
    ('power mode', WARNING, '15W; the fastest is MAXN_SUPER', 'sudo nvpmodel -m 2',
     {'commands': {('nvpmodel', '-q'): 'NV Power Mode: 15W\n0'}}),
    ('power mode', UNSEEN, 'does not tell', '', {'commands': {}}),
    ('clocks', WARNING, 'from 306 to 1020; they follow the load', 'sudo jetson_clocks',
     {'files': {'/sys/class/devfreq/17000000.gpu/min_freq': '306000000'}}),
    ('clocks', UNSEEN, 'in a container', '', {'files': dict.fromkeys(name for name in ORIN_FILES if 'devfreq' in name)}),
    ('swap', WARNING, '0.0 GB; building', 'sudo mkswap',
     {'files': {'/proc/meminfo': MEMINFO.format(total=7_800_000, free=6_000_000, swap=0)}}),
    ('memory', UNSEEN, '/proc/meminfo', '', {'files': {'/proc/meminfo': None}}),
    ('DDS buffers', WARNING, '213 kB at most', 'net.core.rmem_max=4194304',
     {'files': {'/proc/sys/net/core/rmem_max': '212992'}})])
def test_each_thing_that_can_be_wrong_comes_with_what_mends_it(
        tmp_path: Path, about: str, level: str, text: str, remedy: str, change: dict[str, Any]) -> None:
    orin = machine(tmp_path, **change)
    found = by_name([*look_at_packages(orin, 'tensorrt'), *look_at_device(orin, 'tensorrt'), *look_at_network(orin)])[about]
    assert found.level == level
    assert text in found.text
    assert (remedy in found.remedy) if remedy else not found.remedy


def test_every_warning_and_fault_has_a_remedy_and_nothing_else_has(tmp_path: Path) -> None:
    bare = FakeMachine(tmp_path, {'/proc/device-tree/model': 'Jetson'}, {}, {})
    findings = [*look_at_packages(bare, 'tensorrt'), *look_at_device(bare, 'tensorrt'), *look_at_network(bare)]
    assert sum(finding.level == FAULT for finding in findings) >= 7
    for finding in findings:
        assert bool(finding.remedy) == (finding.level in (WARNING, FAULT)), finding


def test_an_old_python_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'version_info', (3, 8, 10))
    assert by_name(look_at_packages(machine(tmp_path), None))['Python'].level == FAULT


# -- the engine --------------------------------------------------------------------------------------------------------

def test_the_shipped_engine_is_as_it_was_built(tmp_path: Path) -> None:
    found = by_name(look_at_engine(machine(tmp_path), PenguinConfig()))
    assert {name: finding.level for name, finding in found.items()} == {
        'engine': OK, 'engine files': OK, 'settings': OK, 'room': OK}


def test_an_engine_with_another_byte_names_the_build_command(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(NANO, tmp_path / 'nano'))
    content = bytearray((folder / 'vision.onnx').read_bytes())
    content[50] ^= 1
    (folder / 'vision.onnx').write_bytes(content)
    found = by_name(look_at_engine(machine(tmp_path), PenguinConfig(engine=str(folder))))['engine files']
    assert found.level == FAULT
    assert 'vision.onnx has sha256' in found.text
    assert found.remedy == 'penguin build engines/nano.yaml'


def test_an_engine_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    found, = look_at_engine(machine(tmp_path), PenguinConfig(engine=str(tmp_path)))
    assert (found.about, found.level) == ('engine', FAULT)
    assert 'penguin build RECIPE' in found.remedy


DETAILS = {'tensorrt': '10.3.0', 'cuda_driver': '12.6', 'gpu': 'Orin', 'compute_capability': '8.7', 'multiprocessors': '8'}


@pytest.mark.parametrize('here, level, text', [
    (json.dumps(DETAILS), OK, 'built for this TensorRT, driver and GPU'),
    (json.dumps({**DETAILS, 'tensorrt': '10.16.1'}), FAULT, 'tensorrt 10.3.0 (here 10.16.1)'),
    (None, UNSEEN, 'cannot be compared without TensorRT')])
def test_an_engine_for_tensorrt_is_compared_with_this_machine(tmp_path: Path, here: str | None, level: str, text: str) -> None:
    folder = Path(shutil.copytree(NANO, tmp_path / 'nano'))
    manifest = read_manifest(folder)
    write_manifest(folder, type(manifest)(**{**vars(manifest), 'backend': 'tensorrt', 'details': DETAILS}))
    found = by_name(look_at_engine(machine(tmp_path, python={'details': here}), PenguinConfig(engine=str(folder))))
    assert found['engine and machine'].level == level
    assert text in found['engine and machine'].text
    assert found['engine owner'].level == OK
    folder.chmod(0o777)
    found = by_name(look_at_engine(machine(tmp_path, python={'details': here}), PenguinConfig(engine=str(folder))))
    assert found['engine owner'].level == FAULT
    assert 'chmod -R go-w' in found['engine owner'].remedy


def test_settings_that_do_not_fit_the_engine_say_what_to_lower(tmp_path: Path) -> None:
    config = read_config({'token_budget.window_tokens': 16000})
    found = by_name(look_at_engine(machine(tmp_path), config))['settings']
    assert found.level == FAULT
    assert 'lower token_budget.window_tokens from 16000' in found.remedy


@pytest.mark.parametrize('meminfo, level', [(MEMINFO.format(total=8_000_000, free=10_000, swap=0), WARNING), ('', UNSEEN)])
def test_memory_that_is_not_enough_or_not_known_is_said(tmp_path: Path, meminfo: str, level: str) -> None:
    orin = machine(tmp_path, files={'/proc/meminfo': meminfo})
    assert by_name(look_at_engine(orin, PenguinConfig()))['room'].level == level


# -- cameras -----------------------------------------------------------------------------------------------------------

def heard(**changes: Any) -> Heard:
    """A good camera, changed as told."""
    return Heard(**{
        'camera': CameraConfig(name='front', image_topic='/front/image_raw'), 'listened_s': 3.0, 'types': {IMAGE},
        'offers': ['best effort'], 'stamps_ns': [10**18 + i for i in range(30)], 'ages_s': [0.02] * 30, 'encoding': 'bgr8',
        'width_px': 1280, 'height_px': 720, 'frame_id': 'front_lens', **changes})


@pytest.mark.parametrize('changes, level, text, remedy', [
    ({}, OK, '/front/image_raw: 1280x720 bgr8, 10.0 Hz, best effort, frame front_lens, 20 ms old', ''),
    ({'types': set()}, FAULT, 'nobody publishes /front/image_raw', 'camera.front.image_topic'),
    ({'types': {COMPRESSED}}, FAULT, 'carries sensor_msgs/msg/CompressedImage', 'set camera.front.compressed to true'),
    ({'types': {'std_msgs/msg/String'}}, FAULT, 'carries std_msgs/msg/String', 'to a topic of images'),
    ({'stamps_ns': []}, FAULT, '1 publisher(s) (best effort), but no image came in 3 s', 'ros2 topic hz /front/image_raw'),
    ({'encoding': '32FC1'}, FAULT, '1280x720 32FC1; this encoding is not read', 'rgb8, bgr8'),
    ({'width_px': 9000, 'height_px': 9000}, FAULT, 'more than max_image_pixels', 'raise max_image_pixels to 81000000'),
    ({'stamps_ns': [0, 0]}, FAULT, 'have the stamp 0', 'header.stamp'),
    ({'offers': ['reliable', 'best effort']}, WARNING, '2 publishers', 'ros2 topic info -v'),
    ({'ages_s': [7.5] * 30}, WARNING, 'stamps are 7.5 s old', 'use_sim_time'),
    ({'ages_s': [-3.0] * 30}, WARNING, 'stamps are -3.0 s old', 'chronyc'),
    ({'frame_id': ''}, WARNING, 'planners need a frame_id', 'set frame_id'),
    ({'stamps_ns': [10**18]}, WARNING, '0.3 Hz', 'exposure')])
def test_what_a_camera_offers_is_judged(changes: dict[str, Any], level: str, text: str, remedy: str) -> None:
    found, = look_at_cameras([heard(**changes)], max_image_pixels=16_000_000)
    assert (found.about, found.level) == ('camera front', level)
    assert text in found.text
    assert (remedy in found.remedy) if remedy else not found.remedy


def test_a_camera_on_dds_is_heard_with_its_rate_and_encoding() -> None:
    pytest.importorskip('cyclonedds', reason='needs Cyclone DDS: pip install penguin_ros[dds]')
    from penguin_ros.dds.bus import DdsBus
    from penguin_ros.dds.hearing import hear
    from tests.dds.domains import DOMAIN_ID, own_name
    from tests.dds.recordings import image

    topic = f'/{own_name("front")}/image_raw'
    bus, stop = DdsBus(own_name('driver'), domain_id=DOMAIN_ID), threading.Event()
    outlet = bus.advertise_images(topic, 'sensor_msgs/msg/Image', reliable=False)

    def drive() -> None:
        while not stop.wait(0.05):
            outlet.publish(image('red', time.time_ns(), 'lens'))

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        found, other, none = hear(
            [CameraConfig(name='front', image_topic=topic), CameraConfig(name='other', image_topic=topic, compressed=True),
             CameraConfig(name='none', image_topic=topic + '_more')], 1.5, domain_id=DOMAIN_ID, interface='lo')
    finally:
        stop.set()
        driver.join()
        bus.close()
    assert found.types == {IMAGE}
    assert found.offers == ['best effort']
    assert found.encoding == 'rgb8'
    assert 3 < found.rate_hz < 25
    assert found.frame_id == 'lens'
    assert found.ages_s[-1] < 0.5
    levels = [finding.level for finding in look_at_cameras([found, other, none], max_image_pixels=16_000_000)]
    assert levels == [OK, FAULT, FAULT]
    assert other.types == {IMAGE}
    assert none.types == set()


# -- the command -------------------------------------------------------------------------------------------------------

def test_the_command_looks_at_this_machine_and_says_it_all_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(['doctor', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert status == (1 if found['counts']['fault'] else 0)
    assert {'Python', 'numpy', 'memory', 'engine', 'engine files', 'cameras'} <= {one['about'] for one in found['findings']}
    assert sum(found['counts'].values()) == len(found['findings'])


def test_faults_are_shown_with_their_remedy_and_set_the_exit_status(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    orin = machine(tmp_path, python={'numpy': None})
    monkeypatch.setattr('penguin_ros.doctor.surroundings.Surroundings', lambda: orin)
    assert main(['doctor', '--engine', 'nano']) == 1
    text = capsys.readouterr().out
    assert 'fault          numpy                cannot be imported' in text
    assert 'mend: pip install "numpy>=1.26"' in text
    assert '1 fault' in text.splitlines()[-1]


def test_a_configuration_that_cannot_be_is_a_fault_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    (tmp_path / 'bad.yaml').write_text('/**:\n  ros__parameters:\n    cameras: []\n')
    args = argparse.Namespace(config=str(tmp_path / 'bad.yaml'), engine=None, seconds=0.1, domain=None, interface='lo')
    found = by_name(doctor.examine(machine(tmp_path), args))
    assert found['configuration'].level == FAULT
    assert 'cameras is empty' in found['configuration'].text
    assert found['memory'].level == OK


def test_cameras_are_not_looked_at_where_no_middleware_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'penguin_ros.dds.hearing', None)
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    (tmp_path / 'robot.yaml').write_text('/**:\n  ros__parameters:\n    cameras: [front]\n')
    args = argparse.Namespace(config=str(tmp_path / 'robot.yaml'), engine=None, seconds=0.1, domain=None, interface='lo')
    found = by_name(doctor.examine(machine(tmp_path), args))
    assert found['cameras'].level == UNSEEN
    assert 'neither ROS 2 nor Cyclone DDS' in found['cameras'].text


def test_the_real_surroundings_read_files_run_commands_and_survive_what_fails(tmp_path: Path) -> None:
    here = Surroundings()
    assert here.read('/no/such/file') is None
    assert here.run('no-such-command') is None
    assert here.run('false') is None
    assert here.run('echo', 'hello') == 'hello'
    assert here.ask_python('print(1)') == (True, '1')
    assert here.ask_python('import no_such_module') == (False, "ModuleNotFoundError: No module named 'no_such_module'")
    (tmp_path / 'sys').mkdir()
    (tmp_path / 'sys' / 'one.gpu').write_text('x')
    assert Surroundings(tmp_path).find('/sys/*gpu*') == [Path('/sys/one.gpu')]
