"""What a Jetson Orin module could do with a recipe: time from arithmetic and bandwidth, memory from sizes. Measures nothing.

A step takes as long as its multiplications or its bytes take, whichever is longer, divided by the share of the peak that
software reaches. NVIDIA's own runtime reaches 40 to 55 % of the arithmetic and 45 to 80 % of the bandwidth on these
modules, so half is a fair first promise. Source, and the table this reproduces at 100 %: reference/tensorrt.md 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penguin_ros.backends.recipe import Recipe
from penguin_ros.core.decode import VERIFY_TOKENS
from penguin_ros.model.config import BlockConfig, PenguinVLConfig

EFFICIENCY = 0.5            # share of peak arithmetic and of bandwidth
SYSTEM_GB = 1.6             # what Linux, ROS 2 and a camera driver keep of the shared memory (no desktop)
RUNTIME_GB = 0.9            # Python, OpenCV, CUDA context, TensorRT's libraries and kernels
BYTES_PER_WEIGHT = {'fp32': 4.0, 'fp16': 2.0, 'int8': 1.0, 'int4': 0.516}   # INT4: with one FP16 scale in 128 weights
_FLOPS_PER_TENSOR_CORE_CLOCK = 512      # dense FP16
_LEAD_ROWS = 12             # words that announce a frame
_CLOSEUP_CACHES = 1         # beside one cache per camera, one for questions about a region


@dataclass(frozen=True)
class Module:
    """One Orin module in one power mode. Clocks and bandwidth are NVIDIA's published ones."""

    name: str
    memory_gb: float
    tensor_cores: int
    clock_ghz: float
    bandwidth_gb_s: float

    @property
    def fp16_tflops(self) -> float:
        return self.tensor_cores * _FLOPS_PER_TENSOR_CORE_CLOCK * self.clock_ghz / 1e3


MODULES = {
    'agx-orin-64gb': Module('AGX Orin 64GB', 64, 64, 1.30, 204.8),
    'agx-orin-32gb': Module('AGX Orin 32GB', 32, 56, 0.93, 204.8),
    'orin-nx-16gb': Module('Orin NX 16GB', 16, 32, 0.918, 102.4),
    'orin-nx-16gb-super': Module('Orin NX 16GB Super', 16, 32, 1.173, 102.4),
    'orin-nx-8gb': Module('Orin NX 8GB', 8, 32, 0.765, 102.4),
    'orin-nano-8gb': Module('Orin Nano 8GB', 8, 32, 0.625, 68.0),
    'orin-nano-8gb-super': Module('Orin Nano 8GB Super', 8, 32, 1.02, 102.4)}


@dataclass(frozen=True)
class Published:
    """A measurement by others of a model with the same decoder."""

    module: str
    encode_ms: float        # 265 visual tokens, a vision tower of four patches per token, FP16
    prefill_ms: float       # 292 tokens, INT4 weights
    token_ms: float         # INT4 weights


PUBLISHED_AS = ('Qwen3-VL-2B, INT4 weights, batch 1: NVIDIA TensorRT-Edge-LLM 0.9.0 on JetPack 7.2, performance-benchmarks.md')
PUBLISHED = (Published('agx-orin-64gb', 39, 50, 1000 / 98.4), Published('orin-nx-16gb', 82, 103, 1000 / 60.1),
             Published('orin-nano-8gb', 151, 191, 1000 / 36.9))
PUBLISHED_PATCHES, PUBLISHED_PROMPT = 4 * 265, 292


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How the weights are kept and multiplied."""

    vision: str = 'fp16'
    language: str = 'fp16'
    head: str = 'fp16'          # the matrix that makes logits

    @classmethod
    def of(cls, recipe: Recipe) -> Precision:
        return cls(vision=recipe.vision_weights or recipe.precision, language=recipe.language_weights or recipe.precision,
                   head=recipe.precision)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One tick of a camera whose caption is written."""

    frame_tokens: int = 256     # visual tokens of the new frame
    kept_tokens: int = 768      # visual tokens of earlier frames in the window
    prompt_rows: int = 40       # the instruction
    caption_tokens: int = 48
    accepted: float = 0.9       # share of drafted tokens that are right, one by one


