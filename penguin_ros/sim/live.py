"""Runs the simulated warehouse as live cameras: pictures at their rate, on whatever bus it is given. Knows no middleware.

Picture k belongs to the time k / rate of a drive that only its seed decides. A machine that cannot keep up leaves pictures
out and counts them late; it never shows another world.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from penguin_ros.core.bus import Message, Publisher
from penguin_ros.sim import messages
from penguin_ros.sim.drive import sample_rig_drive, with_plain_look
from penguin_ros.sim.messages import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    INFO_TYPE,
    STATIC_TRANSFORMS_TOPIC,
    TRANSFORMS_TOPIC,
    TRANSFORMS_TYPE,
    TRUTH_TYPE,
    image_topic,
    info_topic,
    truth_topic,
)
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.rig import sample_rig
from penguin_ros.sim.shooting import Shooter
from penguin_ros.sim.world import World

DRIVE_S = 120.0                 # then another begins, in another hall with the same cameras: a cut
REPORT_EVERY_S = 5.0
WAIT_STEP_S = 0.02


class CameraBus(Protocol):
    """What live cameras need of a middleware; dds/bus.py has it."""

    def new(self, type_name: str, **fields: Any) -> Message: ...

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> Publisher: ...

    def advertise_images(self, topic: str, type_name: str, *, reliable: bool = True) -> Publisher: ...


@dataclass(frozen=True, kw_only=True)
class Live:
    """Which cameras run, and how."""

    cameras: tuple[str, ...]
    rate_hz: float
    seed: int = 0
    split: str = 'demo'
    compressed: bool = True
    reliable: bool = True
    plain: bool = True          # without shadows and smoothed edges

    def drive(self, number: int) -> World:
        """The world of so many drives after the first."""
        # the first is the one that `penguin sim record --cameras` writes for the same seed and 120 s
        world = sample_rig_drive(self.split, self.seed, DRIVE_S, number=number)
        return with_plain_look(world) if self.plain else world


@dataclass
class Count:
    """What has been done so far, in images of all cameras."""

    sent: int = 0
    late: int = 0               # not drawn, because those before took too long


class LiveCameras:
    """The cameras on a bus. Use it on one thread: it renders there."""

    def __init__(self, bus: CameraBus, live: Live) -> None:
        self.count = Count()
        self._bus, self._live = bus, live
        self._rig = sample_rig(live.split, live.seed, live.cameras)
        image_type = COMPRESSED_TYPE if live.compressed else IMAGE_TYPE
        self._images = {name: bus.advertise_images(self.topic(name), image_type, reliable=live.reliable)
                        for name in live.cameras}
        self._infos = {name: bus.advertise(info_topic(name), INFO_TYPE) for name in live.cameras}
        self._truths = {name: bus.advertise(truth_topic(name), TRUTH_TYPE) for name in live.cameras}
        self._robot = bus.advertise(TRANSFORMS_TOPIC, TRANSFORMS_TYPE)
        self._mounts = bus.advertise(STATIC_TRANSFORMS_TOPIC, TRANSFORMS_TYPE, latched=True)

    def topic(self, camera: str) -> str:
        return image_topic(camera, compressed=self._live.compressed)

    def described(self) -> list[str]:
        """One line for each camera: what it publishes where."""
        kind = 'JPEG' if self._live.compressed else 'raw'
        return [f'{mount.name}: {mount.camera.width_px}x{mount.camera.height_px} {kind} on {self.topic(mount.name)}, '
                f'{info_topic(mount.name)}, {truth_topic(mount.name)}; frame {mount.frame_id}' for mount in self._rig]

    def wait_for_watchers(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until every camera's images have a subscriber."""
        give_up_s = time.monotonic() + timeout_s
        while not all(outlet.subscribers() for outlet in self._images.values()):
            if time.monotonic() >= give_up_s or stop.wait(WAIT_STEP_S):
                return False
        return True

    def run(self, seconds: float, stop: threading.Event, tell: Callable[[str], None]) -> None:
        """Publish for so long (`math.inf`: until `stop` is set)."""
        rate_hz = self._live.rate_hz
        per_drive = max(1, round(DRIVE_S * rate_hz))
        with Renderer() as renderer, ThreadPoolExecutor(1, 'next drive') as ahead:
            world, following = self._live.drive(0), None
            shooters = self._shooters(world, 0)
            Shooter(world, self._rig[0], rate_hz).shoot(renderer, 0, 0)     # the first picture sets OpenGL up: a second
            started_s, started_ns = time.monotonic(), time.time_ns()
            self._mounts.publish(messages.mounts(self._bus.new, started_ns, self._rig))
            report = _Report(self.count, rate_hz, len(self._rig), started_s, tell)
            tick = drive = 0
            end = seconds * rate_hz
            while tick < end:
                if stop.wait(max(0.0, started_s + tick / rate_hz - time.monotonic())):
                    break
                missed = int(min((time.monotonic() - started_s) * rate_hz, end)) - tick
                if missed > 0:
                    self.count.late += missed * len(self._rig)
                    tick += missed
                    continue
                if tick // per_drive != drive:
                    drive = tick // per_drive
                    world, following = self._taken(following, drive), None
                    shooters = self._shooters(world, drive)
                elif following is None and tick % per_drive > per_drive // 2:
                    following = ahead.submit(self._live.drive, drive + 1)
                stamp_ns = started_ns + round(tick * 1e9 / rate_hz)
                self._shoot(renderer, shooters, world, tick % per_drive, stamp_ns)
                tick += 1
                report.when_due()

    def _taken(self, following: Future[World] | None, drive: int) -> World:
        return following.result() if following else self._live.drive(drive)

    def _shooters(self, world: World, drive: int) -> list[Shooter]:
        return [Shooter(world, mount, self._live.rate_hz, drive=drive) for mount in self._rig]

    def _shoot(self, renderer: Renderer, shooters: list[Shooter], world: World, frame: int, stamp_ns: int) -> None:
        """One moment, seen by every camera; each image leaves as soon as it is drawn."""
        new = self._bus.new
        self._robot.publish(messages.robot_place(new, stamp_ns, world.robot.at(frame / self._live.rate_hz)))
        for mount, shooter in zip(self._rig, shooters):
            picture, document = shooter.shoot(renderer, frame, stamp_ns)
            head = messages.header(new, stamp_ns, mount.frame_id)
            self._infos[mount.name].publish(messages.camera_info(new, head, mount.camera))
            self._truths[mount.name].publish(messages.truth(new, document))
            self._images[mount.name].publish(messages.image(new, head, picture, compressed=self._live.compressed))
            self.count.sent += 1


class _Report:
    """Says now and then which rate is reached."""

    def __init__(self, count: Count, rate_hz: float, cameras: int, started_s: float, tell: Callable[[str], None]) -> None:
        self._count, self._rate_hz, self._cameras, self._tell = count, rate_hz, cameras, tell
        self._started_s = self._last_s = started_s
        self._last = Count()

    def when_due(self) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < REPORT_EVERY_S:
            return
        sent, late = self._count.sent - self._last.sent, self._count.late - self._last.late
        reached_hz = sent / self._cameras / (now_s - self._last_s)
        advice = '' if late <= 0.1 * (sent + late) else ': lower --rate, take fewer --cameras or --look plain'
        self._tell(f'{now_s - self._started_s:.0f} s: {reached_hz:.1f} of {self._rate_hz:g} images/s from each camera, '
                   f'{self._count.late} late so far (left out){advice}')
        self._last_s, self._last = now_s, Count(self._count.sent, self._count.late)
