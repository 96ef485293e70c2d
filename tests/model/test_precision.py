"""Training multiplies in bfloat16 only where the device is fast in it."""

from __future__ import annotations

import pytest
import torch

from penguin_ros.model.precision import fast_math, fast_type

CPU = torch.device('cpu')


@pytest.mark.parametrize(('capability', 'dtype'), [
    ('AVX512', torch.bfloat16), ('AVX2', torch.float32), ('DEFAULT', torch.float32), ('SVE256', torch.float32)])
def test_a_cpu_without_avx512_multiplies_in_float32(monkeypatch: pytest.MonkeyPatch, capability: str,
                                                    dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    assert fast_type(CPU) == dtype
    with fast_math(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_gpu_multiplies_in_bfloat16() -> None:
    assert fast_type(torch.device('cuda')) == torch.bfloat16


def test_the_type_can_be_asked_for() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        with fast_math(CPU, dtype):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
