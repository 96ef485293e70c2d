"""Writes Penguin-VL as two ONNX graphs, vision and language (design section 3), with numpy and onnx alone: no torch.

Knows nothing of what runs the graphs (backends/) or of how weights are kept (stored_weights.py). Weights pass through
one by one, so a model of any size needs only the memory of its largest tensor.

Precision. Matrix products run in the compute type, float32 or float16. Everything between them stays in float32: the
residual stream, norms, rotation, softmax, GELU. These are the places where float16 overflows (reference/tensorrt.md 3),
and they cost little beside the products. Logits are given in float32, from a product in the compute type. Weights of the blocks
can be rounded to INT8 or INT4 with the scales of a calibration (calibration.py), written as explicit Q/DQ.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penguin_ros.core.errors import CalibrationError, ConfigError
from penguin_ros.model.calibration import ENGINES, Calibration, check_float16, check_weights, read_calibration
from penguin_ros.model.config import BlockConfig, PenguinVLConfig, config_from_folder
from penguin_ros.model.graph import OPSET, Graph, Port, Tensor
from penguin_ros.model.quantise import Rounding
from penguin_ros.model.stored_weights import CheckpointBytes, EmbeddingTable, OwnFiles, StoredWeights
from penguin_ros.model.weights import WeightFiles, expected_shapes, open_weights

COMPUTE_TYPES = {'fp32': 'float32', 'fp16': 'float16'}
WEIGHTS = ('external', 'safetensors')
ATTENTION = ('split', 'concat')
_NONE: Mapping[str, Rounding] = {}

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]                         # q, k, v -> [T, heads * d]
AttendPast = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]     # q, k, v, past k, past v -> the same


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What may differ between two exports of one checkpoint."""

    precision: str = 'fp32'         # fp32 or fp16: type of matrix products, visual tokens and cache
    merge: int = 2                  # patches per side of one visual token: 1 for pictures, 2 for video frames
    weights: str = 'external'       # external: copied, [in, out]; safetensors: the graphs point into the checkpoint
    attention: str = 'split'        # split: past and new rows apart, so no cache row is copied; concat: joined first
    debug: bool = False             # the vision graph also gives what lies between, named as in the golden vectors
    vision_weights: str = ''        # int8, or empty: those of precision
    language_weights: str = ''      # int8, int4, or empty: those of precision
    calibration: Path | None = None     # folder with the scales of rounded weights; with fp16 its ranges are checked too
    float32: tuple[str, ...] = ()   # weights multiplied in float32 whatever the rest does

    def __post_init__(self) -> None:
        for name, allowed in (('precision', tuple(COMPUTE_TYPES)), ('weights', WEIGHTS), ('attention', ATTENTION),
                              ('vision_weights', ('', 'int8')), ('language_weights', ('', 'int8', 'int4'))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f'{name} is {getattr(self, name)!r}; it can be {" or ".join(filter(None, allowed))}.')
        if self.rounded and self.calibration is None:
            raise ConfigError(f'{" and ".join(self.rounded.values())} weights need scales. Make them with penguin calibrate '
                              'and name its folder (--calibration FOLDER, in a recipe calibration: FOLDER).')
        if self.merge < 1:
            raise ConfigError(f'merge is {self.merge}; it must be at least 1. Pictures use 1, video frames 2.')


    @property
    def rounded(self) -> dict[str, str]:
        """The engines whose weights are rounded, and to what."""
        kinds = {'vision': self.vision_weights, 'language': self.language_weights}
        return {name: kind for name, kind in kinds.items() if kind}


@dataclass(frozen=True)
class ExportedGraph:
    """One graph file and what goes in and out of it."""

    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Export:
    """What an export wrote; file names are relative to its folder."""

    config: PenguinVLConfig
    vision: ExportedGraph
    language: ExportedGraph
    embeddings: EmbeddingTable
    files: tuple[str, ...]          # all of them, weights included
    calibration: str = ''           # sha256 of the calibration used, if any


