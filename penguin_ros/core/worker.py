"""Which frame or question is worked on next. One thread owns the engines. Knows nothing of what the work is (perception.py).

Images wait in a mailbox of one per camera: a newer one replaces the one not yet begun, so a result is never older than the
work took plus one camera period. A question goes first, but never twice in a row while an image waits, so that questions
cannot stop the stream. Cameras take turns in proportion to their priority.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from penguin_ros.core.errors import CancelledError, DeadlineError, EngineError, PenguinError, QuestionError
from penguin_ros.core.frame import Frame
from penguin_ros.core.health import CameraHealth, Health
from penguin_ros.core.scene import Answer, PartialAnswer, Question, Scene

# Waiting this share of a look for an image that is just about to come costs little rate and makes the result fresher.
PATIENCE = 0.1


@dataclass(frozen=True)
class Arrival:
    """A camera image as it came in; its pixels are made only when work on it begins."""

    camera: str
    stamp_ns: int
    frame_id: str
    rgb: Callable[[], np.ndarray]       # may raise ImageError
    received_s: float                   # time.monotonic()


@dataclass
class Inquiry:
    """A question on its way. Cancel by setting ``cancelled``; the answer or the error arrives in ``answer``."""

    question: Question
    received_s: float
    deadline_s: float
    partial: PartialAnswer | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    answer: Future[Answer] = field(default_factory=Future)

    def fail(self, error: PenguinError) -> bool:
        """Settle with an error; False when it is settled already."""
        try:
            self.answer.set_exception(error)
        except InvalidStateError:
            return False
        return True


class Watcher(Protocol):
    """What the worker drives; called from its thread alone."""

    def look(self, frame: Frame) -> Scene: ...

    def failed(self, camera: str, stamp_ns: int, frame_id: str, reason: str) -> Scene: ...  # nothing could be seen

    def answer(self, inquiry: Inquiry) -> Answer: ...


@dataclass
class _Turn:
    """A camera's place in the order of service: the lowest goes next, and each service costs 1/priority."""

    priority: float
    spent: float = 0.0


