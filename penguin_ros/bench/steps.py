"""What each step of a caption costs at given shapes, in our torch backend and in plain transformers, in one run.

Both have the same random weights and see the same frames and words. Random weights say nothing worth reading; that both say
the same is checked all the same. The scene is the one `penguin plan` computes with (backends/roofline.py). Knows no policy.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from penguin_ros.backends.roofline import Scene
from penguin_ros.backends.torch import TorchLanguageEngine, TorchVisionEngine
from penguin_ros.bench.plain import PlainPenguin
from penguin_ros.core.decode import VERIFY_TOKENS, Decoded, Limits, decode
from penguin_ros.core.engine import Piece
from penguin_ros.core.stream import Stream, StreamPoint
from penguin_ros.core.words import Words
from penguin_ros.model.definition import PenguinVL

CACHE_ROWS = 4096
HEAD_ROWS, LEAD_ROWS = 4, 11        # of words before the first frame and before each
NO_END = -1                         # no token ends a caption
Progress = Callable[[str, int, int], None]


class Scenery:
    """Frames and words of a scene, random and the same each time."""

    def __init__(self, model: PenguinVL, scene: Scene, merge: int) -> None:
        side = math.isqrt(scene.frame_tokens) * merge
        self.grid = side, scene.frame_tokens * merge**2 // side
        generator = np.random.default_rng(0)
        count = 1 + scene.kept_tokens // scene.frame_tokens
        self.frames = generator.uniform(-1, 1, (count, self.grid[0] * self.grid[1], model.config.encoder.patch_values)
                                        ).astype(np.float32)
        most = min(model.config.decoder.vocabulary, model.config.image_token_id)
        self.head, self.prompt = generator.integers(0, most, HEAD_ROWS), generator.integers(0, most, scene.prompt_rows)
        self.leads = generator.integers(0, most, (count, LEAD_ROWS))
        self.some_ids = generator.integers(0, most, VERIFY_TOKENS)


class Ours:
    """A stream that keeps the earlier frames, and what a tick does behind them."""

    def __init__(self, model: PenguinVL, words: Words, scenery: Scenery, caption_tokens: int) -> None:
        self.vision, self.language = TorchVisionEngine(model), TorchLanguageEngine(model)
        self._scenery = scenery
        self._limits = Limits(caption_tokens)
        self._stream = Stream(self.language, words, CACHE_ROWS)
        self._frames = [self.vision.encode(frame, scenery.grid) for frame in scenery.frames]
        kept: list[Piece] = [scenery.head]
        for lead, frame in zip(scenery.leads, self._frames[:-1]):
            kept += [lead, frame]
        self._kept = kept
        self._new: list[Piece] = [scenery.leads[-1], self._frames[-1], scenery.prompt]
        self._behind_kept, _ = self._stream.append(self._stream.end, kept, ())
        self._behind_all = self.read_new()[0]

    def encode(self) -> None:
        self.vision.encode(self._scenery.frames[-1], self._scenery.grid)

    def read_new(self) -> tuple[StreamPoint, np.ndarray]:
        """The new frame and the instruction behind the kept frames; logits of the last row."""
        return self._stream.append(self._behind_kept, self._new, [_rows(self._new) - 1])

    def read_all(self) -> None:
        pieces = [*self._kept, *self._new]
        self._stream.append(self._stream.end, pieces, [_rows(pieces) - 1])

    def next_token(self) -> None:
        self._stream.append(self._behind_all, [self._scenery.some_ids[:1]], [0])

    def verify(self) -> None:
        self._stream.append(self._behind_all, [self._scenery.some_ids], range(VERIFY_TOKENS))

    def caption(self, draft: list[int]) -> Decoded:
        """A whole tick: encode the new frame, read it, write a caption."""
        scenery = self._scenery
        frame = self.vision.encode(scenery.frames[-1], scenery.grid)
        behind, _ = self._stream.append(self._behind_kept, [scenery.leads[-1], frame], ())
        return decode(self._stream, [scenery.prompt], end_id=NO_END, limits=self._limits, at=behind, draft=draft)


class Plain:
    """The same tick with transformers: every frame of the window, then `generate`."""

    def __init__(self, model: PenguinVL, scenery: Scenery, merge: int, caption_tokens: int) -> None:
        self._scenery, self._caption_tokens = scenery, caption_tokens
        self._penguin = PlainPenguin(model, merge)
        self._prompt = self._whole_prompt()
        self.logits, self._cache = self._penguin.read(self._prompt)

    def encode(self) -> None:
        self._penguin.encode(self._scenery.frames[-1], self._scenery.grid)

    def read_all(self) -> None:
        self._penguin.read(self._prompt)

    def next_token(self) -> None:
        self._penguin.next_token(int(self._scenery.some_ids[0]), self._cache)

    def caption(self) -> list[int]:
        """A whole tick."""
        return self._penguin.generate(self._whole_prompt(), self._caption_tokens)

    def _whole_prompt(self) -> torch.Tensor:
        scenery, plain = self._scenery, self._penguin
        parts = [plain.embed(scenery.head)]
        for lead, frame in zip(scenery.leads, scenery.frames):
            parts += [plain.embed(lead), plain.encode(frame, scenery.grid)]
        return torch.cat([*parts, plain.embed(scenery.prompt)])


def measure_steps(model: PenguinVL, words: Words, *, repeats: int, progress: Progress, scene: Scene | None = None
                  ) -> dict[str, Any]:
    """Medians of ``repeats`` of every step, and of a third as many whole ticks; all in milliseconds."""
    import transformers

    scene = scene or Scene()
    weight = model.decoder.norm.weight
    on_gpu = weight.is_cuda
    merge = 2
    done = 0

    def timed(what: str, call: Callable[[], object], times: int) -> dict[str, float]:
        nonlocal done
        progress(f'steps: {what}', done, 13)
        done += 1
        if on_gpu:
            call()          # records graphs, chooses kernels
        return _timed(call, times, on_gpu)

    scenery = Scenery(model, scene, merge)
    ours = Ours(model, words, scenery, scene.caption_tokens)
    plain = Plain(model, scenery, merge, scene.caption_tokens)
    ticks = max(1, repeats // 3)
    new_rows, all_rows = _rows(ours._new), _rows([*ours._kept, *ours._new])
    patches = scenery.grid[0] * scenery.grid[1]
    plain_encode = timed('plain encode', plain.encode, repeats)
    plain_all = timed('plain prefill', plain.read_all, repeats)
    plain_token = timed('plain token', plain.next_token, repeats)
    steps = [
        _step(f'encode a frame: {scene.frame_tokens} visual tokens, {patches} patches',
              timed('encode', ours.encode, repeats), plain_encode),
        _step(f'prefill what is new: {new_rows} rows (transformers: the whole window, {all_rows} rows)',
              timed('prefill', ours.read_new, repeats), plain_all),
        _step(f'prefill the whole window: {all_rows} rows', timed('prefill all', ours.read_all, repeats), plain_all),
        _step(f'decode a token behind {all_rows} rows', timed('token', ours.next_token, repeats), plain_token),
        _step(f'verify {VERIFY_TOKENS} drafted tokens (transformers: as many tokens, computed)',
              timed('verify', ours.verify, repeats), {name: VERIFY_TOKENS * ms for name, ms in plain_token.items()})]
    ours.read_new()     # verify wrote behind it, the whole window over it
    text = _steady_text(ours)
    draft = _partly_wrong(text, model, scene.accepted)
    written: dict[str, Any] = {}
    window_frames = len(scenery.frames)
    plain_tick = timed('plain tick', lambda: written.update(plain=plain.caption()), ticks)
    kept_visual = {name: max(0.0, ms - (window_frames - 1) * plain_encode[name]) for name, ms in plain_tick.items()}
    drafted = timed('drafted tick', lambda: written.update(drafted=ours.caption(draft)), ticks)
    undrafted = timed('tick', lambda: written.update(undrafted=ours.caption([])), ticks)
    steps += [
        _step(f'a caption of {scene.caption_tokens} tokens, the last as draft', drafted, plain_tick),
        _step(f'a caption of {scene.caption_tokens} tokens without a draft', undrafted, plain_tick),
        _step('the same, had transformers kept visual tokens of earlier frames (computed)', undrafted, kept_visual)]
    progress('steps', 13, 13)
    logits = ours.read_new()[1][0]
    reference = plain.logits.float().cpu().numpy()
    return {
        'device': torch.cuda.get_device_name(weight.device) if on_gpu else f'CPU, threads: {torch.get_num_threads()}',
        'is_gpu': on_gpu, 'graphs': on_gpu, 'dtype': str(weight.dtype).removeprefix('torch.'),
        'software': f'PyTorch {torch.__version__}, transformers {transformers.__version__}'
                    + (f', CUDA {torch.version.cuda}' if on_gpu else ''),
        'encoder_layers': model.config.encoder.layers, 'decoder_layers': model.config.decoder.layers,
        'parameters': sum(parameter.numel() for parameter in model.parameters()), 'scene': asdict(scene), 'repeats': repeats,
        'ticks': ticks, 'steps': steps, 'drafted_passes': written['drafted'].passes,
        'undrafted_passes': written['undrafted'].passes, 'drafted_right': written['drafted'].accepted,
        'logits_difference': float(np.abs(logits - reference).max() / np.abs(reference).max()),
        'same_tokens': _same_tokens(written['undrafted'].ids, written['plain'])}


def _steady_text(ours: Ours) -> list[int]:
    """What is written with itself as the draft.

    In 16 bits a pass over many rows rounds otherwise than one over one row, and near-equal logits, of which random weights
    have many, may then change places. A text that its own verification confirms is what a trained model gives at once.
    """
    text = ours.caption([]).ids
    for _ in range(3):
        again = ours.caption(text).ids
        if again == text:
            break
        text = again
    return text


def _partly_wrong(text: list[int], model: PenguinVL, right: float) -> list[int]:
    """A draft in which the given share of tokens is right, the wrong ones evenly spread."""
    every = round(1 / (1 - right)) if right < 1 else len(text) + 1
    most = min(model.config.decoder.vocabulary, model.config.image_token_id)
    return [(token + 1) % most if index % every == every - 1 else token for index, token in enumerate(text)]


def _same_tokens(ours: list[int], plain: list[int]) -> int:
    """How many tokens both begin with alike."""
    return next((index for index, (one, other) in enumerate(zip(ours, plain)) if one != other), min(len(ours), len(plain)))


def _step(name: str, ours: dict[str, float], plain: dict[str, float]) -> dict[str, Any]:
    return {'name': name, 'ours_ms': ours['wall'], 'ours_cpu_ms': ours['cpu'], 'plain_ms': plain['wall'],
            'plain_cpu_ms': plain['cpu']}


def _rows(pieces: list[Piece]) -> int:
    return sum(len(piece) if isinstance(piece, np.ndarray) else piece.count for piece in pieces)


def _timed(call: Callable[[], object], times: int, on_gpu: bool) -> dict[str, float]:
    """Medians; wall time until the device is done, and CPU time of the process, which other work does not lengthen."""
    wall_ms, cpu_ms = [], []
    for _ in range(times):
        _wait(on_gpu)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        call()
        _wait(on_gpu)
        wall_ms.append((time.perf_counter() - began_s) * 1e3)
        cpu_ms.append((time.process_time() - cpu_s) * 1e3)
    return {'wall': statistics.median(wall_ms), 'cpu': statistics.median(cpu_ms)}


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
