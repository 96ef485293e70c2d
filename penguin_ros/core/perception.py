"""One frame's way through, and a question's: change, budget, tokens, stream, text, boxes. Knows no engine and no middleware.

Called from the worker's thread alone; only ``reconfigure`` and the figures may come from others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from penguin_ros.core.confidence import ConfidenceScale
from penguin_ros.core.config import CameraConfig, PenguinConfig
from penguin_ros.core.coordinates import CoordinateTokens, coordinate_tokens
from penguin_ros.core.decode import Decoded, Limits, choice_probabilities, decode
from penguin_ros.core.dialect import Dialect
from penguin_ros.core.engine import LanguageEngine, VisionEngine, VisualTokens
from penguin_ros.core.errors import CancelledError, ConfigError, DeadlineError, QuestionError, StampError
from penguin_ros.core.frame import Frame, FrameRing
from penguin_ros.core.governor import Governor
from penguin_ros.core.grid import Grid, fit_grid, native_grid
from penguin_ros.core.grounding import Grounded, ground
from penguin_ros.core.health import Health
from penguin_ros.core.keyframe import KeyframeDecision, KeyframeDetector, keyframe_detector
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.scene import Answer, GroundedPhrase, Latency, Question, Scene, Status, TokenUse
from penguin_ros.core.stillness import CaptionedView
from penguin_ros.core.stream import FIRST_ROW, LEAD_ROWS, Stream
from penguin_ros.core.token_budget import HeldFrame, NewFrame, share_window
from penguin_ros.core.track import Tracker
from penguin_ros.core.words import Words
from penguin_ros.core.worker import Inquiry

HEAD_ROWS = 16                  # the words before a stream's first frame take fewer
JUMP_BACK_S = 1.0               # a stamp further back than this is a clock or a recording started again
QUESTION_WRAPPING = 24          # rows the template adds around a question
SAME_OVERLAP = 0.5              # of the boxes of one thing in a caption and in an answer


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Everything of one model, loaded and warm."""

    vision: VisionEngine
    language: LanguageEngine
    words: Words
    dialect: Dialect
    model_name: str
    engine_id: str              # first 12 hex digits of the engine's hash
    cache_rows: int             # most rows of one cache
    confidence: ConfidenceScale = field(default_factory=ConfidenceScale)
    close: Callable[[], None] = lambda: None    # gives back what the engines hold outside of this process's own memory

    @cached_property
    def coordinates(self) -> CoordinateTokens | None:
        """The tokens that are coordinates, of a model that has such."""
        return coordinate_tokens(self.words, self.dialect)

    def written(self, decoded: Decoded) -> tuple[str, list[int]]:
        """A decoded text and where each token ends in it, coordinates as fine as the model tells them."""
        return self.words.text_with_ends(decoded.ids, {
            index: self.dialect.coordinate.format(value=value) for index, value in decoded.between.items()})


@dataclass
class _Caption:
    """The last caption of a camera."""

    text: str = ''
    phrases: tuple[GroundedPhrase, ...] = ()
    ids: Sequence[int] = ()
    confidence: float = 0.0
    stamp_ns: int = 0
    passes: int = 0                 # engine calls it took


@dataclass
class _Watch:
    """What is remembered of one camera."""

    config: CameraConfig
    detector: KeyframeDetector
    stream: Stream
    ring: FrameRing
    tracker: Tracker = field(default_factory=Tracker)
    view: CaptionedView = field(default_factory=CaptionedView)
    caption: _Caption = field(default_factory=_Caption)
    newest_ns: int = 0              # stamp of the newest image looked at
    read_ns: int = 0                # stamp of the newest frame in the stream
    owes_caption: bool = True       # something changed that no caption has told yet
    owed_keyframe: KeyframeDecision | None = None   # decided, but not read yet
    dropped: int = 0


@dataclass
class _Stopwatch:
    """Where the time goes, milliseconds."""

    started_s: float
    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0

    def latency(self, received_s: float) -> Latency:
        return Latency(
            queue_ms=max(0.0, self.started_s - received_s) * 1e3, encode_ms=self.encode_ms, prefill_ms=self.prefill_ms,
            decode_ms=self.decode_ms, total_ms=(time.monotonic() - received_s) * 1e3)


