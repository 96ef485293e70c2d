"""How each camera and the engines are doing: counters and the last error. Knows nothing of how it is shown (diagnostics.py)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from penguin_ros.core.errors import PenguinError
from penguin_ros.core.scene import Scene


@dataclass
class CameraHealth:
    """Counters of one camera since activation. Nothing is dropped or refused without one of them moving."""

    arrived: int = 0
    superseded: int = 0             # replaced by a newer image before work on them began
    looked_at: int = 0
    captions: int = 0
    unchanged: int = 0
    keyframes: int = 0
    malformed_boxes: int = 0        # boxes the model wrote that are none
    refused: Counter[str] = field(default_factory=Counter)  # by kind of error
    last_error: str = ''
    last_arrival_s: float = 0.0     # monotonic; of any image
    last_good_s: float = 0.0        # monotonic; of an image that could be used
    period_s: float = 0.0           # between images, smoothed; 0: not known yet
    work_s: float = 0.0             # of one look, smoothed
    scene: Scene | None = None      # the last one published

    def note_arrival(self, now_s: float) -> None:
        """Count an image and learn the camera's rate; a pause is no rate."""
        if self.arrived:
            gap_s = now_s - self.last_arrival_s
            self.period_s = gap_s if not self.period_s or gap_s > 4 * self.period_s else 0.8 * self.period_s + 0.2 * gap_s
        self.arrived += 1
        self.last_arrival_s = now_s

    def note_refusal(self, error: PenguinError) -> None:
        self.refused[type(error).__name__] += 1
        self.last_error = str(error)

    def note_scene(self, scene: Scene, work_s: float) -> None:
        self.looked_at += 1
        self.unchanged += scene.unchanged
        self.keyframes += scene.keyframe
        self.captions += scene.captioned
        self.work_s = work_s if not self.work_s else 0.8 * self.work_s + 0.2 * work_s
        self.scene = scene


@dataclass
class Health:
    """All counters of one node; taken under its lock by whoever reads or writes them."""

    cameras: dict[str, CameraHealth] = field(default_factory=dict)
    questions: int = 0
    answers: int = 0
    failed_questions: Counter[str] = field(default_factory=Counter)
    engine_failures: int = 0
    last_engine_failure: str = ''
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Count from zero again: figures are since activation."""
        with self._lock:
            self.cameras = {}
            self.questions = self.answers = self.engine_failures = 0
            self.failed_questions = Counter()
            self.last_engine_failure = ''

    @contextmanager
    def held(self) -> Iterator[Health]:
        with self._lock:
            yield self
