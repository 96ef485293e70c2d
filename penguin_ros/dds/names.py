"""ROS 2's rules for names of nodes, topics and services. Knows nothing of how they look on the wire (wire.py)."""

from __future__ import annotations

import re

from penguin_ros.core.errors import ConfigError

NAME_PART = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
IMAGE_PARTS = re.compile(r'image\w*|compressed|rgb|color|raw|video_frame')


def full_name(name: str, node_name: str, namespace: str = '/') -> str:
    """An absolute name: '~' is the node itself, '~/scene' belongs to it, 'front/image' to its namespace."""
    space = namespace.strip('/')
    if name == '~' or name.startswith('~/'):
        parts = [space, node_name, name[2:]]
    else:
        parts = [name] if name.startswith('/') else [space, name]
    full = '/' + '/'.join(part.strip('/') for part in parts if part.strip('/'))
    for part in full[1:].split('/'):
        if not NAME_PART.fullmatch(part):
            raise ConfigError(f'{name!r} is not a ROS 2 name. Use letters, digits and _ between slashes, no digit first.')
    return full


def camera_name(image_topic: str) -> str:
    """A camera's name from its topic: '/front_left/image_raw' is front_left, '/image' camera."""
    parts = [part.lower() for part in image_topic.strip('/').split('/')]
    while len(parts) > 1 and IMAGE_PARTS.fullmatch(parts[-1]):
        parts.pop()
    name = re.sub(r'[^a-z0-9_]', '_', '_'.join(parts)).lstrip('_0123456789')
    return name if name and not IMAGE_PARTS.fullmatch(name) else 'camera'
