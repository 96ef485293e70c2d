"""The node without ROS 2 and real ROS 2 meet, both ways: `python meets_dds.py PYTHON`, which has cyclonedds. Prints what came.

Here ROS 2 runs its default middleware, Fast DDS: topics cross, services are known not to (reference/transport.md).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rclpy

from tests.bus.contract import Heard, wait_until
from tests.ros.inside.peer import Peer
from tests.ros.inside.running_node import RunningNode, image_msg, picture

ROOT = Path(__file__).resolve().parents[3]
BARE = {'PATH': os.environ['PATH'], 'HOME': os.environ.get('HOME', '/'), 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def penguin(*arguments: str) -> subprocess.Popen[str]:
    """A penguin command in an environment that knows nothing of ROS 2."""
    return subprocess.Popen([sys.argv[1], '-m', 'penguin_ros', *arguments], env=BARE, text=True, stdout=subprocess.PIPE)


def real_ros_uses_the_node_without_ros() -> None:
    node = penguin('run', '--camera', 'front=/front/image_raw')
    peer = Peer('world', '/penguin')
    scenes, answers = Heard(), Heard()
    peer.listen('/penguin/front/scene', 'penguin_ros/msg/SceneDescription', scenes)
    peer.listen('/penguin/answer', 'penguin_ros/msg/Answer', answers)
    camera = peer.outlet('/front/image_raw', 'sensor_msgs/msg/Image')
    questions = peer.outlet('/penguin/question', 'penguin_ros/msg/Question')
    questions.wait_matched()
    camera.wait_matched()
    sent = []

    def described() -> bool:
        sent.append(image_msg(peer, picture(len(sent)), peer.now_msg()))
        camera.publish(sent[-1])
        time.sleep(0.1)
        stamps = [(scene.header.stamp, scene.header.frame_id) for scene in scenes.messages]
        return any((message.header.stamp, message.header.frame_id) in stamps for message in sent)

    wait_until(described, 'a scene with the stamp and frame_id of an image that was sent')

    def answered() -> bool:
        questions.publish(peer.new('penguin_ros/msg/Question', id='7', question='Is there a person?', choices=['yes', 'no']))
        time.sleep(0.2)
        return bool(answers.messages)

    wait_until(answered, 'an answer on the answer topic')
    answer = answers.messages[0]
    assert (answer.id, answer.success, len(answer.probabilities)) == ('7', True, 2), answer
    peer.close()
    node.send_signal(signal.SIGINT)
    assert node.wait(20) == 0
    print('real ROS 2 used the node without ROS 2')


def the_commands_without_ros_use_the_node_on_real_ros() -> None:
    with tempfile.TemporaryDirectory() as folder, RunningNode(
            Path(folder), '-p', 'camera.rear.image_topic:=/camera/image/compressed') as running:
        assert running.peer.change_state('configure', 30.0), running.said()
        assert running.peer.change_state('activate'), running.said()
        player = penguin('play', 'recordings/warehouse.mcap', '--wait', '20')
        wait_until(lambda: any(scene.header.frame_id == 'camera_optical_frame' and not scene.reason
                               for scene in running.scenes['rear'].messages), 'a scene of the recording')
        asked, _ = penguin('ask', 'Is there a person?', '--camera', 'rear', '--choice', 'yes', '--choice', 'no',
                           '--json').communicate(timeout=30)
        answer = json.loads(asked)
        assert answer['success'], answer
        assert answer['header']['frame_id'] == 'camera_optical_frame'
        player.send_signal(signal.SIGINT)
        assert player.wait(20) == 0
        assert running.end(signal.SIGINT) == 0
    print('the commands without ROS 2 used the node on real ROS 2')


os.chdir(ROOT)
rclpy.init()
real_ros_uses_the_node_without_ros()
the_commands_without_ros_use_the_node_on_real_ros()
rclpy.shutdown()
