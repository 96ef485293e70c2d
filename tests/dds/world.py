"""A node that runs on DDS with a plain perception, and a bus to talk to it."""

from __future__ import annotations

import threading
import time
from typing import Any

from penguin_ros.dds.bus import DdsBus
from penguin_ros.dds.shell import run_node
from tests.bus.contract import Heard, wait_until
from tests.dds.domains import DOMAIN_ID, own_name
from tests.dds.plain_perception import plain_perception
from tests.dds.recordings import image


class World:
    """A running node in a namespace of its own, and a bus to talk to it."""

    def __init__(self) -> None:
        self.namespace = f'/{own_name("robot")}'
        self.node = f'{self.namespace}/penguin'
        self.stop = threading.Event()
        settings = {'cameras': ['front'], 'camera.front.image_topic': 'front/image_raw', 'latency.stale_after_s': 1.0}
        self.thread = threading.Thread(target=run_node, args=(plain_perception, settings), kwargs={
            'namespace': self.namespace, 'domain_id': DOMAIN_ID, 'stop': self.stop})
        self.bus = DdsBus(own_name('world'), domain_id=DOMAIN_ID)
        self.scenes = Heard()
        self.bus.listen(f'{self.node}/front/scene', 'penguin_ros/msg/SceneDescription', self.scenes, latched=True)
        self.images = self.bus.advertise_images(f'{self.namespace}/front/image_raw', 'sensor_msgs/msg/Image')
        self.thread.start()
        wait_until(lambda: self.images.subscribers() == 1, 'the node subscribing to its camera')

    def show(self, colour: str, stamp_ns: int = 0) -> int:
        stamp_ns = stamp_ns or time.time_ns()
        self.images.publish(image(colour, stamp_ns, 'front'))
        return stamp_ns

    def told(self) -> list[Any]:
        """The scenes that are of an image."""
        return [scene for scene in self.scenes.messages if scene.status == scene.STATUS_OK]

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.bus.close()
