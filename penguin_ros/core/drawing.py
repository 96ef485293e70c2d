"""A scene drawn over its image, for people. Knows nothing of where the picture goes."""

from __future__ import annotations

import cv2
import numpy as np

from penguin_ros.core.scene import GroundedPhrase, Scene, Status

_PALETTE = ((230, 75, 60), (60, 180, 90), (65, 120, 235), (240, 190, 40), (170, 90, 220), (40, 190, 200), (240, 130, 50))
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_scene(rgb: np.ndarray, scene: Scene) -> np.ndarray:
    """A copy of the image, uint8 [H, W, 3] RGB, with boxes, words, confidences and a line on the scene's state."""
    drawn = np.ascontiguousarray(rgb).copy()
    height_px = drawn.shape[0]
    scale = max(height_px / 720.0, 0.35)
    thickness = max(1, round(2 * scale))
    for index, phrase in enumerate(scene.phrases):
        _draw_phrase(drawn, phrase, _PALETTE[(phrase.track_id or index) % len(_PALETTE)], scale, thickness)
    words = {Status.OK: '', Status.DEGRADED: 'DEGRADED  ', Status.STALE: 'STALE  '}[scene.status]
    state = ('unchanged' if scene.unchanged else 'keyframe' if scene.keyframe
             else 'caption' if scene.captioned else 'changing')
    _label(drawn, f'{words}{state}  {scene.tokens.used}/{scene.tokens.limit} tokens', (0, height_px), (30, 30, 30), scale)
    return drawn


def _draw_phrase(drawn: np.ndarray, phrase: GroundedPhrase, colour: tuple[int, int, int], scale: float, thickness: int) -> None:
    if phrase.region is None:
        return
    box = phrase.region
    top_left = (round(box.x_min), round(box.y_min))
    cv2.rectangle(drawn, top_left, (round(box.x_max) - 1, round(box.y_max) - 1), colour, thickness, cv2.LINE_AA)
    _label(drawn, f'{phrase.text} {phrase.confidence:.2f}', top_left, colour, scale)


def _label(drawn: np.ndarray, text: str, bottom_left: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    """Text on a filled strip that stays inside the picture."""
    size = max(0.38, 0.55 * scale)     # smaller letters run into each other
    (width, height), base = cv2.getTextSize(text, _FONT, size, 1)
    x = min(max(bottom_left[0], 0), max(drawn.shape[1] - width, 0))
    y = min(max(bottom_left[1], height + base + 2), drawn.shape[0])
    cv2.rectangle(drawn, (x, y - height - base - 2), (x + width, y), colour, cv2.FILLED)
    cv2.putText(drawn, text, (x, y - base), _FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
