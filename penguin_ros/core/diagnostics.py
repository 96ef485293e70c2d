"""What /diagnostics says of a camera and of the engines: level, one sentence, figures. Knows nothing of messages.

Levels and the habit of one status per part follow REP 107.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from penguin_ros.core.health import CameraHealth, Health
from penguin_ros.core.scene import Status


class Level(enum.IntEnum):
    """diagnostic_msgs/DiagnosticStatus levels."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Finding:
    """One diagnostic status."""

    part: str               # 'camera front', 'engines'
    level: Level
    text: str
    values: dict[str, str]


def camera_finding(name: str, camera: CameraHealth, *, now_s: float, stale_after_s: float) -> Finding:
    """How one camera is doing. ``now_s`` is monotonic."""
    values = {
        'images arrived': str(camera.arrived), 'images superseded by newer ones': str(camera.superseded),
        'images looked at': str(camera.looked_at), 'captions written': str(camera.captions),
        'unchanged': str(camera.unchanged), 'keyframes': str(camera.keyframes),
        'malformed boxes': str(camera.malformed_boxes), 'images refused': str(sum(camera.refused.values())),
        'rate_hz': f'{1.0 / camera.period_s:.2f}' if camera.period_s > 0 else '0.00',
        'last error': camera.last_error}
    values |= {f'refused: {kind}': str(count) for kind, count in sorted(camera.refused.items())}
    scene = camera.scene
    if scene is not None:
        values |= {
            'age_ms': f'{scene.age_ms:.1f}', 'tokens limit': str(scene.tokens.limit), 'tokens used': str(scene.tokens.used),
            'tokens encoded': str(scene.tokens.encoded), 'frames held': str(scene.tokens.frames),
            'keyframes held': str(scene.tokens.keyframes), 'frames dropped': str(scene.tokens.dropped),
            'keyframe reason': scene.keyframe_reason, 'status': scene.status.name}
    if not camera.arrived:
        return Finding(f'camera {name}', Level.ERROR, 'no image has arrived; check the topic and its publisher', values)
    silent_s = now_s - camera.last_arrival_s
    if silent_s > stale_after_s:
        return Finding(f'camera {name}', Level.STALE, f'no image for {silent_s:.1f} s; check the camera driver', values)
    if now_s - camera.last_good_s > stale_after_s and camera.last_error:
        return Finding(f'camera {name}', Level.ERROR, camera.last_error, values)
    if scene is not None and scene.status is not Status.OK:
        return Finding(f'camera {name}', Level.WARN, scene.reason, values)
    return Finding(f'camera {name}', Level.OK, 'images arrive and are described', values)


def engine_finding(health: Health, figures: dict[str, str]) -> Finding:
    """How the engines are doing; ``figures`` are the backend's and the ladder's own."""
    values = figures | {
        'questions': str(health.questions), 'answers': str(health.answers),
        'questions failed': str(sum(health.failed_questions.values())),
        'engine failures': str(health.engine_failures), 'last engine failure': health.last_engine_failure}
    values |= {f'questions failed: {kind}': str(count) for kind, count in sorted(health.failed_questions.items())}
    if health.engine_failures:
        text = f'{health.engine_failures} failures, the last: {health.last_engine_failure}'
        return Finding('engines', Level.WARN, text, values)
    return Finding('engines', Level.OK, 'the engines run', values)