def export_checkpoint(checkpoint: str | Path, folder: str | Path, options: ExportOptions, *,
                      progress: Callable[[str], None] = lambda line: None) -> Export:
    """Write vision.onnx, language.onnx and their weights into ``folder``; ``progress`` is told of each finished step."""
    checkpoint, folder = Path(checkpoint), Path(folder)
    config = config_from_folder(checkpoint)
    files = open_weights(checkpoint, config)
    calibration = _read_calibration(checkpoint, files, options, progress)
    roundings = {name: calibration.of(name).roundings for name in options.rounded} if calibration else {}
    folder.mkdir(parents=True, exist_ok=True)
    compute = COMPUTE_TYPES[options.precision]
    weights: StoredWeights
    if options.weights == 'external':
        _check_room(folder, config, compute)
        weights = OwnFiles(files, folder, compute, progress)
    else:
        weights = CheckpointBytes(files, compute)

    begin_s = time.perf_counter()
    with weights.writing('vision.weights'):
        vision = _save(vision_graph(config, weights, merge=options.merge, debug=options.debug, float32=options.float32,
                                    roundings=roundings.get('vision', {})), folder)
    progress(f'{folder / vision.file}: {time.perf_counter() - begin_s:.1f} s')

    begin_s = time.perf_counter()
    with weights.writing('language.weights'):
        embeddings = weights.embeddings()
        language = _save(language_graph(config, weights, attention=options.attention, float32=options.float32,
                                        roundings=roundings.get('language', {})), folder)
    progress(f'{folder / language.file}: {time.perf_counter() - begin_s:.1f} s')

    if options.weights == 'safetensors' and checkpoint.resolve() != folder.resolve():
        for name in weights.files:
            shutil.copyfile(checkpoint / name, folder / name)
            progress(f'{folder / name}: copied, the graphs point into it')
    return Export(config, vision, language, embeddings, (vision.file, language.file, *weights.files),
                  calibration.sha256 if calibration else '')


def _read_calibration(checkpoint: Path, files: WeightFiles, options: ExportOptions,
                      progress: Callable[[str], None]) -> Calibration | None:
    """The calibration named, if it is of these weights, of the kinds asked for, and promises that float16 is enough."""
    if unknown := [name for name in options.float32 if name not in files.names()]:
        raise ConfigError(f'float32 names {unknown[0]}, which the checkpoint does not have. Names are like '
                          'decoder.layers.2.mlp.down_proj.weight.')
    if options.calibration is None:
        return None
    calibration = read_calibration(options.calibration, checkpoint)
    check_weights(calibration, checkpoint, files.hashes())
    for name, kind in options.rounded.items():
        if calibration.of(name).kind != kind:
            found = calibration.of(name).kind or 'no'
            raise CalibrationError(f'{calibration.folder} has {found} scales for the {name} engine; '
                                   f'{kind} was asked for. Calibrate again with --{name} {kind}.')
    if options.precision == 'fp16':
        check_float16({name: calibration.of(name) for name in ENGINES}, kept_float32=options.float32)
    progress(f'{calibration.folder}: calibration {calibration.sha256[:12]}, made of these weights')
    return calibration


def _check_room(folder: Path, config: PenguinVLConfig, compute: str) -> None:
    """Raise ConfigError when the copied weights cannot fit, rather than minutes later."""
    needed = sum(math.prod(shape) for shape in expected_shapes(config).values()) * np.dtype(compute).itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(f'{folder} has {free / 1e9:.1f} GB free, the weights as {compute} need {needed / 1e9:.1f} GB. '
                          'Make room, or name a folder on a larger disk.')


def _save(graph: Graph, folder: Path) -> ExportedGraph:
    file = f'{graph.name}.onnx'
    graph.save(folder / file)
    return ExportedGraph(file, tuple(graph.inputs), tuple(graph.outputs))


