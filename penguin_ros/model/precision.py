"""In which numbers a device multiplies matrices fastest. Knows nothing of models."""

from __future__ import annotations

import torch


def fast_type(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on CPUs with AVX-512, else float32: without it torch spells out every product of two bfloat16.

    One step of the nano model's recipe took 23 s in bfloat16 on a core with AVX2, and 1.7 s in float32.
    """
    if device.type == 'cuda' or torch.backends.cpu.get_cpu_capability() == 'AVX512':
        return torch.bfloat16
    return torch.float32


def fast_math(device: torch.device, dtype: torch.dtype | None = None) -> torch.autocast:
    """Matrix products inside are in ``dtype``, None for the device's fast_type; sums and norms stay float32."""
    dtype = dtype or fast_type(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
