"""Load a checkpoint folder, use every weight once and print the peak memory it took, in bytes above an idle process.

    python tests/model/measure_loading.py FOLDER [float32]

Test tool for Linux: it reads /proc/self. Run in a process of its own, since a peak is a property of the process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peak_memory import PeakMemory

from penguin_ros.model.checkpoint import load_model


def main() -> None:
    torch.ones(256, 256, dtype=torch.bfloat16).sum()  # what torch reserves on first use is not the checkpoint's
    peak = PeakMemory()
    model = load_model(sys.argv[1], dtype=getattr(torch, sys.argv[2]) if len(sys.argv) > 2 else None)
    values = 0
    for parameter in model.parameters():
        assert bool(parameter.detach().sum().isfinite())
        values += parameter.numel()
    file_bytes = sum(file.stat().st_size for file in Path(sys.argv[1]).glob('*.safetensors'))
    peak_bytes = peak.bytes()
    print(json.dumps({'values': values, 'file_bytes': file_bytes, 'peak_bytes': peak_bytes,
                      'ratio': round(peak_bytes / file_bytes, 4)}))


if __name__ == '__main__':
    main()
