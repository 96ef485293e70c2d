"""The launch file brings the node to active by itself, with what its arguments say. Needs a full ROS 2."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import rclpy

from tests.bus.contract import Heard, wait_until
from tests.ros.inside.peer import Peer

pytestmark = pytest.mark.skipif(
    find_spec('launch_ros') is None, reason='launch_ros is not installed: it comes with a full ROS 2, not as a wheel')
LAUNCH_FILE = Path(__file__).resolve().parents[3] / 'launch' / 'penguin.launch.py'
ARGUMENTS = ('params_file', 'namespace', 'cameras', 'engine', 'autostart', 'use_sim_time', 'log_level', 'respawn')


@pytest.fixture(scope='module', autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.shutdown()


def test_every_argument_says_what_it_is() -> None:
    done = subprocess.run(['ros2', 'launch', str(LAUNCH_FILE), '--show-args'], check=True, capture_output=True, text=True)
    for argument in ARGUMENTS:
        assert f"'{argument}':" in done.stdout
    assert 'no description given' not in done.stdout


def test_the_node_is_active_with_the_cameras_given_and_ends_in_order(tmp_path: Path) -> None:
    log = tmp_path / 'log.txt'
    with log.open('w') as out:
        launch = subprocess.Popen(
            ['ros2', 'launch', str(LAUNCH_FILE), 'namespace:=robot1', 'cameras:=front,rear=/rear/compressed',
             'use_sim_time:=true', 'log_level:=debug'], stdout=out, stderr=subprocess.STDOUT)
    peer = Peer('world', '/robot1/penguin')
    try:
        heard = Heard()
        peer.listen('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', heard)
        peer.outlet('/robot1/front/image_raw', 'sensor_msgs/msg/Image').wait_matched()
        peer.outlet('/rear/compressed', 'sensor_msgs/msg/CompressedImage').wait_matched()
        wait_until(lambda: peer.state() == 'active', 'the node being active')
        assert {status.name for status in heard.wait(1)[0].status} >= {'penguin: camera front', 'penguin: camera rear'}
        for transition in ('deactivate', 'cleanup', 'configure'):
            assert peer.change_state(transition, 30.0), transition
        time.sleep(1.0)
        assert peer.state() == 'inactive', 'launch brings the node up once and then leaves it alone'
    finally:
        peer.close()
        launch.send_signal(signal.SIGINT)
        status = launch.wait(30.0)
        print(log.read_text())
    assert status == 0
    assert 'process has finished cleanly' in log.read_text()


@pytest.mark.parametrize(('argument', 'reason'), [('params_file:=nowhere.yaml', 'laptop.yaml'), ('log_level:=loud', 'debug')])
def test_an_argument_that_cannot_be_is_refused_with_what_can(argument: str, reason: str) -> None:
    done = subprocess.run(['ros2', 'launch', str(LAUNCH_FILE), argument], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert reason in done.stdout + done.stderr
