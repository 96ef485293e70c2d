"""How a weight, and for INT8 what it is multiplied with, becomes whole numbers, and with which scales it loses least.

Plain numpy on one matrix at a time. Knows nothing of graphs (export.py), of files (calibration.py) or of where the rows
come from that a matrix is tried on (penguin_ros/calibration).

Everything is symmetric, as TensorRT asks (reference/tensorrt.md 4): INT8 has one scale per column of the weight and one for
the whole input; INT4 has one scale per column and block of 128 rows, or of 64 where 128 does not divide them, and leaves the
input alone. TensorRT takes no other block, so a matrix with a remainder stays in the compute type.

Before rounding, difficulty may be moved between input and weight: input channel k is multiplied by ``smoothing[k]`` and row
k of the weight divided by it, which changes nothing but what is rounded. For INT8 that evens out input channels which reach
much further than others (SmoothQuant, arXiv 2211.10438), for INT4 it spends the weight's precision on the channels that
carry most (AWQ, arXiv 2306.00978). How much of it, is tried out on the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ('int8', 'int4')
BLOCKS = (128, 64)              # rows of one INT4 block, the first that divides them
_LARGEST_CODE = {'int8': 127, 'int4': 7}
_SMALLEST_SCALE = float(np.finfo(np.float16).tiny)      # scales are float16 on the device
_SMOOTHINGS = {'int8': (0.0, 0.35, 0.5, 0.65, 0.8), 'int4': (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)}
_SMOOTHING_LIMIT = 64.0         # a channel is moved by no more than this factor
_INPUT_REACHES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)  # shares of the largest input that INT8 may cover
_BLOCK_REACHES = tuple(np.linspace(0.6, 1.0, 17))       # likewise of a block's largest weight, for INT4
_LEAST_GAIN = 0.02              # of the error; less is not worth one more operation in the graph
_TRIED_COLUMNS = 512            # of each weight that smoothings are tried on


@dataclass(frozen=True)
class Rounding:
    """How one weight [in, out] is rounded. Scales are float16, so that they mean the same in every precision."""

    kind: str                           # int8 or int4
    weight_scale: np.ndarray            # float16: int8 [out]; int4 [in / block, out]
    input_scale: np.float16 | None = None       # int8: of the smoothed input
    smoothing: np.ndarray | None = None         # float32 [in]: the input is multiplied by it, the weight's rows divided

    @property
    def blocks(self) -> int:
        """How many blocks share the weight's rows."""
        return len(self.weight_scale) if self.kind == 'int4' else 1

    def codes(self, weight: np.ndarray) -> np.ndarray:
        """The weight as whole numbers, int8 [in, out]."""
        return _codes(_smoothed(weight, self.smoothing), self.weight_scale, self.kind)

    def rounded_weight(self, weight: np.ndarray) -> np.ndarray:
        """What the codes stand for, float32 [in, out]; still divided by the smoothing."""
        return _spread(self.weight_scale, len(weight)) * self.codes(weight)

    def rounded_input(self, rows: np.ndarray) -> np.ndarray:
        """What an input [T, in] becomes, float32."""
        rows = rows if self.smoothing is None else rows * self.smoothing
        if self.input_scale is None:
            return rows
        scale = np.float32(self.input_scale)
        return np.clip(np.rint(rows / scale), -128, 127) * scale


def can_round(kind: str, inputs: int) -> bool:
    """Whether a weight of so many rows can become this kind."""
    return kind == 'int8' or any(inputs % block == 0 for block in BLOCKS)


def best_roundings(kind: str, rows: np.ndarray, largest: np.ndarray, weights: Sequence[np.ndarray]) -> list[Rounding]:
    """The roundings of weights [in, out_i] that share one input, by which their products lose least.

    ``rows`` [R, in] are inputs as they occur, ``largest`` [in] what each channel reached at most, over more than these rows.
    """
    some = [_some_columns(weight) for weight in weights]
    exact = [rows @ weight for weight in some]

    def error(roundings: Sequence[Rounding]) -> float:
        total = 0.0
        for rounding, weight, product in zip(roundings, some, exact):
            off = rounding.rounded_input(rows) @ rounding.rounded_weight(weight) - product
            total += float((off ** 2).sum() / max(float((product ** 2).sum()), 1e-30))
        return total

    tried = [(error(roundings), roundings) for smoothing in _smoothings(kind, rows, largest, weights)
             for roundings in _candidates(kind, rows, largest, some, smoothing)]
    least, best = tried[0]                      # the first has no smoothing
    for candidate_error, candidate in tried[1:]:
        if candidate_error < least * (1 - _LEAST_GAIN):
            least, best = candidate_error, candidate
    input_scale, smoothing = best[0].input_scale, best[0].smoothing
    return [Rounding(kind, _weight_scale(kind, rows, weight, smoothing), input_scale, smoothing) for weight in weights]


