"""Names of nodes, topics and cameras follow ROS 2's rules."""

from __future__ import annotations

import pytest

from penguin_ros.core.errors import ConfigError
from penguin_ros.dds.names import camera_name, full_name


@pytest.mark.parametrize(('name', 'namespace', 'full'), [
    ('~', '/robot', '/robot/penguin'), ('~/ask', '/', '/penguin/ask'),
    ('~/front/scene', '/robot', '/robot/penguin/front/scene'),
    ('front/image', '/', '/front/image'), ('front/image', '/robot/', '/robot/front/image'),
    ('/front/image', '/robot', '/front/image'),
])
def test_a_name_becomes_absolute(name: str, namespace: str, full: str) -> None:
    assert full_name(name, 'penguin', namespace) == full


@pytest.mark.parametrize('name', ['/front image', '~/1st', 'a//b-c', '/grüße'])
def test_what_ros_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match='not a ROS 2 name'):
        full_name(name, 'penguin')


@pytest.mark.parametrize(('topic', 'name'), [
    ('/front/image_raw', 'front'), ('/front/image_raw/compressed', 'front'), ('/camera/image', 'camera'), ('/image', 'camera'),
    ('/robot1/Rear/color/image_raw', 'robot1_rear'), ('/oak/rgb/image_raw', 'oak'), ('/7up/image', 'up'),
])
def test_a_camera_is_named_after_its_topic(topic: str, name: str) -> None:
    assert camera_name(topic) == name
