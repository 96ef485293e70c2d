"""How the doctor sees the machine: files, commands, Python packages. Knows nothing of what they mean.

Packages are imported in a process of their own, since a broken one may end the process that imports it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 60.0      # the first import of TensorRT on a Jetson takes several seconds


@dataclass
class Surroundings:
    """The machine; a test gives another ``root`` and other answers."""

    root: Path = Path('/')

    def read(self, path: str) -> str | None:
        """The content of a file, or None where there is none or it may not be read."""
        try:
            return (self.root / path.lstrip('/')).read_text(encoding='utf-8', errors='replace').strip('\0\n ')
        except OSError:
            return None

    def find(self, pattern: str) -> list[Path]:
        """Files by pattern, without the root."""
        return [Path('/') / path.relative_to(self.root) for path in sorted(self.root.glob(pattern.lstrip('/')))]

    def run(self, *command: str) -> str | None:
        """What a command prints, or None where it is missing or fails."""
        works, text = self._output(command)
        return text if works else None

    def ask_python(self, code: str) -> tuple[bool, str]:
        """Whether a piece of Python runs, and what it prints or the last line of its error."""
        return self._output([sys.executable, '-c', code])

    def _output(self, command: Sequence[str]) -> tuple[bool, str]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return False, str(error)
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [f'status {done.returncode}']
        return done.returncode == 0, '\n'.join(lines) if done.returncode == 0 else lines[-1]