class Perception:
    """Watches all cameras with one model. Implements worker.Watcher and node.Perception."""

    def __init__(self, engines: Engines, config: PenguinConfig, cameras: Sequence[CameraConfig], health: Health,
                 log: logging.Logger) -> None:
        self.model_name = engines.model_name
        self.engine_id = engines.engine_id
        # Asked between two tokens; the node sets it to its worker's wish to stop.
        self.interrupted: Callable[[], bool] = lambda: False
        self._engines = engines
        self._config = config
        self._cameras = list(cameras)
        self._health = health
        self._log = log
        self._watches: dict[str, _Watch] = {}
        self._governor = Governor()
        check_room(engines, config)
        self._closeup = Stream(engines.language, engines.words, engines.cache_rows)
        self.restart()

    # -- what the node does with it ------------------------------------------------------------------------------

    def reconfigure(self, config: PenguinConfig) -> None:
        """Put live settings into force with the next piece of work."""
        changed_detector = config.keyframe != self._config.keyframe
        self._config = config
        if changed_detector:
            for watch in self._watches.values():
                watch.detector = keyframe_detector(config.keyframe)

    def restart(self) -> None:
        """Forget all frames."""
        engines = self._engines
        self._watches = {
            camera.name: _Watch(
                config=camera, detector=keyframe_detector(self._config.keyframe),
                stream=Stream(engines.language, engines.words, engines.cache_rows),
                ring=FrameRing(self._config.window.kept_images))
            for camera in self._cameras}
        self._governor = Governor()

    def held_frame(self, camera: str, stamp_ns: int) -> Frame | None:
        """The image of this very stamp, while it is kept."""
        return next((frame for frame in self._watches[camera].ring if frame.stamp_ns == stamp_ns), None)

    def stream_of(self, camera: str) -> Stream:
        """What the model holds of one camera; to be read only."""
        return self._watches[camera].stream

    def figures(self) -> dict[str, str]:
        """What diagnostics say of the engines."""
        streams = {name: watch.stream for name, watch in self._watches.items()}
        rows = sum(stream.cache.capacity_rows for stream in (*streams.values(), self._closeup))
        return {
            'model': self.model_name, 'engine': self.engine_id, 'token budget': str(self._window_tokens),
            'tokens held': str(self._tokens_held), 'budget share': f'{self._governor.share:.2f}',
            'ladder step': self._governor.step, 'caption gap_s': f'{self._governor.caption_gap_s:g}',
            'given up': self._governor.reason or 'nothing',
            'cache_mb': f'{rows * self._closeup.cache.row_bytes / 1e6:.1f}',
            **{f'cache rows used, {name}': f'{stream.rows_used}/{stream.cache.capacity_rows}'
               for name, stream in streams.items()},
            'streams read anew': str(sum(stream.reread for stream in streams.values())),
            'cache gaps closed': str(sum(stream.compacted for stream in streams.values()))}

    def close(self) -> None:
        """Let go of caches and engines."""
        self._watches.clear()
        self._engines.close()

    # -- looking -------------------------------------------------------------------------------------------------

    def look(self, frame: Frame) -> Scene:
        """Take in one frame and say what there is to say. Raises ImageError and StampError for frames that are of no use."""
        watch = self._watches[frame.camera]
        stopwatch = _Stopwatch(time.monotonic())
        native = self._native(frame)
        self._check_stamp(watch, frame.stamp_ns)
        decision = watch.detector.offer(frame.pixels, frame.stamp_ns)
        if decision.keyframe:
            watch.owed_keyframe = decision
        # Where the engine failed on a keyframe, the next frame stands in for it.
        decision = watch.owed_keyframe or decision
        watch.ring.add(frame)
        watch.newest_ns = frame.stamp_ns
        speak = self._has_something_to_say(watch, frame, decision)
        encoded = 0
        if decision.keyframe or speak or self._is_read_due(watch, frame):
            detail = max(decision.novelty, self._config.caption.detail if speak else 0.0)
            encoded = self._read(watch, frame, native, stopwatch, keyframe=decision.keyframe, detail=detail)
            watch.owed_keyframe = None
        shortened = self._write_caption(watch, frame, stopwatch) if speak else ''
        scene = self._scene(watch, frame, decision, stopwatch, encoded=encoded, spoken=speak, shortened=shortened)
        self._governor.note(scene.latency.total_ms, self._config.latency.target_ms, time.monotonic())
        return scene

    def failed(self, camera: str, stamp_ns: int, frame_id: str, reason: str) -> Scene:
        """What to publish for a frame that the engine failed on: the last caption, marked as such."""
        watch = self._watches[camera]
        caption = watch.caption
        return Scene(camera=camera, stamp_ns=stamp_ns, frame_id=frame_id, height_px=0, width_px=0, caption=caption.text,
                     caption_stamp_ns=caption.stamp_ns, confidence=caption.confidence, status=Status.STALE,
                     reason=reason, tokens=self._token_use(watch, 0))

    def _native(self, frame: Frame) -> Grid:
        """The finest grid the image and the engine allow."""
        spec = self._engines.vision.spec
        native = native_grid(frame.height_px, frame.width_px, patch_px=spec.patch_px, merge=spec.merge)
        return fit_grid(native, spec.max_patches // spec.merge ** 2, merge=spec.merge)

    def _check_stamp(self, watch: _Watch, stamp_ns: int) -> None:
        """Refuse stamps that cannot be true; a long jump back is a recording played again, and starts the camera anew."""
        name = watch.config.name
        if stamp_ns <= 0:
            raise StampError(f'an image of camera {name} has the stamp 0, so its age cannot be told. Set header.stamp in '
                             'the camera driver to when the image was taken.')
        back_s = (watch.newest_ns - stamp_ns) / 1e9
        if back_s <= 0:
            return
        error = StampError(
            f'a stamp of camera {name} jumped back by {back_s:.3f} s. Check the clock of the camera driver, or whether two '
            'drivers publish the topic; a recording that starts again does this too.')
        if back_s <= JUMP_BACK_S:
            raise error
        with self._health.held() as health:
            health.cameras[name].note_refusal(error)
        self._log.warning(f'{error} The window of {name} starts anew.')
        watch.stream.clear()
        watch.ring.clear()
        watch.detector.reset()
        watch.tracker.clear()
        watch.view.clear()
        watch.caption, watch.read_ns, watch.owes_caption, watch.owed_keyframe = _Caption(), 0, True, None

    def _has_something_to_say(self, watch: _Watch, frame: Frame, decision: KeyframeDecision) -> bool:
        settings = self._config.caption
        since_s = (frame.stamp_ns - watch.caption.stamp_ns) / 1e9
        due = 0 < settings.refresh_s <= since_s
        moved = not self._governor.keyframes_only and watch.view.moved(frame.pixels)
        watch.owes_caption = watch.owes_caption or decision.keyframe or due or moved
        interval_s = max(settings.interval_s, self._governor.caption_gap_s)
        return watch.owes_caption and (not watch.caption.stamp_ns or since_s >= interval_s)

    def _is_read_due(self, watch: _Watch, frame: Frame) -> bool:
        return (frame.stamp_ns - watch.read_ns) / 1e9 >= self._config.window.interval_s

    def _read(self, watch: _Watch, frame: Frame, native: Grid, stopwatch: _Stopwatch, *, keyframe: bool, detail: float) -> int:
        """Make room, encode the frame and append it to the stream; returns the visual tokens encoded."""
        grid = self._make_room(watch, frame, native, keyframe=keyframe, detail=detail)
        visual = self._encode(frame, grid, stopwatch)
        begun_s = time.monotonic()
        watch.stream.append_frame(frame.stamp_ns, visual, grid, keyframe=keyframe)
        watch.read_ns = frame.stamp_ns
        stopwatch.prefill_ms += (time.monotonic() - begun_s) * 1e3
        return visual.count

    def _encode(self, frame: Frame, grid: Grid, stopwatch: _Stopwatch) -> VisualTokens:
        begun_s = time.monotonic()
        spec = self._engines.vision.spec
        patches = patches_for_grid(frame.pixels, grid, patch_px=spec.patch_px, merge=spec.merge)
        visual = self._engines.vision.encode(patches, grid)
        stopwatch.encode_ms += (time.monotonic() - begun_s) * 1e3
        return visual

    def _write_caption(self, watch: _Watch, frame: Frame, stopwatch: _Stopwatch) -> str:
        """Ask for a caption of the newest frame; returns why it is not whole, or nothing."""
        settings = self._config.caption
        prompt = self._engines.words.ids(question_tail(settings.instruction or self._engines.dialect.caption_instruction))
        watch.stream.make_question_room(len(prompt) + settings.max_new_tokens)
        begun_s = time.monotonic()
        decoded = decode(
            watch.stream, [prompt], end_id=self._engines.words.end_id, coordinates=self._engines.coordinates,
            draft=watch.caption.ids if settings.drafted else (),
            limits=Limits(settings.max_new_tokens, begun_s + settings.deadline_s, self.interrupted))
        stopwatch.decode_ms += (time.monotonic() - begun_s) * 1e3
        grounded = self._ground(decoded, frame)
        with self._health.held() as health:
            health.cameras[frame.camera].malformed_boxes += grounded.malformed
        watch.caption = _Caption(grounded.text, watch.tracker.follow(grounded.phrases, frame.stamp_ns), decoded.ids,
                                 self._engines.confidence.caption(decoded.confidence), frame.stamp_ns, decoded.passes)
        watch.view.remember(frame.pixels)
        watch.owes_caption = False
        return {'end': '', 'length': f'the caption was cut off at {settings.max_new_tokens} tokens',
                'deadline': f'the caption was cut off after {settings.deadline_s:g} s',
                'cancelled': 'the caption was cut off'}[decoded.stopped]

    def _ground(self, decoded: Decoded, frame: Frame) -> Grounded:
        raw, ends = self._engines.written(decoded)
        return ground(raw, ends=ends, probabilities=decoded.probabilities, height_px=frame.height_px, width_px=frame.width_px,
                      scale=self._engines.confidence.phrase)

    def _scene(self, watch: _Watch, frame: Frame, decision: KeyframeDecision, stopwatch: _Stopwatch, *, encoded: int,
               spoken: bool, shortened: str) -> Scene:
        caption = watch.caption
        reasons = [reason for reason in (shortened, self._governor.reason) if reason]
        return Scene(
            camera=frame.camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, height_px=frame.height_px,
            width_px=frame.width_px, caption=caption.text, phrases=caption.phrases, keyframe=decision.keyframe,
            keyframe_reason=decision.reason, unchanged=not spoken and not watch.owes_caption, caption_stamp_ns=caption.stamp_ns,
            confidence=caption.confidence, status=Status.DEGRADED if reasons else Status.OK, reason='; '.join(reasons),
            tokens=self._token_use(watch, encoded), latency=stopwatch.latency(frame.received_s),
            decode_passes=caption.passes if spoken else 0, decode_tokens=len(caption.ids) if spoken else 0)

    # -- the token budget ----------------------------------------------------------------------------------------

    @property
    def _window_tokens(self) -> int:
        """Visual tokens that may be held at this moment, all cameras together."""
        budget = self._config.token_budget
        least = 2 * budget.min_frame_tokens * len(self._watches)    # a grid of whole tokens may need more than the minimum
        return max(int(budget.window_tokens * self._governor.share), min(least, budget.window_tokens))

    def _make_room(self, watch: _Watch, frame: Frame, native: Grid, *, keyframe: bool, detail: float) -> Grid:
        """Let go of what the budget has no room for beside a new frame; returns the new frame's grid."""
        held = [(other, old) for other in self._watches.values() for old in other.stream.frames]
        held.sort(key=lambda pair: pair[1].stamp_ns)
        live = {name for name, other in self._watches.items()
                if other.stream.frames and frame.stamp_ns - other.newest_ns <= self._config.latency.stale_after_s * 1e9}
        merge = self._engines.vision.spec.merge
        plan = share_window(
            replace(self._config.token_budget, window_tokens=self._window_tokens),
            [HeldFrame(other.config.name, (frame.stamp_ns - old.stamp_ns) / 1e9, old.keyframe, old.tokens)
             for other, old in held],
            NewFrame(frame.camera, native, keyframe, detail), live=live, merge=merge,
            most_frames=self._config.window.frames)
        for (other, old), tokens in zip(held, plan.kept):
            if tokens == 0:
                other.stream.drop(old)
                other.dropped += 1
            else:
                other.stream.thin(old, tokens)
        assert plan.grid is not None    # there was a new frame
        return plan.grid

    @property
    def _tokens_held(self) -> int:
        return sum(watch.stream.tokens for watch in self._watches.values())

    def _token_use(self, watch: _Watch, encoded: int) -> TokenUse:
        frames = watch.stream.frames
        return TokenUse(
            limit=self._window_tokens, used=self._tokens_held, encoded=encoded,
            reused=max(0, watch.stream.tokens - encoded), frames=len(frames),
            keyframes=sum(frame.keyframe for frame in frames), dropped=watch.dropped)

    # -- questions -----------------------------------------------------------------------------------------------

    def answer(self, inquiry: Inquiry) -> Answer:
        """Answer a question about now, in the camera's own stream, or about a region or a past frame, from a closer look."""
        question = inquiry.question
        watch = self._watches[question.camera] if question.camera else next(iter(self._watches.values()))
        stopwatch = _Stopwatch(time.monotonic())
        frame = self._frame_in_question(watch, question)
        prompt = self._prompt(question, frame)
        if question.region is not None or question.stamp_ns:
            stream = self._look_closely(frame, stopwatch)
        else:
            stream = watch.stream
            if watch.read_ns != frame.stamp_ns:     # the newest image was too like the last to be read; now it matters
                self._read(watch, frame, self._native(frame), stopwatch, keyframe=False, detail=self._config.caption.detail)
        settings = self._config.ask
        limits = Limits(settings.max_new_tokens, inquiry.deadline_s,
                        lambda: inquiry.cancelled.is_set() or self.interrupted())
        stream.make_question_room(len(prompt) + settings.max_new_tokens)
        begun_s = time.monotonic()
        if question.choices:
            answer = self._choose(stream, prompt, question, frame, watch, limits)
        else:
            answer = self._write_answer(stream, prompt, inquiry, frame, watch, limits)
        _check_whole(limits, inquiry)
        stopwatch.decode_ms = (time.monotonic() - begun_s) * 1e3
        return replace(answer, latency=stopwatch.latency(inquiry.received_s))

    def _frame_in_question(self, watch: _Watch, question: Question) -> Frame:
        frame = watch.ring.at(question.stamp_ns) if question.stamp_ns else watch.ring.newest
        if frame is None:
            raise StampError(f'camera {watch.config.name} has not delivered an image yet. Check its topic, or ask again later.')
        region = question.region
        if region is not None and not (0 <= region.x_min < region.x_max <= frame.width_px
                                       and 0 <= region.y_min < region.y_max <= frame.height_px):
            raise QuestionError(
                f'the region x {region.x_min:.0f} to {region.x_max:.0f}, y {region.y_min:.0f} to {region.y_max:.0f} does not '
                f'lie in the {frame.width_px}x{frame.height_px} px image. Give offsets and sizes in pixels of that image.')
        return frame

    def _prompt(self, question: Question, frame: Frame) -> np.ndarray:
        text = question.text
        if question.region is not None:
            text = self._engines.dialect.with_region(text, question.region, width_px=frame.width_px, height_px=frame.height_px)
        ids = self._engines.words.ids(question_tail(text))
        most = self._config.ask.max_prompt_tokens
        if len(ids) > most:
            raise QuestionError(f'the question has {len(ids)} tokens; {most} may be asked. Shorten it, or raise '
                                'ask.max_prompt_tokens.')
        return ids

    def _look_closely(self, frame: Frame, stopwatch: _Stopwatch) -> Stream:
        """A stream of just this frame, at the most detail a question may cost."""
        spec = self._engines.vision.spec
        most = min(self._config.ask.detail_tokens, spec.max_patches // spec.merge ** 2)
        grid = fit_grid(self._native(frame), most, merge=spec.merge)
        visual = self._encode(frame, grid, stopwatch)
        begun_s = time.monotonic()
        self._closeup.clear()
        self._closeup.append_frame(frame.stamp_ns, visual, grid, keyframe=True)
        stopwatch.prefill_ms += (time.monotonic() - begun_s) * 1e3
        return self._closeup

    def _write_answer(self, stream: Stream, prompt: np.ndarray, inquiry: Inquiry, frame: Frame, watch: _Watch,
                      limits: Limits) -> Answer:
        partial = inquiry.partial

        def on_tokens(decoded: Decoded) -> None:
            if partial is not None:
                partial(self._ground(decoded, frame).text, len(decoded.ids))

        decoded = decode(stream, [prompt], end_id=self._engines.words.end_id, limits=limits,
                         coordinates=self._engines.coordinates, on_tokens=on_tokens)
        if decoded.stopped in ('cancelled', 'deadline'):
            _check_whole(limits, inquiry, written=len(decoded.ids))
        grounded = self._ground(decoded, frame)
        with self._health.held() as health:
            health.cameras[frame.camera].malformed_boxes += grounded.malformed
        return Answer(text=grounded.text, camera=frame.camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id,
                      phrases=self._with_tracks(grounded.phrases, watch),
                      confidence=self._engines.confidence.answer(decoded.confidence))

    def _with_tracks(self, phrases: Sequence[GroundedPhrase], watch: _Watch) -> tuple[GroundedPhrase, ...]:
        """Each phrase with the track id of what the last caption tells of in the same words and place; 0 where it does not."""
        known = list(watch.caption.phrases)

        def track_of(phrase: GroundedPhrase) -> int:
            # Caption and answer each tell edges behind words of their own, so the boxes of one thing differ by some pixels.
            alike = [(phrase.region.overlap(other.region), index) for index, other in enumerate(known)
                     if phrase.region and other.region and other.text == phrase.text]
            overlap, index = max(alike, default=(0.0, 0))
            return known.pop(index).track_id if overlap >= SAME_OVERLAP else 0

        return tuple(replace(phrase, track_id=track_of(phrase)) for phrase in phrases)

    def _choose(self, stream: Stream, prompt: np.ndarray, question: Question, frame: Frame, watch: _Watch,
                limits: Limits) -> Answer:
        choices = question.choices
        if len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
            raise QuestionError('two choices are the same, or one is empty. Give each its own words.')
        words = self._engines.words
        probabilities = self._engines.confidence.choices(choice_probabilities(
            stream, [prompt], [words.ids(choice) for choice in choices], end_id=words.end_id, limits=limits))
        best = int(probabilities.argmax())
        return Answer(text=choices[best], camera=frame.camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, choice=best,
                      probabilities=tuple(float(value) for value in probabilities), confidence=float(probabilities[best]))


def _check_whole(limits: Limits, inquiry: Inquiry, written: int = 0) -> None:
    """Raise why an answer is not whole, where it is not."""
    stopped = limits.stop(0)
    if stopped == 'cancelled':
        raise CancelledError(f'the question was cancelled after {written} tokens of the answer.')
    if stopped == 'deadline':
        raise DeadlineError(
            f'no whole answer within {inquiry.deadline_s - inquiry.received_s:.1f} s ({written} tokens were written). '
            'Allow a longer timeout, or lower ask.max_new_tokens.')


def check_room(engines: Engines, config: PenguinConfig) -> None:
    """See to it that budget, words and answers fit the cache and the model's positions. Raises ConfigError."""
    spec = engines.language.spec
    room = min(engines.cache_rows, spec.max_positions + FIRST_ROW)
    words = HEAD_ROWS + LEAD_ROWS * (config.window.frames + 1) + QUESTION_WRAPPING + max(
        config.ask.max_prompt_tokens + config.ask.max_new_tokens, config.caption.max_new_tokens + QUESTION_WRAPPING)
    tokens = max(config.token_budget.window_tokens, config.ask.detail_tokens)
    needed = FIRST_ROW + words + tokens
    if needed > room:
        raise ConfigError(
            f'{tokens} visual tokens in {config.window.frames} frames, with words, question and answer, need {needed} cache '
            f'rows; this engine has {room} (cache {engines.cache_rows}, positions {spec.max_positions}). '
            f'Lower token_budget.window_tokens to {max(0, room - FIRST_ROW - words)} or less, or window.frames.')