def vision_graph(config: PenguinVLConfig, weights: StoredWeights, *, merge: int, debug: bool = False,
                 roundings: Mapping[str, Rounding] = _NONE, float32: Collection[str] = ()) -> Graph:
    """patches [N, 588], cos and sin [N, 1, d] -> visual [N/m2, H]: one frame, patches in merge-window order."""
    encoder = config.encoder
    graph = Graph('vision', _opset(roundings))
    patches = graph.input('patches', 'float32', ('N', encoder.patch_values))
    net = _Network(graph, weights, encoder, positions='N', roundings=roundings, float32=float32)

    def note(name: str, x: Tensor, rows: str = 'N') -> None:
        if debug:
            graph.output(x, name, 'float32', (rows, encoder.width))

    with graph.scope('encoder'):
        x = net.linear(patches, 'encoder.embeddings.patch_embedding', 'patch_embedding', bias=True)
        note('encoder_embed', x)
        for layer in range(encoder.layers):
            x = net.block(x, f'encoder.layers.{layer}', f'layers.{layer}', net.attend)
            note(f'encoder_hidden_{layer + 1}', x)
        x = net.rms_norm(x, 'encoder.norm', 'norm')
        note('encoder_final', x)
        x = net.merge_windows(x, merge)
        note('encoder_merged', x, 'M')
    with graph.scope('projector'):
        for layer in range(config.projector_depth):
            x = net.gelu(x, f'gelu.{layer}') if layer else x
            x = net.linear(x, f'projector.readout.{2 * layer}', f'readout.{layer}', bias=True)
    graph.output(x, 'visual', weights.compute, ('M', config.decoder.width))
    return graph


def language_graph(config: PenguinVLConfig, weights: StoredWeights, *, attention: str,
                   roundings: Mapping[str, Rounding] = _NONE, float32: Collection[str] = ()) -> Graph:
    """T new rows behind P earlier ones ("append by address", reference/tensorrt.md 2.2).

    embeddings [T, H], cos and sin [T, 1, d], mask [T, S = P + T] added to the scores, logit_rows [R], and per layer
    past_k_i, past_v_i [P, kv, d] -> logits [R, V], and per layer the new rows alone, new_k_i, new_v_i [T, kv, d].
    """
    decoder = config.decoder
    graph = Graph('language', _opset(roundings))
    compute, rows = weights.compute, (decoder.kv_heads, decoder.head_dim)
    embeddings = graph.input('embeddings', compute, ('T', decoder.width))
    net = _Network(graph, weights, decoder, positions='T', roundings=roundings, float32=float32)
    mask = graph.input('mask', 'float32', ('T', 'S'))
    logit_rows = graph.input('logit_rows', 'int32', ('R',))
    past = [(graph.input(f'past_k_{layer}', compute, ('P', *rows)), graph.input(f'past_v_{layer}', compute, ('P', *rows)))
            for layer in range(decoder.layers)]
    attention_over_past = net.split_attention(mask, past[0][0]) if attention == 'split' else net.joined_attention(mask)

    with graph.scope('decoder'):
        x = graph.cast(embeddings, 'float32')
        for layer, (past_k, past_v) in enumerate(past):
            def attend(q: Tensor, k: Tensor, v: Tensor, layer: int = layer, past_k: Tensor = past_k,
                       past_v: Tensor = past_v) -> Tensor:
                k = graph.output(k, f'new_k_{layer}', compute, ('T', *rows))
                v = graph.output(v, f'new_v_{layer}', compute, ('T', *rows))
                return attention_over_past(q, k, v, past_k, past_v)

            x = net.block(x, f'decoder.layers.{layer}', f'layers.{layer}', attend)
        x = graph.op('Gather', [x, logit_rows], 'rows_wanted', axis=0)
        x = net.rms_norm(x, 'decoder.norm', 'norm')
        x = graph.op('MatMul', [graph.cast(x, compute), weights.output_matrix(graph, tied=config.tied_embeddings)], 'output')
    graph.output(x, 'logits', 'float32', ('R', decoder.vocabulary))
    return graph


def _opset(roundings: Mapping[str, Rounding]) -> int:
    """The least that can say it: rounding of float16 came with opset 19, INT4 with 21."""
    kinds = {rounding.kind for rounding in roundings.values()}
    return 21 if 'int4' in kinds else 19 if 'int8' in kinds else OPSET


