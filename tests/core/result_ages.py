"""How old results are when a model of fixed latency watches cameras of some rates; run as a program for the full length.

python -m tests.core.result_ages            1 s model; cameras of 30, 5 and 1.1 Hz; 60 s each
"""

from __future__ import annotations

import logging
import statistics
import threading
import time

import numpy as np

from penguin_ros.core.frame import Frame
from penguin_ros.core.health import Health
from penguin_ros.core.scene import Answer, Scene
from penguin_ros.core.worker import Arrival, Inquiry, Worker

PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)


class SleepyWatcher:
    """A model that takes a fixed time for everything."""

    def __init__(self, look_s: float, answer_s: float = 0.0) -> None:
        self.look_s, self.answer_s = look_s, answer_s
        self.order: list[str] = []

    def look(self, frame: Frame) -> Scene:
        self.order.append(frame.camera)
        time.sleep(self.look_s)
        return Scene(camera=frame.camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, height_px=4, width_px=4)

    def failed(self, camera: str, stamp_ns: int, frame_id: str, reason: str) -> Scene:
        return Scene(camera=camera, stamp_ns=stamp_ns, frame_id=frame_id, height_px=0, width_px=0, reason=reason)

    def answer(self, inquiry: Inquiry) -> Answer:
        self.order.append('question')
        time.sleep(self.answer_s)
        return Answer(text='yes', camera='a', stamp_ns=0, frame_id='')


def result_ages(rate_hz: float, *, look_s: float, seconds: float) -> list[float]:
    """Ages in seconds, from arrival of the image to its result, of every result within the time."""
    ages: list[float] = []
    worker = Worker(SleepyWatcher(look_s), {'a': 1.0}, health=Health(), log=logging.getLogger('test'),
                    on_scene=lambda scene: ages.append(time.monotonic() - scene.stamp_ns / 1e9))
    worker.start()
    done = threading.Event()

    def camera() -> None:
        start_s, number = time.monotonic(), 0
        while not done.is_set():
            now_s = time.monotonic()
            worker.offer(Arrival('a', int(now_s * 1e9), 'lens', lambda: PIXELS, now_s))
            number += 1
            done.wait(max(0.0, start_s + number / rate_hz - time.monotonic()))

    publisher = threading.Thread(target=camera)
    publisher.start()
    time.sleep(seconds)
    done.set()
    publisher.join()
    worker.stop()
    return ages


if __name__ == '__main__':
    for rate_hz in (30.0, 5.0, 1.1):
        ages = result_ages(rate_hz, look_s=1.0, seconds=60.0)
        print(f'{rate_hz:5.1f} Hz: {len(ages)} results, age median {statistics.median(ages):.3f} s, largest {max(ages):.3f} s')