@dataclass(frozen=True)
class Tick:
    """Milliseconds of one caption."""

    encode_ms: float
    prefill_ms: float
    decode_ms: float

    @property
    def total_ms(self) -> float:
        return self.encode_ms + self.prefill_ms + self.decode_ms


@dataclass(frozen=True)
class Part:
    """One user of memory."""

    name: str
    gb: float


class Roofline:
    """One model on one module."""

    def __init__(self, config: PenguinVLConfig, module: Module, precision: Precision, *, merge: int = 2,
                 efficiency: float = EFFICIENCY) -> None:
        self.config, self.module, self.precision, self.merge = config, module, precision, merge
        self._flops_per_ms = module.fp16_tflops * 1e9 * efficiency
        self._bytes_per_ms = module.bandwidth_gb_s * 1e6 * efficiency

    # -- time ----------------------------------------------------------------------------------------------------

    def encode_ms(self, patches: int) -> float:
        """One frame of so many patches through encoder and projector."""
        encoder = self.config.encoder
        products = 2.0 * vision_weights(self.config) * patches
        attention = 4.0 * patches**2 * encoder.heads * encoder.head_dim * encoder.layers
        return max(self._product_ms(products, self.precision.vision) + attention / self._flops_per_ms,
                   vision_weights(self.config) * BYTES_PER_WEIGHT[self.precision.vision] / self._bytes_per_ms)

    def rows_ms(self, rows: int, past: int, *, logits: int = 1) -> float:
        """One language call: ``rows`` new rows behind ``past`` earlier ones, logits of some of them."""
        decoder = self.config.decoder
        body, head = body_weights(decoder), head_weights(self.config)
        pairs = rows * (past + rows / 2)
        arithmetic_ms = (self._product_ms(2.0 * body * rows, self.precision.language)
                         + self._product_ms(2.0 * head * logits, self.precision.head)
                         + 4.0 * pairs * decoder.heads * decoder.head_dim * decoder.layers / self._flops_per_ms)
        nbytes = (body * BYTES_PER_WEIGHT[self.precision.language] + head * BYTES_PER_WEIGHT[self.precision.head] * bool(logits)
                  + (past + rows) * cache_row_bytes(decoder))
        return max(arithmetic_ms, nbytes / self._bytes_per_ms)

    def prefill_ms(self, rows: int, past: int = 0, *, max_append: int = 512) -> float:
        """A prompt, in as many calls as it needs."""
        return sum(self.rows_ms(min(max_append, rows - first), past + first) for first in range(0, rows, max_append))

    def token_ms(self, past: int) -> float:
        """One token written behind ``past`` rows."""
        return self.rows_ms(1, past)

    def _product_ms(self, flops: float, weights: str) -> float:
        """INT8 multiplies twice as fast as FP16, float32 (no tensor cores) 8 times slower; INT4 becomes FP16 first."""
        return flops / self._flops_per_ms / {'int8': 2.0, 'fp32': 0.125}.get(weights, 1.0)

    # -- a caption -----------------------------------------------------------------------------------------------

    def caption(self, scene: Scene, *, kept: bool, drafted: bool, max_append: int = 512) -> Tick:
        """A new frame and its caption: with the stream's cache kept or read anew, with the last caption as draft or not.

        Without kept caches every frame of the window is encoded and read again (in frames of the new one's size).
        """
        frames = 1 if kept else 1 + round(scene.kept_tokens / scene.frame_tokens)
        patches = scene.frame_tokens * self.merge**2
        frame_rows = scene.frame_tokens + _LEAD_ROWS
        past = scene.kept_tokens if kept else 0
        prefill_ms = self.prefill_ms(frames * frame_rows, past, max_append=max_append)
        past = scene.kept_tokens + frame_rows
        prefill_ms += self.prefill_ms(scene.prompt_rows, past)
        past += scene.prompt_rows + scene.caption_tokens // 2
        decode_ms = scene.caption_tokens * self.token_ms(past)
        if drafted:
            passes = scene.caption_tokens / tokens_per_pass(scene.accepted)
            decode_ms = passes * self.rows_ms(VERIFY_TOKENS, past, logits=VERIFY_TOKENS)
        return Tick(frames * self.encode_ms(patches), prefill_ms, decode_ms)

    # -- memory --------------------------------------------------------------------------------------------------

    def memory(self, recipe: Recipe, *, cameras: int = 1) -> Iterator[Part]:
        """What a running node keeps, largest unknowns estimated from above (attention that TensorRT does not fuse)."""
        config, encoder, decoder = self.config, self.config.encoder, self.config.decoder
        element = BYTES_PER_WEIGHT[recipe.precision]
        yield Part('system', SYSTEM_GB)
        yield Part('runtime', RUNTIME_GB)
        yield Part('vision weights', vision_weights(config) * BYTES_PER_WEIGHT[self.precision.vision] / 1e9)
        yield Part('language weights', (body_weights(decoder) * BYTES_PER_WEIGHT[self.precision.language]
                                        + head_weights(config) * BYTES_PER_WEIGHT[self.precision.head]) / 1e9)
        yield Part('KV caches', (cameras + _CLOSEUP_CACHES) * recipe.cache_rows * decoder.layers * 2 * decoder.kv_heads
                   * decoder.head_dim * element / 1e9)
        frames = recipe.cache_rows * decoder.width * element
        yield Part('frames', (cameras + _CLOSEUP_CACHES) * frames / 1e9)
        mask = recipe.max_append * (recipe.cache_rows + recipe.max_append)
        scores = max(recipe.max_patches**2 * encoder.heads, mask * decoder.heads) * (4 + element)
        streams = max(recipe.max_patches * encoder.mlp_width, recipe.max_append * decoder.mlp_width) * 4 * 4
        yield Part('scratch', (scores + streams) / 1e9)
        logits = VERIFY_TOKENS * decoder.vocabulary * 4
        yield Part('inputs and logits', 2 * (logits + mask * 4 + recipe.max_patches * encoder.patch_values * 4) / 1e9)

    def build_gb(self, recipe: Recipe) -> float:
        """Memory while the larger engine is built: the graph's weights twice, scratch, and the system."""
        element = BYTES_PER_WEIGHT[recipe.precision]
        graph = max(vision_weights(self.config) * min(element, BYTES_PER_WEIGHT[self.precision.vision]),
                    body_weights(self.config.decoder) * min(element, BYTES_PER_WEIGHT[self.precision.language])
                    + head_weights(self.config) * element)
        return SYSTEM_GB + RUNTIME_GB + (2 * graph + recipe.workspace_mb * 2**20) / 1e9


def tokens_per_pass(accepted: float) -> float:
    """Tokens one pass over a full draft yields when each is right with this probability: the right ones and one more."""
    drafted = VERIFY_TOKENS - 1
    return float(VERIFY_TOKENS) if accepted >= 1 else (1 - accepted**(drafted + 1)) / (1 - accepted)


def body_weights(block: BlockConfig) -> int:
    """Weights of the matrices of a stack of blocks, norms left out."""
    query, key = block.heads * block.head_dim, block.kv_heads * block.head_dim
    return block.layers * (block.width * (2 * query + 2 * key) + 3 * block.width * block.mlp_width)


def vision_weights(config: PenguinVLConfig) -> int:
    """Patch embedding and encoder; the projector works on visual tokens and is small beside them."""
    return body_weights(config.encoder) + config.encoder.patch_values * config.encoder.width


def head_weights(config: PenguinVLConfig) -> int:
    return config.decoder.vocabulary * config.decoder.width


def cache_row_bytes(decoder: BlockConfig, element_bytes: int = 2) -> int:
    """One row over all layers, keys and values."""
    return 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * element_bytes

