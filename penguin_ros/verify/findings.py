"""What a comparison of found with expected numbers came to. Knows nothing of what the numbers mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Record = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class CaseResult:
    """One case: it passes when nothing is wrong. ``skipped`` says why it was not looked at."""

    name: str
    largest_error: float = 0.0      # in units of what the case's tolerance is stated in: absolute, or relative for models
    faults: tuple[str, ...] = ()
    skipped: str = ''

    @property
    def passed(self) -> bool:
        return not self.faults and not self.skipped


@dataclass
class Findings:
    """Collects what is wrong with one case while it is compared."""

    faults: list[str] = field(default_factory=list)
    largest_error: float = 0.0

    def equal(self, what: str, stored: Any, computed: Any) -> None:
        """A stored value must be exactly what was computed."""
        if stored != computed or isinstance(stored, bool) != isinstance(computed, bool):
            self.faults.append(f'{what} is {_short(stored)}, computed {_short(computed)}')

    def close(self, what: str, stored: Any, computed: Any, tolerance: float, *, relative: bool = False) -> None:
        """Stored numbers must be near the computed ones, of equal shape; relative to the largest magnitude if asked."""
        one, other = np.asarray(stored, dtype=np.float64), np.asarray(computed, dtype=np.float64)
        if one.shape != other.shape:
            self.faults.append(f'{what} has the shape {list(one.shape)}, computed {list(other.shape)}')
            return
        if not one.size:
            return
        error = float(np.abs(one - other).max())
        if relative:
            error /= float(np.abs(other).max()) or 1.0
        if np.isfinite(error):
            self.largest_error = max(self.largest_error, error)
        if not error <= tolerance:  # NaN fails too
            self.faults.append(f'{what} is off by {error:.2g}, at most {tolerance:g} is allowed')

    def known_fields(self, record: Record, names: set[str]) -> None:
        """A field that nothing checks must not look as if something did."""
        for name in sorted(set(record) - names):
            self.faults.append(f'{name} is not a field of these cases')


def read_arrays(path: Path) -> Arrays:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON content as bytes that do not depend on how it was written."""
    return json.dumps(value, sort_keys=True, separators=(',', ':')).encode()


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f'{text[:40]}... ({len(text)} characters)'