class Worker:
    """Takes images and questions from any thread, and gives out scenes and answers from its own."""

    def __init__(self, watcher: Watcher, priorities: Mapping[str, float], *, on_scene: Callable[[Scene], None],
                 health: Health, log: logging.Logger, waiting: int = 8, timeout_s: float = 10.0) -> None:
        self.waiting = waiting          # most questions that may wait
        self.timeout_s = timeout_s      # of questions without their own
        self._watcher = watcher
        self._on_scene = on_scene
        self._health = health
        self._log = log
        self._turns = {camera: _Turn(priority) for camera, priority in priorities.items()}
        self._mailboxes: dict[str, Arrival] = {}
        self._inquiries: deque[Inquiry] = deque()
        self._question_was_last = False
        self._stopping = False
        self._busy = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name='penguin-worker', daemon=True)
        self._logged: dict[str, float] = {}
        with health.held():
            health.cameras = {camera: CameraHealth() for camera in priorities}

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End after the engine call in hand; what still waits is answered with an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            waiting, self._inquiries = self._inquiries, deque()
        for inquiry in waiting:
            inquiry.cancelled.set()
            inquiry.fail(CancelledError('the node is being stopped. Ask again once it is active.'))
        if self._thread.is_alive():
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise EngineError(f'the engine has not returned for {timeout_s:.0f} s. Stop the process and check the device.')

    @property
    def stopping(self) -> bool:
        """Asked by long work between two engine calls."""
        return self._stopping

    def offer(self, arrival: Arrival) -> None:
        """Hand in an image. Never waits; an older image of the camera that nobody began on is let go and counted."""
        with self._changed:
            with self._health.held():
                camera = self._health.cameras[arrival.camera]
                camera.note_arrival(arrival.received_s)
                camera.superseded += arrival.camera in self._mailboxes
            self._mailboxes[arrival.camera] = arrival
            self._changed.notify_all()

    def ask(self, question: Question, partial: PartialAnswer | None = None,
            cancelled: threading.Event | None = None) -> Inquiry:
        """Hand in a question. Never waits; the Inquiry carries the answer, an error, and the means to cancel."""
        now_s = time.monotonic()
        inquiry = Inquiry(question, now_s, now_s + (question.timeout_s or self.timeout_s), partial,
                          cancelled or threading.Event())
        problem = self._cannot_ask(question)
        with self._changed:
            if not problem and self._stopping:
                problem = QuestionError('the node is being stopped. Ask again once it is active.')
            if not problem and len(self._inquiries) >= self.waiting:
                problem = QuestionError(
                    f'{len(self._inquiries)} questions wait already, the most that may. '
                    'Ask again in a moment, or raise ask.waiting.')
            if not problem:
                self._inquiries.append(inquiry)
                self._changed.notify_all()
        with self._health.held() as health:
            health.questions += 1
        if problem:
            self._fail(inquiry, problem)
        return inquiry

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing waits or is worked on; for whoever feeds images at the engines' own pace."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._busy or self._mailboxes or self._inquiries), timeout_s)

    def expire(self) -> None:
        """Fail questions whose time ran out while they waited; to be called every fraction of a second from any thread."""
        now_s = time.monotonic()
        with self._changed:
            late = [inquiry for inquiry in self._inquiries if now_s >= inquiry.deadline_s or inquiry.cancelled.is_set()]
            for inquiry in late:
                self._inquiries.remove(inquiry)
        for inquiry in late:
            self._fail(inquiry, self._why_late(inquiry))

    # -- the worker's own thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            work = self._next()
            if work is None:
                return
            if isinstance(work, Inquiry):
                self._answer(work)
            else:
                self._look(work)

    def _next(self) -> Arrival | Inquiry | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while True:
                if self._stopping:
                    return None
                if self._inquiries and not (self._question_was_last and self._mailboxes):
                    self._question_was_last = True
                    self._busy = True
                    return self._inquiries.popleft()
                if self._mailboxes:
                    camera = min(self._mailboxes, key=lambda name: (self._turns[name].spent, self._mailboxes[name].received_s))
                    pause_s = self._worth_waiting_s(camera)
                    if pause_s > 0 and not self._inquiries:
                        self._changed.wait(pause_s)
                        continue
                    self._question_was_last = False
                    self._take_turn(camera)
                    self._busy = True
                    return self._mailboxes.pop(camera)
                self._changed.wait()

    def _take_turn(self, camera: str) -> None:
        """Charge the camera; one that was silent may not claim all the turns it missed."""
        turn = self._turns[camera]
        others = [self._turns[name].spent for name in self._mailboxes if name != camera]
        turn.spent = max(turn.spent, min(others, default=turn.spent) - 1.0) + 1.0 / turn.priority

    def _worth_waiting_s(self, camera: str) -> float:
        """How long to wait for a fresher image: a moment, when it is due sooner than the one at hand is old."""
        if len(self._mailboxes) > 1:
            return 0.0
        with self._health.held() as health:
            period_s, work_s = health.cameras[camera].period_s, health.cameras[camera].work_s
        age_s = time.monotonic() - self._mailboxes[camera].received_s
        due_s = period_s - age_s
        return due_s if 0.0 < due_s < min(age_s, PATIENCE * work_s) else 0.0

    def _look(self, arrival: Arrival) -> None:
        started_s = time.monotonic()
        try:
            frame = Frame(arrival.rgb(), arrival.stamp_ns, arrival.frame_id, arrival.camera, arrival.received_s)
            scene = self._watcher.look(frame)
        except EngineError as error:
            scene = self._engine_failed(arrival, str(error))
        except PenguinError as error:
            with self._health.held() as health:
                health.cameras[arrival.camera].note_refusal(error)
            self._log_now_and_then(f'{arrival.camera}: {type(error).__name__}', f'camera {arrival.camera}: {error}')
            return
        except Exception as error:  # a backend's own exception: this frame is lost, the stream goes on
            self._log.exception('looking at an image of camera %s failed', arrival.camera)
            scene = self._engine_failed(arrival, f'{type(error).__name__}: {error}')
        else:
            with self._health.held() as health:
                camera = health.cameras[arrival.camera]
                camera.last_good_s = time.monotonic()
                camera.note_scene(scene, time.monotonic() - started_s)
        self._on_scene(scene)

    def _engine_failed(self, arrival: Arrival, reason: str) -> Scene:
        scene = self._watcher.failed(arrival.camera, arrival.stamp_ns, arrival.frame_id, f'engine failure: {reason}')
        with self._health.held() as health:
            health.engine_failures += 1
            health.last_engine_failure = reason
            health.cameras[arrival.camera].last_error = reason
            health.cameras[arrival.camera].scene = scene
        self._log_now_and_then('engine', f'the engine failed on an image of camera {arrival.camera}: {reason}')
        return scene

    def _answer(self, inquiry: Inquiry) -> None:
        if inquiry.cancelled.is_set() or time.monotonic() >= inquiry.deadline_s:
            self._fail(inquiry, self._why_late(inquiry))
            return
        try:
            answer = self._watcher.answer(inquiry)
        except EngineError as error:
            with self._health.held() as health:
                health.engine_failures += 1
                health.last_engine_failure = str(error)
            self._fail(inquiry, error)
        except PenguinError as error:
            self._fail(inquiry, error)
        except Exception as error:  # as in _look: this question is lost, the stream goes on
            self._log.exception('answering a question failed')
            with self._health.held() as health:
                health.engine_failures += 1
                health.last_engine_failure = f'{type(error).__name__}: {error}'
            self._fail(inquiry, EngineError(f'the engine failed: {type(error).__name__}: {error}. See the log; ask again.'))
        else:
            with self._health.held() as health:
                health.answers += 1
            try:
                inquiry.answer.set_result(answer)
            except InvalidStateError:
                self._log.info('an answer came after its question had been given up')

    # -- shared --------------------------------------------------------------------------------------------------

    def _cannot_ask(self, question: Question) -> QuestionError | None:
        if question.camera and question.camera not in self._turns:
            return QuestionError(
                f'there is no camera {question.camera!r}; there are: {", ".join(self._turns)}. '
                'Name one of them, or none for the first.')
        return None

    def _why_late(self, inquiry: Inquiry) -> PenguinError:
        if inquiry.cancelled.is_set():
            return CancelledError('the question was cancelled.')
        given_s = inquiry.deadline_s - inquiry.received_s
        return DeadlineError(f'no answer within {given_s:.1f} s. Allow a longer timeout, or ask when fewer questions wait.')

    def _fail(self, inquiry: Inquiry, error: PenguinError) -> None:
        if inquiry.fail(error):
            with self._health.held() as health:
                health.failed_questions[type(error).__name__] += 1

    def _log_now_and_then(self, kind: str, text: str) -> None:
        """Say an error at once, and while it lasts again every ten seconds; the counters have every single one."""
        now_s = time.monotonic()
        if now_s - self._logged.get(kind, float('-inf')) >= 10.0:
            self._logged[kind] = now_s
            self._log.error(text)
