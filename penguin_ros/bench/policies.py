"""The policies that are compared: who is looked at again, and how finely. Knows nothing of truth or of clocks.

(a) every frame in full detail, the whole window read again for every caption; (b) the same of every Nth frame only;
(c) the published TRA on the last frames as a finished clip; (d) our node on engines that keep nothing; (e) our node.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from penguin_ros.bench.counting import CountingLanguage, CountingVision, Work
from penguin_ros.bench.recompute import ForgetfulLanguage, ForgetfulVision
from penguin_ros.core.config import CameraConfig, PenguinConfig
from penguin_ros.core.decode import Limits, decode
from penguin_ros.core.frame import Frame
from penguin_ros.core.grid import Grid, native_grid
from penguin_ros.core.grounding import ground
from penguin_ros.core.health import CameraHealth, Health
from penguin_ros.core.keyframe import PublishedKeyframes
from penguin_ros.core.perception import Engines, Perception
from penguin_ros.core.pixels import patches_for_grid
from penguin_ros.core.prompt import question_tail
from penguin_ros.core.scene import GroundedPhrase, Question
from penguin_ros.core.stream import Stream
from penguin_ros.core.token_budget import published_sizes
from penguin_ros.core.worker import Inquiry
from penguin_ros.model.config import PenguinVLConfig

LOG = logging.getLogger('penguin.bench')


@dataclass(frozen=True)
class Said:
    """What a policy has to say once it was shown an image: the caption in force, and what it cost."""

    caption: str
    phrases: tuple[GroundedPhrase, ...]
    is_new: bool                # written for this image
    whole: bool                 # all frames the stream ever read are still there in full
    decode_ms: float = 0.0
    decode_passes: int = 0
    decode_tokens: int = 0


class Policy(Protocol):
    """One way to spend tokens."""

    work: Work                  # of its engines, since it was made

    def look(self, frame: Frame) -> Said: ...

    def ask(self, question: str) -> str:
        """The answer of a camera alone in the bench, from what is held of it."""
        ...

    def memory(self) -> dict[str, float]:
        """Visual tokens held, cache megabytes in use."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all policies share."""

    engines: Engines
    model: PenguinVLConfig
    config: PenguinConfig           # budget is that of all cameras together
    cameras: tuple[str, ...]
    every: int = 3                  # policy b: one frame in so many

    def counted(self, work: Work) -> Engines:
        return replace(self.engines, vision=CountingVision(self.engines.vision, self.model, work),
                       language=CountingLanguage(self.engines.language, self.model, work))


# ---- baselines ----

Sizes = Callable[[Sequence[Frame]], list[Grid]]


class WholeWindow:
    """For every frame taken: the last frames are encoded and read anew, then a caption is written token by token."""

    def __init__(self, bench: Bench, sizes: Sizes, *, every: int = 1) -> None:
        self.work = Work()
        self._engines = bench.counted(self.work)
        self._config = bench.config
        self._sizes = sizes
        self._every = every
        self._windows = {camera: deque[Frame](maxlen=bench.config.window.frames) for camera in bench.cameras}
        self._said = {camera: Said('', (), is_new=False, whole=True) for camera in bench.cameras}
        self._counts = dict.fromkeys(bench.cameras, 0)
        self._stream = Stream(self._engines.language, self._engines.words, self._engines.cache_rows)
        words, dialect = self._engines.words, self._engines.dialect
        self._prompt = words.ids(question_tail(bench.config.caption.instruction or dialect.caption_instruction))

    def look(self, frame: Frame) -> Said:
        if self._take(frame):
            self._said[frame.camera] = self._caption(frame)
        else:
            self._said[frame.camera] = replace(self._said[frame.camera], is_new=False, decode_passes=0)
        return self._said[frame.camera]

    def ask(self, question: str) -> str:
        words = self._engines.words
        decoded = decode(self._stream, [words.ids(question_tail(question))], end_id=words.end_id,
                         limits=Limits(self._config.ask.max_new_tokens))
        return words.text(decoded.ids)

    def remember(self, frame: Frame) -> None:
        """Take a frame into the window without a caption."""
        self._take(frame)

    def memory(self) -> dict[str, float]:
        return {'tokens_held': self._stream.tokens, 'cache_mb': self._stream.rows_used * self._stream.cache.row_bytes / 1e6}

    def _take(self, frame: Frame) -> bool:
        number = self._counts[frame.camera]
        self._counts[frame.camera] += 1
        if number % self._every:
            return False
        self._windows[frame.camera].append(frame)
        return True

    def _caption(self, frame: Frame) -> Said:
        window = self._windows[frame.camera]
        spec = self._engines.vision.spec
        self._stream.clear()
        for old, grid in zip(window, self._sizes(window)):
            patches = patches_for_grid(old.pixels, grid, patch_px=spec.patch_px, merge=spec.merge)
            self._stream.append_frame(old.stamp_ns, self._engines.vision.encode(patches, grid), grid, keyframe=True)
        words = self._engines.words
        decoded = decode(self._stream, [self._prompt], end_id=words.end_id, coordinates=self._engines.coordinates,
                         limits=Limits(self._config.caption.max_new_tokens))
        raw, ends = self._engines.written(decoded)
        grounded = ground(raw, ends=ends, probabilities=decoded.probabilities, height_px=frame.height_px,
                          width_px=frame.width_px)
        return Said(grounded.text, grounded.phrases, is_new=True, whole=True, decode_passes=decoded.passes,
                    decode_tokens=len(decoded.ids))


