"""Count what engines do, call by call: tokens, rows and multiply-adds. Knows nothing of why they are called.

Multiply-adds are computed from the shapes of each call and the model's configuration, so they are the same on every
machine. Norms, rotations and activations are left out: below 1 % of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from penguin_ros.core.engine import KVCache, LanguageEngine, Piece, VisionEngine, VisualTokens
from penguin_ros.model.config import BlockConfig, PenguinVLConfig


@dataclass
class Work:
    """What was done, summed up."""

    frames_encoded: int = 0
    tokens_encoded: int = 0         # visual tokens the encoder put out
    tokens_read: int = 0            # visual tokens the decoder read
    rows_read: int = 0              # words and visual tokens the decoder read, tokens it wrote included
    passes: int = 0                 # calls of the language engine
    encoder_macs: int = 0           # multiply-adds, projector included
    decoder_macs: int = 0

    def __sub__(self, other: Work) -> Work:
        return Work(**{field.name: getattr(self, field.name) - getattr(other, field.name) for field in fields(Work)})

    def copy(self) -> Work:
        return self - Work()


def block_macs(config: BlockConfig, rows: int, keys: int) -> int:
    """Of a stack of blocks over new ``rows`` that each look at ``keys`` rows (masked ones are computed too)."""
    heads, kv_heads = config.heads * config.head_dim, config.kv_heads * config.head_dim
    per_row = config.width * (2 * heads + 2 * kv_heads + 3 * config.mlp_width) + 2 * keys * heads
    return config.layers * rows * per_row


def encoder_macs(config: PenguinVLConfig, patches: int, tokens: int) -> int:
    """Of one frame: patch embedding, blocks, projector."""
    width, out = config.encoder.width, config.decoder.width
    projector = width * out + (config.projector_depth - 1) * out * out
    return patches * width * config.encoder.patch_values + block_macs(config.encoder, patches, patches) + tokens * projector


def decoder_macs(config: PenguinVLConfig, rows: int, past_rows: int, logit_rows: int) -> int:
    """Of one append behind ``past_rows``."""
    return (block_macs(config.decoder, rows, past_rows + rows)
            + logit_rows * config.decoder.width * config.decoder.vocabulary)


class CountingVision:
    """A vision engine, counted."""

    def __init__(self, vision: VisionEngine, config: PenguinVLConfig, work: Work) -> None:
        self._vision, self._config, self._work = vision, config, work
        self.spec = vision.spec

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        visual = self._vision.encode(patches, grid)
        self._work.frames_encoded += 1
        self._work.tokens_encoded += visual.count
        self._work.encoder_macs += encoder_macs(self._config, len(patches), visual.count)
        return visual


class CountingLanguage:
    """A language engine, counted."""

    def __init__(self, language: LanguageEngine, config: PenguinVLConfig, work: Work) -> None:
        self._language, self._config, self._work = language, config, work
        self.spec = language.spec

    def new_cache(self, capacity_rows: int) -> KVCache:
        return self._language.new_cache(capacity_rows)

    def append(self, cache: KVCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray, visible: np.ndarray,
               logits_for: Sequence[int]) -> np.ndarray:
        rows = len(positions)
        self._work.passes += 1
        self._work.rows_read += rows
        self._work.tokens_read += sum(piece.count for piece in pieces if isinstance(piece, VisualTokens))
        for first in range(0, rows, self.spec.max_append):      # the backend cuts long prompts
            count = min(self.spec.max_append, rows - first)
            self._work.decoder_macs += decoder_macs(self._config, count, start + first, 0)
        self._work.decoder_macs += decoder_macs(self._config, 0, 0, len(logits_for))
        return self._language.append(cache, pieces, start=start, positions=positions, visible=visible, logits_for=logits_for)

    def move_rows(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        self._language.move_rows(cache, source=source, target=target, count=count)
