"""Share a window's tokens over its frames. Knows nothing of pixels (grid.py) or of what a keyframe is (keyframe.py)."""

from __future__ import annotations

from dataclasses import dataclass

from penguin_ros.core.errors import ConfigError
from penguin_ros.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """How many vision tokens the retained frames of all cameras may have."""

    window_tokens: int = setting(512, 'most vision tokens held at any moment, all cameras together', low=16, high=131072,
                                 live=True)
    min_frame_tokens: int = setting(16, 'fewest vision tokens of a frame that is kept', low=1, high=4096, live=True)
    keyframe_weight: float = setting(16.0, "a keyframe's share of what is left over, beside an intermediate frame's 1",
                                     low=1.0, high=1000.0, live=True)

    def __post_init__(self) -> None:
        if self.min_frame_tokens > self.window_tokens:
            raise ConfigError(
                f'min_frame_tokens is {self.min_frame_tokens}; with window_tokens {self.window_tokens} it can be 1 to '
                f'{self.window_tokens}. Lower min_frame_tokens or raise window_tokens.')
