"""What is connected to what, in which lifecycle state. Knows the bus's contract, but no middleware behind it.

Callbacks turn messages into values and hand them to the worker; what goes out keeps its frame's stamp and frame_id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from penguin_ros.core.bus import Bus, Handle, Job, JobResult, Message, Publisher
from penguin_ros.core.config import CameraConfig, PenguinConfig, camera_prefix, read_camera, read_config
from penguin_ros.core.diagnostics import Finding, camera_finding, engine_finding
from penguin_ros.core.drawing import draw_scene
from penguin_ros.core.errors import CancelledError, ConfigError, PenguinError, QuestionError
from penguin_ros.core.frame import Frame
from penguin_ros.core.health import Health
from penguin_ros.core.messages import (
    answer_fields,
    description_fields,
    detections_from_scene,
    header_from,
    msg_from_scene,
    ns_from_stamp,
    question_from_request,
)
from penguin_ros.core.scene import Answer, PartialAnswer, Scene, Status
from penguin_ros.core.settings import settings_of
from penguin_ros.core.worker import Arrival, Inquiry, Watcher, Worker

HEALTH_PERIOD_S = 1.0       # REP 107's customary rate
SWEEP_PERIOD_S = 0.1        # how late a waiting question may learn that its time is up


class Perception(Watcher, Protocol):
    """What the node needs of the assembled model beyond looking and answering (perception.py)."""

    model_name: str
    engine_id: str
    interrupted: Callable[[], bool]     # asked between two tokens; True ends what is being written

    def reconfigure(self, config: PenguinConfig) -> None: ...  # from any thread; in force from the next piece of work

    def restart(self) -> None: ...      # forget all frames; only while no worker runs

    def held_frame(self, camera: str, stamp_ns: int) -> Frame | None: ...

    def figures(self) -> dict[str, str]: ...

    def close(self) -> None: ...


Assemble = Callable[[PenguinConfig, Sequence[CameraConfig], Health, logging.Logger], Perception]
"""Loads and warms up the engines; raises PenguinError when that cannot be done."""


class PerceptionNode:
    """Camera images in, grounded captions and answers out, on any bus. Implements bus.Lifecycle."""

    def __init__(self, bus: Bus, assemble: Assemble) -> None:
        self._bus = bus
        self._assemble = assemble
        self._log = bus.log()
        self._health = Health()
        self._cameras: list[CameraConfig] = []
        self._perception: Perception | None = None
        self._worker: Worker | None = None
        self._outlets: dict[tuple[str, str], Publisher] = {}
        self._opened: list[Handle] = []         # while configured
        self._subscriptions: list[Handle] = []  # while active
        self._stale_said_s: dict[str, float] = {}
        self._activated_s = 0.0
        bus.declare(settings_of(PenguinConfig), self._check, self._changed)
        self._config = PenguinConfig()

    # -- lifecycle -----------------------------------------------------------------------------------------------

    def configure(self) -> str | None:
        """Read the settings, load and warm up the engines, open topics and services."""
        try:
            names = read_config(self._bus.settings()).cameras
            for name in names:
                self._bus.declare(settings_of(CameraConfig, camera_prefix(name)), self._check, self._changed)
            values = self._bus.settings()
            self._config = read_config(values)
            self._cameras = [read_camera(name, values) for name in names]
            self._perception = self._assemble(self._config, self._cameras, self._health, self._log)
            self._open()
        except PenguinError as error:
            self.cleanup()
            return str(error)
        self._log.info(f'{self._perception.model_name} is ready (engine {self._perception.engine_id})')
        return None

    def activate(self) -> str | None:
        """Start the worker and subscribe to the cameras."""
        if self._perception is None:
            return 'the node is not configured. Configure it first.'
        self._perception.restart()
        self._health.reset()
        self._stale_said_s.clear()
        self._worker = Worker(
            self._perception, {camera.name: camera.priority for camera in self._cameras}, on_scene=self._publish_scene,
            health=self._health, log=self._log, waiting=self._config.ask.waiting, timeout_s=self._config.ask.timeout_s)
        self._perception.interrupted = self._is_stopping
        self._worker.start()
        self._activated_s = time.monotonic()
        for camera in self._cameras:
            self._subscriptions.append(self._bus.newest_image(
                camera.topic, partial(self._on_image, camera.name), compressed=camera.compressed))
            self._log.info(f'camera {camera.name} listens to {camera.topic}')
        return None

    def _is_stopping(self) -> bool:
        worker = self._worker
        return worker is None or worker.stopping

    def deactivate(self) -> str | None:
        """Let go of the cameras and end the worker; the engines stay loaded."""
        _close_all(self._subscriptions)
        worker, self._worker = self._worker, None
        if worker is not None:
            try:
                worker.stop()
            except PenguinError as error:
                return str(error)
        return None

    def cleanup(self) -> str | None:
        """Close topics and services and free the engines."""
        problem = self.deactivate()
        _close_all(self._opened)
        self._outlets.clear()
        perception, self._perception = self._perception, None
        if perception is not None and problem is None:
            perception.close()
        return problem

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every image and question that came in has been dealt with; False if that takes longer."""
        worker = self._worker
        return worker is None or worker.wait_idle(timeout_s)

    # -- settings ------------------------------------------------------------------------------------------------

    def _check(self, proposed: Mapping[str, Any]) -> str | None:
        values = {**self._bus.settings(), **proposed}
        try:
            for name in read_config(values).cameras:
                read_camera(name, values)
        except ConfigError as error:
            return str(error)
        return None

    def _changed(self, accepted: Mapping[str, Any]) -> None:
        if self._perception is None:
            return          # configure() reads everything anew
        self._config = read_config(self._bus.settings())
        self._perception.reconfigure(self._config)
        if self._worker is not None:
            self._worker.waiting, self._worker.timeout_s = self._config.ask.waiting, self._config.ask.timeout_s
        self._log.info('settings changed: ' + ', '.join(f'{name} = {value}' for name, value in accepted.items()))

    # -- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        bus = self._bus
        for camera in self._cameras:
            self._advertise(camera.name, 'scene', 'penguin_ros/msg/SceneDescription', latched=True)
            self._advertise(camera.name, 'detections', 'vision_msgs/msg/Detection2DArray')
            if self._config.annotated:
                self._advertise(camera.name, 'annotated', 'sensor_msgs/msg/Image')
        self._answers = self._kept(bus.advertise('~/answer', 'penguin_ros/msg/Answer'))
        self._diagnostics = self._kept(bus.advertise('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray'))
        self._opened.append(bus.listen('~/question', 'penguin_ros/msg/Question', self._on_question))
        if 'services' in bus.capabilities():
            self._opened.append(bus.serve('~/ask', 'penguin_ros/srv/Ask', self._on_ask))
            self._opened.append(bus.serve('~/describe_region', 'penguin_ros/srv/DescribeRegion', self._on_describe_region))
        if 'actions' in bus.capabilities():
            self._opened.append(bus.job('~/ask_stream', 'penguin_ros/action/AskStream', self._on_ask_stream))
        self._opened.append(bus.every(SWEEP_PERIOD_S, self._sweep))
        self._opened.append(bus.every(HEALTH_PERIOD_S, self._publish_health))

    def _advertise(self, camera: str, name: str, type_name: str, *, latched: bool = False) -> None:
        publisher = self._bus.advertise(f'~/{camera}/{name}', type_name, latched=latched)
        self._outlets[camera, name] = self._kept(publisher)

    def _kept(self, publisher: Publisher) -> Publisher:
        self._opened.append(publisher)
        return publisher

    # -- images in, scenes out -----------------------------------------------------------------------------------

    def _on_image(self, camera: str, message: Message) -> None:
        worker = self._worker
        if worker is not None:
            limit = self._config.max_image_pixels
            worker.offer(Arrival(
                camera=camera, stamp_ns=ns_from_stamp(message.header.stamp), frame_id=str(message.header.frame_id),
                rgb=lambda: self._bus.rgb(message, max_pixels=limit), received_s=time.monotonic()))

    def _publish_scene(self, scene: Scene) -> None:
        perception = self._perception
        if perception is None:
            return
        scene = replace(scene, age_ms=self._age_ms(scene.stamp_ns))
        if scene.status is not Status.STALE:
            with self._health.held() as health:
                health.cameras[scene.camera].scene = scene      # diagnostics tell the age it was published with
        new = self._bus.new
        self._outlets[scene.camera, 'scene'].publish(
            msg_from_scene(new, scene, model=perception.model_name, engine=perception.engine_id))
        self._outlets[scene.camera, 'detections'].publish(detections_from_scene(new, scene))
        annotated = self._outlets.get((scene.camera, 'annotated'))
        frame = perception.held_frame(scene.camera, scene.stamp_ns)
        if annotated is not None and frame is not None and annotated.subscribers() > 0:
            drawn = draw_scene(frame.pixels, scene)
            annotated.publish(new(
                'sensor_msgs/msg/Image', header=header_from(new, scene.stamp_ns, scene.frame_id), height=drawn.shape[0],
                width=drawn.shape[1], encoding='rgb8', is_bigendian=0, step=drawn.shape[1] * 3, data=drawn.tobytes()))

    def _age_ms(self, stamp_ns: int) -> float:
        return (self._bus.now_ns() - stamp_ns) / 1e6 if stamp_ns else 0.0

    def _sweep(self) -> None:
        """Give up questions whose time is up, and say of cameras that fell silent that they are stale."""
        worker = self._worker
        if worker is None:
            return
        worker.expire()
        now_s = time.monotonic()
        for camera in self._cameras:
            stale = self._stale_scene(camera.name, now_s)
            if stale is not None and now_s - self._stale_said_s.get(camera.name, float('-inf')) >= HEALTH_PERIOD_S:
                self._stale_said_s[camera.name] = now_s
                self._publish_scene(stale)

    def _stale_scene(self, name: str, now_s: float) -> Scene | None:
        """What to publish in place of a scene that does not come; None while images arrive and can be used."""
        with self._health.held() as health:
            camera = health.cameras[name]
            since_s = max(camera.last_good_s, self._activated_s)
            silent_s = now_s - max(camera.last_arrival_s, self._activated_s)
            busy = camera.scene is None and camera.arrived > 0 and not camera.refused
            limit_s = max(self._config.latency.stale_after_s, 2.0 * camera.work_s)
            last, error = camera.scene, camera.last_error
        if now_s - since_s <= limit_s or (busy and silent_s <= limit_s):
            return None
        reason = (f'no image for {silent_s:.1f} s; check the camera driver' if silent_s > limit_s
                  else error or f'nothing could be described for {now_s - since_s:.1f} s')
        if last is None:
            return Scene(camera=name, stamp_ns=0, frame_id='', height_px=0, width_px=0, status=Status.STALE, reason=reason)
        return replace(last, phrases=(), keyframe=False, unchanged=False, status=Status.STALE, reason=reason)

    def _publish_health(self) -> None:
        perception = self._perception
        if perception is None:
            return
        now_s = time.monotonic()
        stale_after_s = self._config.latency.stale_after_s
        with self._health.held() as health:
            findings = [camera_finding(name, camera, now_s=now_s, stale_after_s=stale_after_s)
                        for name, camera in health.cameras.items()] if self._worker is not None else []
            findings.append(engine_finding(health, perception.figures()))
        self._diagnostics.publish(self._diagnostics_msg(findings, perception))

    def _diagnostics_msg(self, findings: Sequence[Finding], perception: Perception) -> Message:
        new = self._bus.new
        statuses = [new(
            'diagnostic_msgs/msg/DiagnosticStatus', level=bytes([finding.level]), name=f'penguin: {finding.part}',
            message=finding.text, hardware_id=perception.model_name,
            values=[new('diagnostic_msgs/msg/KeyValue', key=key, value=value) for key, value in finding.values.items()],
        ) for finding in findings]
        return new('diagnostic_msgs/msg/DiagnosticArray', header=header_from(new, self._bus.now_ns(), ''), status=statuses)

    # -- questions -----------------------------------------------------------------------------------------------

    def _on_ask(self, request: Message) -> Future[Message]:
        return self._answered(request, 'penguin_ros/srv/Ask_Response', answer_fields, _no_answer)

    def _on_describe_region(self, request: Message) -> Future[Message]:
        return self._answered(request, 'penguin_ros/srv/DescribeRegion_Response', description_fields, _no_description)

    def _on_question(self, message: Message) -> None:
        def publish(done: Future[Message]) -> None:
            self._answers.publish(done.result())

        self._answered(message, 'penguin_ros/msg/Answer', answer_fields, _no_answer,
                       extra={'id': str(message.id)}).add_done_callback(publish)

    def _on_ask_stream(self, job: Job) -> Future[JobResult]:
        def feedback(text: str, tokens: int) -> None:
            job.feedback(self._bus.new('penguin_ros/action/AskStream_Feedback', partial=text, tokens=tokens))

        outcome: Future[JobResult] = Future()

        def finish(done: Future[Answer]) -> None:
            error = done.exception()
            result = self._response('penguin_ros/action/AskStream_Result', done, answer_fields, _no_answer, {})
            outcome.set_result(JobResult(
                'succeeded' if error is None else 'canceled' if isinstance(error, CancelledError) else 'aborted', result))

        self._inquire(job.request, partial=feedback, job=job).add_done_callback(finish)
        return outcome

    def _answered(self, request: Message, type_name: str, succeeded: Callable[..., dict[str, object]],
                  failed: Callable[[str], dict[str, object]], extra: Mapping[str, object] | None = None) -> Future[Message]:
        response: Future[Message] = Future()
        self._inquire(request).add_done_callback(
            lambda done: response.set_result(self._response(type_name, done, succeeded, failed, extra or {})))
        return response

    def _inquire(self, request: Message, partial: PartialAnswer | None = None, job: Job | None = None) -> Future[Answer]:
        refused: Future[Answer] = Future()
        worker = self._worker
        try:
            if worker is None:
                raise QuestionError('the node is not active. Activate it, then ask again.')
            question = question_from_request(request)
            if not question.text and question.region is None:
                raise QuestionError('the question is empty. Write one, or give a region to have it described.')
        except QuestionError as error:
            with self._health.held() as health:
                health.questions += 1
                health.failed_questions[type(error).__name__] += 1
            refused.set_exception(error)
            return refused
        inquiry: Inquiry = worker.ask(question, partial, job.cancelled if job is not None else None)
        return inquiry.answer

    def _response(self, type_name: str, done: Future[Answer], succeeded: Callable[..., dict[str, object]],
                  failed: Callable[[str], dict[str, object]], extra: Mapping[str, object]) -> Message:
        error = done.exception()
        if error is not None:
            if not isinstance(error, PenguinError):
                self._log.error(f'a question failed: {type(error).__name__}: {error}')
            return self._bus.new(type_name, **failed(str(error)), **extra)
        answer = done.result()
        answer = replace(answer, age_ms=self._age_ms(answer.stamp_ns))
        return self._bus.new(type_name, **succeeded(self._bus.new, answer), **extra)


def _no_answer(reason: str) -> dict[str, object]:
    return {'success': False, 'message': reason, 'choice': -1}


def _no_description(reason: str) -> dict[str, object]:
    return {'success': False, 'message': reason}


def _close_all(handles: list[Handle]) -> None:
    while handles:
        handles.pop().close()
