"""Weights become whole numbers by the scales that lose least, symmetric, and in the blocks that TensorRT takes."""

from __future__ import annotations

import numpy as np
import pytest

from penguin_ros.model.quantise import best_roundings, can_round, relative_error


def drawn(seed: int, rows: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [rows, inputs] and a weight [inputs, outputs]."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(rows, inputs)).astype(np.float32),
            generator.normal(size=(inputs, outputs)).astype(np.float32) / 16)


@pytest.mark.parametrize('kind, most', [('int8', 0.02), ('int4', 0.12)])
@pytest.mark.parametrize('inputs', [64, 128, 192])
def test_a_product_loses_little(kind: str, most: float, inputs: int) -> None:
    rows, weight = drawn(0, 200, inputs, 48)
    rounding, = best_roundings(kind, rows, np.abs(rows).max(axis=0), [weight])
    assert relative_error(rounding, rows, weight) < most
    codes = rounding.codes(weight)
    assert codes.dtype == np.int8
    assert np.abs(codes).max() <= (127 if kind == 'int8' else 8)
    assert rounding.weight_scale.dtype == np.float16
    blocks = {64: 1, 128: 1, 192: 3}[inputs]
    assert rounding.weight_scale.shape == ((48,) if kind == 'int8' else (blocks, 48))
    assert (rounding.input_scale is None) == (kind == 'int4')


def test_int4_takes_blocks_of_128_or_64_and_nothing_else() -> None:
    assert all(can_round('int4', inputs) for inputs in (64, 128, 192, 512, 2048, 6144))
    assert not any(can_round('int4', inputs) for inputs in (48, 96, 160, 588))
    assert can_round('int8', 588)


def test_an_input_channel_that_reaches_far_is_evened_out_for_int8() -> None:
    rows, weight = drawn(1, 300, 64, 32)
    rows[:, 5] *= 80
    rounding, = best_roundings('int8', rows, np.abs(rows).max(axis=0), [weight])
    assert rounding.smoothing is not None
    assert rounding.smoothing[5] == rounding.smoothing.min()
    plain, = best_roundings('int8', np.delete(rows, 5, 1), np.abs(np.delete(rows, 5, 1)).max(axis=0), [np.delete(weight, 5, 0)])
    assert relative_error(rounding, rows, weight) < 2 * relative_error(plain, np.delete(rows, 5, 1), np.delete(weight, 5, 0))


def test_int4_spends_its_precision_on_the_channels_that_carry_most() -> None:
    rows, weight = drawn(2, 300, 128, 32)
    rows[:, ::16] *= 12
    rounding, = best_roundings('int4', rows, np.abs(rows).max(axis=0), [weight])
    even = np.ones_like(rows)
    blind, = best_roundings('int4', even, even[0], [weight])
    assert relative_error(rounding, rows, weight) < 0.8 * relative_error(blind, rows, weight)


def test_weights_that_share_an_input_share_what_is_done_to_it() -> None:
    rows, weight = drawn(3, 300, 64, 32)
    rows[:, 7] *= 50
    roundings = best_roundings('int8', rows, np.abs(rows).max(axis=0), [weight, weight[:, :16] * 3, weight[:, 16:] / 3])
    assert len({rounding.input_scale for rounding in roundings}) == 1
    for rounding in roundings[1:]:
        np.testing.assert_array_equal(rounding.smoothing, roundings[0].smoothing)


@pytest.mark.parametrize('kind', ['int8', 'int4'])
def test_columns_channels_and_rows_of_nothing_but_zeros_do_no_harm(kind: str) -> None:
    rows, weight = drawn(4, 50, 128, 16)
    weight[:, 3] = 0
    rows[:, 9] = 0
    weight[10] = 0
    rounding, = best_roundings(kind, rows, np.abs(rows).max(axis=0), [weight])
    assert np.isfinite(rounding.rounded_weight(weight)).all()
    assert not rounding.rounded_weight(weight)[:, 3].any()
    nothing, = best_roundings(kind, 0 * rows, 0 * rows[0], [0 * weight])
    assert not nothing.rounded_weight(0 * weight).any()
    assert (nothing.weight_scale > 0).all()


def test_the_same_rows_give_the_same_scales() -> None:
    rows, weight = drawn(5, 100, 128, 16)
    first, second = (best_roundings('int4', rows, np.abs(rows).max(axis=0), [weight])[0] for _ in range(2))
    assert first.weight_scale.tobytes() == second.weight_scale.tobytes()
