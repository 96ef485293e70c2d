"""Live cameras: what is published when, what a slow machine leaves out, and that only the seed decides what is seen."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from penguin_ros.sim import live
from penguin_ros.sim.live import Live, LiveCameras
from penguin_ros.sim.render import Renderer
from penguin_ros.sim.rig import sample_rig
from penguin_ros.sim.shooting import Shooter

FRONT = Live(cameras=('front',), rate_hz=5.0, seed=4, split='unit test')


@pytest.fixture(autouse=True)
def short_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, 'DRIVE_S', 12.0)     # sooner drawn


class Outlet:
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.delay_s = 0.0

    def publish(self, message: Any) -> None:
        self.messages.append(message)
        time.sleep(self.delay_s)

    def subscribers(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Bus:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.topics: dict[str, Outlet] = {}

    def new(self, type_name: str, **fields: Any) -> Any:
        return SimpleNamespace(**fields)

    def advertise(self, topic: str, type_name: str, *, latched: bool = False) -> Outlet:
        return self.topics.setdefault(topic, Outlet())

    def advertise_images(self, topic: str, type_name: str, *, reliable: bool = True) -> Outlet:
        return self.topics.setdefault(topic, Outlet())


def truths(bus: Bus, camera: str = 'front') -> list[dict[str, Any]]:
    return [json.loads(message.data) for message in bus.topics[f'/{camera}/ground_truth'].messages]


def stamps_ns(bus: Bus, topic: str) -> list[int]:
    return [one.header.stamp.sec * 10**9 + one.header.stamp.nanosec for one in bus.topics[topic].messages]


def test_images_carry_the_time_and_the_world_of_the_seed(renderer: Renderer) -> None:
    bus = Bus()
    cameras = LiveCameras(bus, Live(cameras=('left', 'front'), rate_hz=1.0, seed=4, split='unit test'))
    before_ns = time.time_ns()
    cameras.run(2.0, threading.Event(), print)
    assert (cameras.count.sent + cameras.count.late) == 4
    for mount in sample_rig('unit test', 4, ('left', 'front')):
        topic = f'/{mount.name}/image/compressed'
        shown = truths(bus, mount.name)
        assert stamps_ns(bus, topic) == stamps_ns(bus, f'/{mount.name}/camera_info') == [one['stamp_ns'] for one in shown]
        assert all(before_ns < one['stamp_ns'] <= time.time_ns() for one in shown)
        shooter = Shooter(FRONT.drive(0), mount, 1.0)
        for truth, message in zip(shown, bus.topics[topic].messages):
            picture, expected = shooter.shoot(renderer, round(truth['time_s']), truth['stamp_ns'])
            assert truth == expected
            assert message.header.frame_id == mount.frame_id
            assert np.abs(cv2.imdecode(message.data, cv2.IMREAD_COLOR)[..., ::-1].astype(int) - picture).mean() < 4     # JPEG
    assert len(bus.topics['/tf_static'].messages) == 1
    assert len(bus.topics['/tf'].messages) == cameras.count.sent / 2


def test_a_slow_machine_leaves_images_out_counts_them_and_says_so(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, 'REPORT_EVERY_S', 0.5)
    bus, said = Bus(), []
    cameras = LiveCameras(bus, FRONT)
    bus.topics['/front/image/compressed'].delay_s = 0.5
    cameras.run(2.0, threading.Event(), said.append)
    assert cameras.count.late >= 4
    assert cameras.count.sent + cameras.count.late == 10
    times_s = [truth['time_s'] for truth in truths(bus)]
    assert times_s == sorted(set(times_s))
    assert all(round(time_s * 5, 6) % 1 == 0 for time_s in times_s)        # late or not, only moments of the rate are shown
    assert 'late so far (left out): lower --rate' in said[-1]


def test_one_drive_follows_another(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, 'DRIVE_S', 0.8)
    bus = Bus()
    LiveCameras(bus, FRONT).run(2.0, threading.Event(), print)
    shown = truths(bus)
    assert {truth['drive'] for truth in shown} == {0, 1, 2}
    assert all(truth['time_s'] < 0.8 for truth in shown)
    stamps = [truth['stamp_ns'] for truth in shown]
    assert stamps == sorted(set(stamps))
    assert FRONT.drive(0).room != FRONT.drive(1).room


def test_it_ends_when_told_to(renderer: Renderer) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    cameras = LiveCameras(Bus(), FRONT)
    assert not cameras.wait_for_watchers(60.0, stop)
    cameras.run(float('inf'), stop, print)
    assert cameras.count.sent == 0
