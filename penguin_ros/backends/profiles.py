"""Which shapes the engines are tuned for: three profiles of the language engine, one of the vision engine. No TensorRT here.

The rows that a call reads besides its own, P, and the width of its mask, S = P + T, vary together. TensorRT wants each
corner of a profile (least, usual, most) to be possible by itself, so S is P + T at every corner, though no call is ever
wider than the cache. Source: reference/tensorrt.md 2.2.
"""

from __future__ import annotations

from penguin_ros.backends.manifest import Profile
from penguin_ros.core.decode import VERIFY_TOKENS

Range = tuple[int, int, int]


def language_profiles(*, max_append: int, cache_rows: int) -> tuple[Profile, ...]:
    """decode (one row), verify (a draft) and prefill (a prompt), the tightest first; the weights exist once."""
    few = min(VERIFY_TOKENS, max_append)
    return (_language('decode', (1, 1, 1), (1, 1, 1), cache_rows),
            _language('verify', (1, few, few), (1, few, few), cache_rows),
            _language('prefill', (1, max(1, max_append // 2), max_append), (1, 1, few), cache_rows))


def vision_profiles(*, merge: int, max_patches: int) -> tuple[Profile, ...]:
    """Frames from one merge window up; tuned for half the largest."""
    windows = max_patches // merge**2
    counts = tuple(count * merge**2 for count in (1, max(1, windows // 2), windows))
    return (Profile('frame', {'N': (counts[0], counts[1], counts[2])}),)


def _language(name: str, rows: Range, logit_rows: Range, cache_rows: int) -> Profile:
    past = (1, max(1, cache_rows // 2), cache_rows - 1)
    together = (rows[0] + past[0], rows[1] + past[1], rows[2] + past[2])
    return Profile(name, {'T': rows, 'R': logit_rows, 'P': past, 'S': together})
