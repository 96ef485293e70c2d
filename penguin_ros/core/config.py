"""Which settings a user may turn, with unit, range and default. Knows nothing of where their values come from.

Each is declared once; ROS parameters, `penguin run --set` and parameter files are all read from these declarations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penguin_ros.core.errors import ConfigError
from penguin_ros.core.keyframe import KeyframeSettings
from penguin_ros.core.settings import read_settings, setting
from penguin_ros.core.token_budget import TokenBudget

CAMERA_NAME = re.compile(r'[a-z][a-z0-9_]*')


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Which recent frames the model may look at."""

    frames: int = setting(12, 'most frames of one camera the model may look back on', low=1, high=512, live=True)
    interval_s: float = setting(
        1.0, 'least seconds between two intermediate frames that are read; a keyframe is read at once',
        low=0.0, high=60.0, live=True)
    kept_images: int = setting(
        32, 'camera images of one camera kept for questions about the past (memory: 3 bytes a pixel)', low=1, high=512)


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """When a caption is written, and how much."""

    instruction: str = setting('', "what the model is asked for a caption; empty: the model's own", live=True)
    interval_s: float = setting(0.5, 'least seconds between two captions of one camera', low=0.0, high=3600.0, live=True)
    refresh_s: float = setting(
        30.0, 'longest seconds an unchanged caption stands before it is written again; 0: for ever',
        low=0.0, high=86400.0, live=True)
    detail: float = setting(
        1.0, 'how much of its full detail an intermediate frame gets when it is captioned, 0 to 1; a keyframe has all of it',
        low=0.0, high=1.0, live=True)
    max_new_tokens: int = setting(160, 'most tokens of a caption', low=1, high=2048, live=True)
    deadline_s: float = setting(10.0, 'longest seconds a caption may take to write', low=0.05, high=120.0, live=True)
    drafted: bool = setting(True, 'use the last caption as a draft: same text, fewer engine calls', live=True)


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """Questions: how long, how many, how closely the image is looked at."""

    max_prompt_tokens: int = setting(256, 'most tokens a question may have', low=8, high=4096, live=True)
    max_new_tokens: int = setting(96, 'most tokens of an answer', low=1, high=2048, live=True)
    timeout_s: float = setting(10.0, 'seconds until a question without its own timeout is given up', low=0.1, high=600.0,
                               live=True)
    waiting: int = setting(8, 'most questions that may wait; a further one is refused', low=1, high=256)
    detail_tokens: int = setting(
        128, 'most visual tokens of the closer look taken for a question about a region or a past frame; they are let go '
        'with the answer', low=16, high=4096, live=True)


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """How fast results should come, and what is given up for it."""

    target_ms: float = setting(
        0.0, 'age a result should have at most, milliseconds: the token budget follows; 0: no target',
        low=0.0, high=60000.0, live=True)
    stale_after_s: float = setting(2.0, 'seconds without an image after which a camera is STALE', low=0.1, high=600.0,
                                   live=True)


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """One camera."""

    name: str = ''
    image_topic: str = setting('', 'topic of the images; empty: NAME/image_raw, or NAME/image_raw/compressed')
    compressed: bool = setting(False, 'the topic carries sensor_msgs/CompressedImage')
    priority: float = setting(1.0, 'share of service beside other cameras, 1 is normal', low=0.1, high=100.0)

    @property
    def topic(self) -> str:
        return self.image_topic or f'{self.name}/image_raw' + ('/compressed' if self.compressed else '')


@dataclass(frozen=True, kw_only=True)
class PenguinConfig:
    """Everything a node is configured with, its cameras apart."""

    engine: str = setting('nano', 'folder of the built engine, or the name of a shipped one')
    backend: str = setting('auto', 'what runs the engine; auto: what it was built for',
                           choices=('auto', 'onnx', 'tensorrt', 'torch'))
    threads: int = setting(1, 'CPU threads of one engine call (ONNX Runtime)', low=1, high=64)
    cameras: tuple[str, ...] = setting(('camera',), 'names of the cameras; each has its own parameters camera.NAME.*')
    max_image_pixels: int = setting(16_000_000, 'largest image that is accepted, pixels', low=784, high=268_435_456)
    annotated: bool = setting(True, 'offer an image with the boxes drawn; it is drawn only while someone subscribes')
    autostart: bool = setting(False, 'configure and activate without waiting to be told')
    token_budget: TokenBudget = field(default_factory=TokenBudget)
    keyframe: KeyframeSettings = field(default_factory=KeyframeSettings)
    window: WindowConfig = field(default_factory=WindowConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    ask: AskConfig = field(default_factory=AskConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ConfigError("cameras is empty. Name at least one, for example ['front'].")
        for name in self.cameras:
            if not CAMERA_NAME.fullmatch(name):
                raise ConfigError(
                    f'{name!r} cannot name a camera. Use small letters, digits and _, starting with a letter; the topic '
                    'itself goes into camera.NAME.image_topic.')
        if len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f'cameras names one twice: {", ".join(self.cameras)}. Give each its own name.')


def read_config(values: Mapping[str, Any]) -> PenguinConfig:
    """The node's configuration from dotted values. Raises ConfigError with what to change."""
    return read_settings(PenguinConfig, values)


def camera_prefix(name: str) -> str:
    """Where one camera's settings live: ``camera.front.``."""
    return f'camera.{name}.'


def read_camera(name: str, values: Mapping[str, Any]) -> CameraConfig:
    """One camera's configuration from dotted values; the name itself is not a setting."""
    return replace(read_settings(CameraConfig, values, camera_prefix(name)), name=name)
