"""`penguin run`, `ask` and `play`, which need no ROS 2, and processes of a real ROS 2 exchange images, scenes and questions."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip('cyclonedds', reason='Cyclone DDS is not installed; there is no wheel for Linux on aarch64')

from tests.ros.wheels import HERE, Ros


def test_the_node_without_ros_and_real_ros_use_each_other(ros: Ros) -> None:
    said = ros.run('python', HERE / 'inside' / 'meets_dds.py', sys.executable)
    assert 'real ROS 2 used the node without ROS 2' in said
    assert 'the commands without ROS 2 used the node on real ROS 2' in said
