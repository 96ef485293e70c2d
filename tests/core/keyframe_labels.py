"""What the labels of golden_streaming ask of a set of keyframes. Knows nothing of pixels or detectors."""

from __future__ import annotations

from typing import Any


def broken_rules(case: dict[str, Any], keyframes: list[int]) -> list[str]:
    """The rules of a labelled sequence that these keyframe indices break; empty when it passes."""
    keys = set(keyframes)

    def any_key(first: int, last: int) -> bool:
        return not keys.isdisjoint(range(first, last + 1))

    most = case['max_keyframes'] if case['max_keyframes'] is not None else case['frames']
    checks = [
        ('indices are distinct and within the sequence',
         len(keys) == len(keyframes) and keys <= set(range(case['frames']))),
        ('frame 0 is a keyframe', 0 in keys),
        *((f'a keyframe at {due} or one later', any_key(due, due + 1)) for due in case['must_fire']),
        *((f'a keyframe from {first} to {last}', any_key(first, last)) for first, last in case['fire_windows']),
        *((f'no keyframe at {index}', index not in keys) for index in case['must_not_fire']),
        (f'{case["min_keyframes"]} to {most} keyframes', case['min_keyframes'] <= len(keys) <= most),
        *((f'a keyframe from {rule["then"]} after one from {rule["fired"]}',
           any_key(*rule['then']) or not any_key(*rule['fired'])) for rule in case['if_then']),
    ]
    return [rule for rule, kept in checks if not kept]
