"""Starts the real node as a process, as launch would, and gives tests its camera, its ears and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from penguin_ros.core.bus import Message
from tests.bus.contract import PATIENCE_S, Heard, wait_until
from tests.ros.inside.peer import Outlet, Peer

SCRIPT = Path(__file__).resolve().parents[3] / 'scripts' / 'penguin_node'
STALE = 2
PARAMETERS = """
/**:
  ros__parameters:
    engine: nano
    cameras: [front, rear]
    camera:
      front: {image_topic: /front/image_raw}
      rear: {image_topic: /rear/image_raw/compressed, compressed: true}
    latency: {stale_after_s: 1}       # a whole number where a float is meant, as people write them
    caption: {refresh_s: 0.0}
"""


class RunningNode:
    """The node's process and somebody beside it to talk to."""

    def __init__(self, folder: Path, *arguments: str, script: Path = SCRIPT, env: dict[str, str] | None = None,
                 parameters: str = PARAMETERS) -> None:
        file = folder / 'parameters.yaml'
        file.write_text(parameters)
        self._log = folder / 'log.txt'
        with self._log.open('w') as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script), '--ros-args', '--params-file', str(file), *arguments],
                stdout=log, stderr=subprocess.STDOUT, env=env)
        self.peer = Peer('world', '/penguin')
        self.scenes = {camera: Heard() for camera in ('front', 'rear')}
        for camera, heard in self.scenes.items():
            self.peer.listen(f'/penguin/{camera}/scene', 'penguin_ros/msg/SceneDescription', heard)
        self.diagnostics = Heard()
        self.peer.listen('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', self.diagnostics)
        self.front = self.peer.outlet('/front/image_raw', 'sensor_msgs/msg/Image')
        self.rear = self.peer.outlet('/rear/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', reliable=False)

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.peer.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        print(self.said())      # shown by pytest where a test failed

    def up(self) -> RunningNode:
        assert self.peer.change_state('configure', 30.0), self.said()
        assert self.peer.change_state('activate'), self.said()
        self.front.wait_matched()
        self.rear.wait_matched()
        return self

    def said(self) -> str:
        """All the node has written to the console."""
        return self._log.read_text()

    def end(self, number: signal.Signals, timeout_s: float = 15.0) -> int:
        """Send a signal and give back the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    # -- cameras ---------------------------------------------------------------------------------------------------

    def show(self, seed: int, stamp: Message | None = None) -> Message:
        """One good front image, and the scene that comes of it."""
        message = image_msg(self.peer, picture(seed), stamp or self.peer.now_msg())
        self.front.publish(message)
        return self.scene_of(message)

    def scene_of(self, message: Message, camera: str = 'front') -> Message:
        found: list[Message] = []

        def arrived() -> bool:
            found[:] = [scene for scene in self.scenes[camera].messages
                        if scene.header.stamp == message.header.stamp and scene.status != STALE]
            return bool(found)

        wait_until(arrived, f'a scene of camera {camera}')
        return found[0]

    # -- questions and health --------------------------------------------------------------------------------------

    def ask(self, service: str = 'ask', **fields: Any) -> Message:
        kind = {'ask': 'penguin_ros/srv/Ask', 'describe_region': 'penguin_ros/srv/DescribeRegion'}[service]
        return self.peer.ask(f'/penguin/{service}', kind, self.peer.new(f'{kind}_Request', **fields)).result(20.0)

    def finding(self, part: str) -> tuple[int, str, dict[str, str]]:
        """The newest diagnostic status of a part: level, text, values."""
        newest = self.diagnostics.wait(1)[-1]
        status = next(status for status in newest.status if status.name == f'penguin: {part}')
        return status.level[0], status.message, {value.key: value.value for value in status.values}

    def refused(self, camera: str) -> int:
        """How many of a camera's images the diagnostics say were refused."""
        return int(self.finding(f'camera {camera}')[2]['images refused'])


def picture(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A scene of its own for every seed."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def image_msg(peer: Peer, rgb: np.ndarray, stamp: Message, **changes: Any) -> Message:
    fields: dict[str, Any] = {
        'header': peer.new('std_msgs/msg/Header', stamp=stamp, frame_id='front_optical_frame'), 'height': rgb.shape[0],
        'width': rgb.shape[1], 'encoding': 'rgb8', 'is_bigendian': 0, 'step': rgb.shape[1] * 3, 'data': rgb.tobytes()}
    return peer.new('sensor_msgs/msg/Image', **{**fields, **changes})


def jpeg_msg(peer: Peer, rgb: np.ndarray, stamp: Message) -> Message:
    header = peer.new('std_msgs/msg/Header', stamp=stamp, frame_id='rear_optical_frame')
    return peer.new('sensor_msgs/msg/CompressedImage', header=header, format='jpeg',
                    data=cv2.imencode('.jpg', rgb[..., ::-1])[1].tobytes())


def publish_until(outlet: Outlet, message: Message, arrived: Any) -> None:
    """A best-effort message may be lost; a camera sends the next."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not arrived() and time.monotonic() < give_up_s:
        outlet.publish(message)
        time.sleep(0.2)