def relative_error(rounding: Rounding, rows: np.ndarray, weight: np.ndarray) -> float:
    """What a product loses: the error's size in parts of the product's, over some columns."""
    some = _some_columns(weight)
    product = rows @ some
    off = rounding.rounded_input(rows) @ _some_columns(rounding.rounded_weight(weight)) - product
    return float(np.linalg.norm(off) / max(float(np.linalg.norm(product)), 1e-30))


def _some_columns(weight: np.ndarray) -> np.ndarray:
    """At most _TRIED_COLUMNS columns, evenly."""
    return np.ascontiguousarray(weight[:, ::-(-weight.shape[1] // _TRIED_COLUMNS)])


def _smoothings(kind: str, rows: np.ndarray, largest: np.ndarray, weights: Sequence[np.ndarray]) -> Iterator[np.ndarray | None]:
    """Ways to move difficulty between input and weights, from none to much; their geometric mean is 1."""
    if kind == 'int8':
        reach, weight_reach = largest, np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    else:
        reach, weight_reach = np.abs(rows).mean(axis=0), None
    for share in _SMOOTHINGS[kind]:
        if share == 0:
            yield None
            continue
        logarithm = -share * np.log(np.maximum(reach, 1e-6))
        if weight_reach is not None:
            logarithm += (1 - share) * np.log(np.maximum(weight_reach, 1e-6))
        logarithm = np.clip(logarithm - logarithm.mean(), -np.log(_SMOOTHING_LIMIT), np.log(_SMOOTHING_LIMIT))
        yield np.exp(logarithm).astype(np.float32)


def _candidates(kind: str, rows: np.ndarray, largest: np.ndarray, weights: Sequence[np.ndarray],
                smoothing: np.ndarray | None) -> Iterator[list[Rounding]]:
    """Roundings of all weights with one smoothing."""
    scales = [_weight_scale(kind, rows, weight, smoothing) for weight in weights]
    if kind == 'int4':
        yield [Rounding(kind, scale, None, smoothing) for scale in scales]
        return
    reach = float((largest if smoothing is None else largest * smoothing).max())
    for share in _INPUT_REACHES:
        input_scale = np.float16(_scale(np.array([share * reach]), kind)[0])
        yield [Rounding(kind, scale, input_scale, smoothing) for scale in scales]


def _weight_scale(kind: str, rows: np.ndarray, weight: np.ndarray, smoothing: np.ndarray | None) -> np.ndarray:
    """The scales of one smoothed weight, as Rounding has them."""
    weight = _smoothed(weight, smoothing)
    if kind == 'int8':
        return _scale(np.abs(weight).max(axis=0), kind)
    importance = ((rows if smoothing is None else rows * smoothing) ** 2).mean(axis=0)
    importance += 1e-12 * importance.max() + 1e-30      # where no row had anything, all rows count alike
    block = next(size for size in BLOCKS if len(weight) % size == 0)
    return np.stack([_block_scale(weight[begin:begin + block], importance[begin:begin + block])
                     for begin in range(0, len(weight), block)])


def _block_scale(block: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """INT4 scales [out] of one block [rows, out], by which its squares, weighted by row, lose least."""
    reach = np.abs(block).max(axis=0)
    best, least = _scale(reach, 'int4'), np.full(len(reach), np.inf, np.float32)
    for share in _BLOCK_REACHES:
        scale = _scale(share * reach, 'int4')
        wide = scale.astype(np.float32)
        off = block / wide
        np.rint(off, out=off)
        np.clip(off, -8, 7, out=off)
        off *= wide
        off -= block
        off *= off
        lost = importance @ off
        best = np.where(lost < least, scale, best)
        least = np.minimum(lost, least)
    return best


def _scale(reach: np.ndarray, kind: str) -> np.ndarray:
    """float16 scales with which a magnitude is the largest code; never so small that float16 cannot divide by it."""
    return np.maximum(reach / _LARGEST_CODE[kind], _SMALLEST_SCALE).astype(np.float16)


def _smoothed(weight: np.ndarray, smoothing: np.ndarray | None) -> np.ndarray:
    return weight if smoothing is None else weight / smoothing[:, None]


def _spread(scale: np.ndarray, rows: int) -> np.ndarray:
    """Scales for every entry of a weight with so many rows, float32."""
    wide = scale.astype(np.float32)
    return wide if scale.ndim == 1 else np.repeat(wide, rows // len(scale), axis=0)


def _codes(weight: np.ndarray, scale: np.ndarray, kind: str) -> np.ndarray:
    low, high = (-8, 7) if kind == 'int4' else (-127, 127)
    return np.clip(np.rint(weight / _spread(scale, len(weight))), low, high).astype(np.int8)
