"""Export a checkpoint folder and print the peak memory it took, in bytes above an idle process.

    python tests/model/measure_exporting.py FOLDER OUT fp16

Test tool for Linux. Run in a process of its own, since a peak is a property of the process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peak_memory import PeakMemory

from penguin_ros.model.export import ExportOptions, export_checkpoint


def main() -> None:
    folder, out, precision = sys.argv[1:]
    peak = PeakMemory()
    export_checkpoint(folder, out, ExportOptions(precision=precision))
    print(json.dumps({'file_bytes': sum(file.stat().st_size for file in Path(folder).glob('*.safetensors')),
                      'peak_bytes': peak.bytes()}))


if __name__ == '__main__':
    main()