def full_detail(bench: Bench) -> Sizes:
    """Every frame at its native grid."""
    merge = bench.engines.vision.spec.merge
    return lambda window: [native_grid(frame.height_px, frame.width_px, merge=merge) for frame in window]


def published_detail(bench: Bench) -> Sizes:
    """The sizes the published rule and solver give the window as a finished clip; each camera has its part of the budget."""
    spec = bench.engines.vision.spec
    most = bench.config.token_budget.window_tokens // len(bench.cameras)

    def sizes(window: Sequence[Frame]) -> list[Grid]:
        rule = PublishedKeyframes()
        keys = [rule.offer(frame.pixels).keyframe for frame in window]
        found = published_sizes(window[0].height_px, window[0].width_px, keys=sum(keys), intermediates=len(keys) - sum(keys),
                                merge=spec.merge, min_tokens=bench.config.token_budget.min_frame_tokens, max_tokens=most)
        grids = []
        for key in keys:
            size_px = found.key_px if key else found.intermediate_px
            assert size_px is not None      # there is such a frame
            grids.append((size_px[0] // spec.patch_px, size_px[1] // spec.patch_px))
        return grids

    return sizes


# ---- ours ----

class OurNode:
    """The node's own perception, as `penguin run` has it."""

    def __init__(self, bench: Bench, *, caches: bool) -> None:
        self.work = Work()
        engines = bench.counted(self.work)
        config = bench.config
        if not caches:
            # Drafts are no part of the comparison of caches; without them every policy but the last decodes alike.
            config = replace(config, caption=replace(config.caption, drafted=False))
            engines = replace(engines, vision=ForgetfulVision(engines.vision),
                              language=ForgetfulLanguage(engines.vision, engines.language))
        health = Health(cameras={camera: CameraHealth() for camera in bench.cameras})
        self.perception = Perception(engines, config, [CameraConfig(name=camera) for camera in bench.cameras], health, LOG)
        self._read = dict.fromkeys(bench.cameras, 0)
        self._broken = dict.fromkeys(bench.cameras, False)

    def look(self, frame: Frame) -> Said:
        scene = self.perception.look(frame)
        stream = self.perception.stream_of(frame.camera)
        self._read[frame.camera] += scene.tokens.encoded > 0
        self._broken[frame.camera] |= (len(stream.frames) < self._read[frame.camera]
                                       or any(held.tokens < held.visual.count for held in stream.frames))
        return Said(scene.caption, scene.phrases, is_new=scene.captioned, whole=not self._broken[frame.camera],
                    decode_ms=scene.latency.decode_ms, decode_passes=scene.decode_passes, decode_tokens=scene.decode_tokens)

    def ask(self, question: str) -> str:
        now_s = time.monotonic()
        return self.perception.answer(Inquiry(Question(text=question), now_s, deadline_s=float('inf'))).text

    def memory(self) -> dict[str, float]:
        streams = [self.perception.stream_of(camera) for camera in self._read]
        return {'tokens_held': sum(stream.tokens for stream in streams),
                'cache_mb': sum(stream.rows_used * stream.cache.row_bytes for stream in streams) / 1e6}


POLICIES: dict[str, tuple[str, Callable[[Bench], Any]]] = {
    'a': ('all frames key, whole window again', lambda bench: WholeWindow(bench, full_detail(bench))),
    'b': ('uniform, every Nth frame, whole window again',
          lambda bench: WholeWindow(bench, full_detail(bench), every=bench.every)),
    'c': ('published TRA, whole window again', lambda bench: WholeWindow(bench, published_detail(bench))),
    'd': ('ours without caches', lambda bench: OurNode(bench, caches=False)),
    'e': ('ours', lambda bench: OurNode(bench, caches=True)),
}