class _Network:
    """The pieces encoder and decoder share; comments give shapes, T rows (N patches), S rows in all, g = heads / kv.

    Takes float32 and gives float32, but for queries, keys and values, which are in the compute type.
    """

    def __init__(self, graph: Graph, weights: StoredWeights, config: BlockConfig, *, positions: str,
                 roundings: Mapping[str, Rounding], float32: Collection[str]) -> None:
        self.graph, self.weights, self.config = graph, weights, config
        self.roundings = {name: rounding for name, rounding in roundings.items() if name not in float32}
        self.float32 = float32
        self._prepared: dict[str, Tensor] = {}      # by the name of what it was made of
        self.group = config.heads // config.kv_heads
        cos = graph.input('cos', 'float32', (positions, 1, config.head_dim))
        sin = graph.input('sin', 'float32', (positions, 1, config.head_dim))
        # x*cos + [-x2, x1]*sin = x*cos + [x2, x1]*[-sin1, sin2]: the sign is changed once, not in every layer. The scale
        # of the scores goes into the queries' tables likewise.
        first, second = graph.halves(sin, config.head_dim // 2, 'rotary.sin')
        signed_sin = graph.op('Concat', [graph.op('Neg', [first], 'rotary.minus_sin'), second], 'rotary.signed_sin', axis=-1)
        scale = graph.number(config.head_dim**-0.5)
        self.key_tables = cos, signed_sin
        self.query_tables = (graph.op('Mul', [cos, scale], 'rotary.query_cos'),
                             graph.op('Mul', [signed_sin, scale], 'rotary.query_sin'))

    def block(self, x: Tensor, weight: str, name: str, attend: Attend) -> Tensor:
        """One Qwen3 block (reference/penguin_vl.md 1.3) over x [T, C]; ``attend`` gives [T, heads * d]."""
        graph, config, compute = self.graph, self.config, self.weights.compute
        attention, mlp = f'{weight}.self_attn', f'{weight}.mlp'
        with graph.scope(name):
            y = self.rms_norm(x, f'{weight}.input_layernorm', 'attention.norm')
            with graph.scope('attention'):
                q = self.heads(self.linear(y, f'{attention}.q_proj', 'q'), config.heads, 'q.heads')
                k = self.heads(self.linear(y, f'{attention}.k_proj', 'k'), config.kv_heads, 'k.heads')
                v = self.heads(self.linear(y, f'{attention}.v_proj', 'v', dtype=compute), config.kv_heads, 'v.heads')
                q = self.rotate(self.rms_norm(q, f'{attention}.q_norm', 'q.norm'), self.query_tables, 'q.rotated')
                k = self.rotate(self.rms_norm(k, f'{attention}.k_norm', 'k.norm'), self.key_tables, 'k.rotated')
                mixed = attend(graph.cast(q, compute), graph.cast(k, compute), v)
                y = self.linear(mixed, f'{attention}.o_proj', 'out')
            x = graph.op('Add', [x, y], 'attention.add')
            y = self.rms_norm(x, f'{weight}.post_attention_layernorm', 'mlp.norm')
            with graph.scope('mlp'):
                gate = self.linear(y, f'{mlp}.gate_proj', 'gate')
                up = self.linear(y, f'{mlp}.up_proj', 'up')
                gate = graph.op('Mul', [gate, graph.op('Sigmoid', [gate], 'gate.sigmoid')], 'gate.silu')
                y = self.linear(graph.op('Mul', [gate, up], 'gated'), f'{mlp}.down_proj', 'down')
            return graph.op('Add', [x, y], 'mlp.add')

    def linear(self, x: Tensor, weight: str, name: str, *, bias: bool = False, dtype: str = 'float32') -> Tensor:
        """x [T, in] -> [T, out] as ``dtype``."""
        y = self.product(x, f'{weight}.weight', name)
        y = self.graph.cast(y, dtype)
        if bias:
            y = self.graph.op('Add', [y, self.weights.vector(self.graph, f'{weight}.bias', dtype)], f'{name}.biased')
        return y

    def product(self, x: Tensor, weight: str, name: str) -> Tensor:
        """x times a weight: rounded as the calibration has it, in float32 if it was named, else in the compute type.

        Every weight but the output matrix is multiplied here, so this is where Q/DQ stands.
        """
        graph, rounding = self.graph, self.roundings.get(weight)
        if rounding is None:
            dtype = 'float32' if weight in self.float32 else self.weights.compute
            return graph.op('MatMul', [graph.cast(x, dtype), self.weights.matrix(graph, weight, dtype)], name)
        return graph.op('MatMul', [self.prepared(x, rounding), self.weights.rounded_matrix(graph, weight, rounding)], name)

    def prepared(self, x: Tensor, rounding: Rounding) -> Tensor:
        """x as a rounded weight wants it: smoothed, and rounded itself for INT8. Products that share x share this too."""
        graph, compute, name = self.graph, self.weights.compute, x.name
        if name in self._prepared:
            return self._prepared[name]
        with graph.outermost():
            if rounding.smoothing is not None:
                smoothing = self.weights.smoothing(graph, f'{name}.smoothing', rounding.smoothing)
                x = graph.op('Mul', [graph.cast(x, 'float32'), smoothing], f'{name}.smoothed')
            x = graph.cast(x, compute)
            if rounding.input_scale is not None:
                scale = graph.constant(np.asarray(rounding.input_scale, compute))
                zero = graph.constant(np.zeros((), np.int8))
                x = graph.op('QuantizeLinear', [x, scale, zero], f'{name}.int8', dtype='int8')
                x = graph.op('DequantizeLinear', [x, scale, zero], f'{name}.rounded', dtype=compute)
        self._prepared[name] = x
        return x

    def rms_norm(self, x: Tensor, weight: str, name: str) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""
        graph = self.graph
        with graph.scope(name):
            square = graph.op('Pow', [x, graph.number(2)], 'square')
            mean = graph.mean(square, (-1,), 'mean', keepdims=True)
            safe = graph.op('Add', [mean, graph.number(self.config.norm_eps)], 'plus_eps')
            normal = graph.op('Div', [x, graph.op('Sqrt', [safe], 'root')], 'normal')
            return graph.op('Mul', [normal, self.weights.vector(graph, f'{weight}.weight', 'float32')], 'weighted')

    def heads(self, x: Tensor, heads: int, name: str) -> Tensor:
        """[T, heads * d] -> [T, heads, d]"""
        return self.graph.reshape(x, (0, heads, self.config.head_dim), name)

    def rotate(self, x: Tensor, tables: tuple[Tensor, Tensor], name: str) -> Tensor:
        """The rotary step on x [T, heads, d]; with the encoder's tables it is no true rotation (1.4)."""
        graph, (cos, signed_sin) = self.graph, tables
        with graph.scope(name):
            first, second = graph.halves(x, self.config.head_dim // 2, 'halves')
            swapped = graph.op('Concat', [second, first], 'swapped', axis=-1)
            return graph.op('Add', [graph.op('Mul', [x, cos], 'cos'), graph.op('Mul', [swapped, signed_sin], 'sin')], 'sum')

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of q [T, heads, d] over k, v [S, kv, d] -> [T, heads * d].

        Keys and values are broadcast over the g queries they serve, never repeated.
        """
        graph = self.graph
        probabilities = self.softmax(graph.op('MatMul', [self.queries(q), self.keys(k, 'k')], 'scores'), mask)
        return self.heads_joined(graph.op('MatMul', [probabilities, self.values(v, 'v')], 'mixed'))

    def joined_attention(self, mask: Tensor) -> AttendPast:
        """Attention that first joins past and new rows: the plain form, which copies the cache once per layer."""
        def attend(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
            k = self.graph.op('Concat', [past_k, k], 'k.joined', axis=0)
            v = self.graph.op('Concat', [past_v, v], 'v.joined', axis=0)
            return self.attend(q, k, v, mask)
        return attend

    def split_attention(self, mask: Tensor, any_past: Tensor) -> AttendPast:
        """Attention that reads the past rows where they lie: only scores, a few numbers a row, are joined and cut again."""
        graph = self.graph
        begin, end, last = graph.integers(0), graph.integers(2**31 - 1), graph.integers(3)
        shape = graph.op('Shape', [any_past], 'past.shape', dtype='int64')
        past_rows = graph.op('Slice', [shape, begin, graph.integers(1)], 'past.rows')

        def attend(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
            q = self.queries(q)
            past_scores = graph.op('MatMul', [q, self.keys(past_k, 'past.k')], 'past.scores')             # [kv, g, T, P]
            new_scores = graph.op('MatMul', [q, self.keys(k, 'new.k')], 'new.scores')                     # [kv, g, T, T]
            joined = self.softmax(graph.op('Concat', [past_scores, new_scores], 'scores', axis=-1), mask)
            past_part = graph.op('Slice', [joined, begin, past_rows, last], 'past.probabilities')
            new_part = graph.op('Slice', [joined, past_rows, end, last], 'new.probabilities')
            past_mixed = graph.op('MatMul', [past_part, self.values(past_v, 'past.v')], 'past.mixed')
            new_mixed = graph.op('MatMul', [new_part, self.values(v, 'new.v')], 'new.mixed')
            return self.heads_joined(graph.op('Add', [past_mixed, new_mixed], 'mixed'))
        return attend

    # A row's heads lie side by side; products want them apart. Runtimes read them in place, without a copy.

    def queries(self, q: Tensor) -> Tensor:
        """[T, heads, d] -> [kv, g, T, d]"""
        q = self.graph.reshape(q, (0, self.config.kv_heads, self.group, self.config.head_dim), 'q.groups')
        return self.graph.transpose(q, (1, 2, 0, 3), 'q.by_head')

    def keys(self, k: Tensor, name: str) -> Tensor:
        """[S, kv, d] -> [kv, 1, d, S]"""
        k = self.graph.reshape(k, (0, self.config.kv_heads, 1, self.config.head_dim), f'{name}.groups')
        return self.graph.transpose(k, (1, 2, 3, 0), f'{name}.by_head')

    def values(self, v: Tensor, name: str) -> Tensor:
        """[S, kv, d] -> [kv, 1, S, d]"""
        v = self.graph.reshape(v, (0, self.config.kv_heads, 1, self.config.head_dim), f'{name}.groups')
        return self.graph.transpose(v, (1, 2, 0, 3), f'{name}.by_head')

    def softmax(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Probabilities in the compute type, worked out in float32."""
        graph = self.graph
        scores = graph.cast(scores, 'float32')
        if mask is not None:
            scores = graph.op('Add', [scores, mask], 'scores.masked')
        return graph.cast(graph.op('Softmax', [scores], 'probabilities', axis=-1), self.weights.compute)

    def heads_joined(self, mixed: Tensor) -> Tensor:
        """[kv, g, T, d] -> [T, heads * d]"""
        mixed = self.graph.transpose(mixed, (2, 0, 1, 3), 'mixed.by_row')
        return self.graph.reshape(mixed, (0, self.config.heads * self.config.head_dim), 'mixed.joined')

    def merge_windows(self, x: Tensor, merge: int) -> Tensor:
        """Bilinear reduction of each merge x merge window of x [N, C] (1.6).

        The sample point is the window's centre: an odd window takes its centre row, an even one the mean of its middle four.
        """
        graph, width = self.graph, self.config.width
        if merge == 1:
            return x
        if merge == 2:
            return graph.mean(graph.reshape(x, (-1, 4, width), 'windows'), (1,), 'merged', keepdims=False)
        low, high = (merge - 1) // 2, merge // 2 + 1
        x = graph.reshape(x, (-1, merge, merge, width), 'windows')
        middle = graph.op('Slice', [x, graph.integers(low, low), graph.integers(high, high), graph.integers(1, 2)], 'middle')
        return graph.mean(middle, (1, 2), 'merged', keepdims=False)

    def gelu(self, x: Tensor, name: str) -> Tensor:
        """x / 2 * (1 + erf(x / sqrt 2)), the exact form."""
        graph = self.graph
        with graph.scope(name):
            erf = graph.op('Erf', [graph.op('Div', [x, graph.number(math.sqrt(2))], 'scaled')], 'erf')
            twice = graph.op('Mul', [x, graph.op('Add', [erf, graph.number(1)], 'plus_one')], 'twice')
            return graph.op('Mul', [twice, graph.number(0.5)], 'half')
