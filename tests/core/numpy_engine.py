"""A tiny Penguin-VL in numpy with random weights: the contract of core/engine.py, so that the core is tested without a runtime.

It computes for real (attention over a cache, rotary positions, grouped heads); only its weights are meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from penguin_ros.core.engine import LanguageSpec, Piece, VisionSpec, VisualTokens
from penguin_ros.core.errors import EngineError
from penguin_ros.core.prompt import SPECIAL_TOKENS
from penguin_ros.core.rotary import decoder_tables
from penguin_ros.core.words import Words

WIDTH, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 24, 4, 2, 8, 2


def byte_words() -> Words:
    """A tokenizer with one token per byte and the control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return Words(tokenizer)


@dataclass
class NumpyCache:
    capacity_rows: int
    keys: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.keys = np.zeros((LAYERS, self.capacity_rows, KV_HEADS, HEAD_DIM))
        self.values = np.zeros_like(self.keys)

    @property
    def row_bytes(self) -> int:
        return 2 * LAYERS * KV_HEADS * HEAD_DIM * 8


class NumpyVision:
    """Each visual token is a random projection of its patches' mean; counts its calls."""

    def __init__(self, seed: int = 0, max_patches: int = 4096) -> None:
        self.spec = VisionSpec(patch_px=14, merge=2, head_dim=8, rope_theta=100.0, width=WIDTH, max_patches=max_patches)
        self.encoded_tokens: list[int] = []
        self._weights = np.random.default_rng(seed).normal(size=(588, WIDTH)) / 8.0

    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> VisualTokens:
        if len(patches) > self.spec.max_patches or len(patches) != grid[0] * grid[1]:
            raise EngineError(f'{len(patches)} patches do not fit a grid of {grid} and {self.spec.max_patches}.')
        tokens = patches.reshape(-1, 4, 588).mean(axis=1) @ self._weights
        self.encoded_tokens.append(len(tokens))
        return VisualTokens(len(tokens), tokens)


class NumpyLanguage:
    """Two layers of grouped attention and a projection onto the vocabulary, in float64; remembers how it was called."""

    def __init__(self, seed: int = 0, vocabulary: int = 300, max_positions: int = 2048) -> None:
        rng = np.random.default_rng(seed)
        self.spec = LanguageSpec(layers=LAYERS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, width=WIDTH, vocabulary=vocabulary,
                                 rope_theta=1e4, max_positions=max_positions, max_append=64, image_token_id=256)
        self.appended_rows: list[int] = []
        self.moved_rows = 0
        self._embeddings = rng.normal(size=(vocabulary, WIDTH))
        self._layers = [{name: rng.normal(size=shape) / np.sqrt(shape[0]) for name, shape in (
            ('q', (WIDTH, HEADS * HEAD_DIM)), ('k', (WIDTH, KV_HEADS * HEAD_DIM)), ('v', (WIDTH, KV_HEADS * HEAD_DIM)),
            ('o', (HEADS * HEAD_DIM, WIDTH)), ('mlp', (WIDTH, WIDTH)))} for _ in range(LAYERS)]
        self._head = rng.normal(size=(WIDTH, vocabulary))

    def new_cache(self, capacity_rows: int) -> NumpyCache:
        return NumpyCache(capacity_rows)

    def append(self, cache: NumpyCache, pieces: Sequence[Piece], *, start: int, positions: np.ndarray,
               visible: np.ndarray, logits_for: Sequence[int]) -> np.ndarray:
        hidden = np.concatenate([p.data if isinstance(p, VisualTokens) else self._embeddings[p] for p in pieces])
        count = len(hidden)
        assert start >= 1
        assert len(visible) == start
        assert not visible[0], 'row 0 is reserved'
        assert len(positions) == count
        assert positions.max(initial=0) < self.spec.max_positions
        if start + count > cache.capacity_rows:
            raise EngineError(f'{count} rows do not fit behind row {start} of {cache.capacity_rows}.')
        self.appended_rows.append(count)
        cos, sin = decoder_tables(positions, head_dim=HEAD_DIM, theta=self.spec.rope_theta)
        mask = np.full((count, start + count), -np.inf)
        mask[:, :start][:, visible] = 0.0
        mask[:, start:][np.tril_indices(count)] = 0.0
        rows = slice(start, start + count)
        for number, layer in enumerate(self._layers):
            normed = _normalise(hidden)
            query = _rotate(normed @ layer['q'], HEADS, cos, sin)
            cache.keys[number, rows] = _rotate(normed @ layer['k'], KV_HEADS, cos, sin)
            cache.values[number, rows] = (normed @ layer['v']).reshape(count, KV_HEADS, HEAD_DIM)
            keys = np.repeat(cache.keys[number, :start + count], HEADS // KV_HEADS, axis=1)
            values = np.repeat(cache.values[number, :start + count], HEADS // KV_HEADS, axis=1)
            scores = np.einsum('thd,shd->hts', query, keys) / np.sqrt(HEAD_DIM) + mask
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            hidden = hidden + np.einsum('hts,shd->thd', weights, values).reshape(count, -1) @ layer['o']
            hidden = hidden + np.tanh(_normalise(hidden) @ layer['mlp'])
        return (_normalise(hidden[list(logits_for)]) @ self._head).astype(np.float32)

    def move_rows(self, cache: NumpyCache, *, source: int, target: int, count: int) -> None:
        assert target <= source
        self.moved_rows += count
        for buffer in (cache.keys, cache.values):
            buffer[:, target:target + count] = buffer[:, source:source + count].copy()


def _normalise(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x ** 2).mean(axis=-1, keepdims=True) + 1e-6)


def _rotate(x: np.ndarray, heads: int, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    x = x.reshape(len(x), heads, HEAD_DIM)
    first, second = np.split(x, 2, axis=-1)
    return x * cos + np.concatenate([-second, first], axis=-1) * sin
