"""A live view in the Rerun viewer: images with boxes, captions, token budget and latency. Knows no middleware.

Rerun is an optional extra; nothing else imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from penguin_ros.core.errors import PenguinError

STATUS_WORDS = ('OK', 'DEGRADED', 'STALE')


class Viewer:
    """Shows scenes as they come. Messages have ROS attribute names (SceneDescription.msg)."""

    def __init__(self, *, save: Path | None = None) -> None:
        """Opens the viewer's window, or records into ``save`` (.rrd) without one."""
        try:
            import rerun
            import rerun.blueprint
        except ImportError as error:
            raise PenguinError(f"the live view needs Rerun: {error}. Install it: pip install 'penguin_ros[view]'.") from error
        self._rerun: Any = rerun
        rerun.init('penguin_ros', spawn=save is None)
        if save is not None:
            rerun.save(str(save))
        self._cameras: set[str] = set()
        rerun.send_blueprint(self._layout([]))

    def show_image(self, camera: str, rgb: np.ndarray, stamp_ns: int) -> None:
        """One camera image, uint8 [H, W, 3]."""
        self._at(camera, stamp_ns)
        self._rerun.log(f'{camera}/image', self._rerun.Image(rgb).compress(jpeg_quality=85))

    def show_jpeg(self, camera: str, data: bytes, stamp_ns: int) -> None:
        """One camera image that is compressed already."""
        self._at(camera, stamp_ns)
        self._rerun.log(f'{camera}/image', self._rerun.EncodedImage(contents=data, media_type='image/jpeg'))

    def show_scene(self, scene: Any) -> None:
        """Boxes, caption, budget and latency of one scene."""
        rerun, camera = self._rerun, scene.camera
        self._at(camera, scene.header.stamp.sec * 1_000_000_000 + scene.header.stamp.nanosec)
        boxes = [phrase for phrase in scene.phrases if phrase.has_box]
        rerun.log(f'{camera}/image/boxes', rerun.Boxes2D(
            array=np.array([[p.x_min, p.y_min, p.x_max, p.y_max] for p in boxes], dtype=np.float32).reshape(-1, 4),
            array_format=rerun.Box2DFormat.XYXY, labels=[f'{p.text} {p.confidence:.2f}' for p in boxes],
            class_ids=[p.track_id for p in boxes]))
        captioned = scene.caption_stamp == scene.header.stamp
        state = ('unchanged' if scene.unchanged else f'keyframe ({scene.keyframe_reason})' if scene.keyframe
                 else 'caption' if captioned else 'changing')
        rerun.log(f'{camera}/caption', rerun.TextDocument(
            f'**{scene.caption or "..."}**\n\n{STATUS_WORDS[scene.status]} {scene.reason}\n\n{state}, '
            f'confidence {scene.confidence:.2f}, age {scene.age_ms:.0f} ms', media_type='text/markdown'))
        if captioned:
            rerun.log('log', rerun.TextLog(f'{camera}: {scene.caption}', level='INFO'))
        for name, value in (('limit', scene.tokens.limit), ('held', scene.tokens.used), ('encoded', scene.tokens.encoded)):
            rerun.log(f'tokens/{name}', rerun.Scalars(float(value)))
        for name in ('encode_ms', 'prefill_ms', 'decode_ms', 'total_ms'):
            rerun.log(f'latency/{camera}/{name}', rerun.Scalars(float(getattr(scene.latency, name))))
        rerun.log(f'latency/{camera}/age_ms', rerun.Scalars(float(scene.age_ms)))

    def show_answer(self, question: str, answer: str) -> None:
        self._rerun.log('log', self._rerun.TextLog(f'{question} -> {answer}', level='WARN'))

    def close(self) -> None:
        self._rerun.disconnect()

    def _at(self, camera: str, stamp_ns: int) -> None:
        self._rerun.set_time('stamp', timestamp=stamp_ns * 1e-9)
        if camera not in self._cameras:
            self._cameras.add(camera)
            self._rerun.send_blueprint(self._layout(sorted(self._cameras)))

    def _layout(self, cameras: list[str]) -> Any:
        """Each camera with its caption below; budget, latency and the log beside them."""
        view = self._rerun.blueprint
        seen = [view.Vertical(view.Spatial2DView(origin=f'{camera}/image', name=camera),
                              view.TextDocumentView(origin=f'{camera}/caption', name='caption'), row_shares=[4, 1])
                for camera in cameras]
        figures = view.Vertical(view.TimeSeriesView(origin='tokens', name='visual tokens'),
                                view.TimeSeriesView(origin='latency', name='milliseconds'), view.TextLogView(origin='log'))
        return view.Blueprint(view.Horizontal(view.Grid(*seen), figures, column_shares=[2, 1]), collapse_panels=True)
