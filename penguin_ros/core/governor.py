"""How much less is done when results come too late, and when more is done again. Knows nothing of what is measured.

The degradation ladder (design section 6): full -> smaller budget -> keyframes only. STALE, the last step, is not chosen
but found out (node.py). Down quickly, up slowly, with a band in between where nothing moves, so that it does not swing.
"""

from __future__ import annotations

SMOOTHING = 0.3             # weight of the newest latency
COMFORT = 0.75              # below this share of the target the budget may grow again
SMALLEST_SHARE = 0.2        # of the configured budget; below that fewer captions help more than fewer tokens
STEP_DOWN, STEP_UP = 0.7, 1.05
PATIENCE = 5                # results in a row before captions are given up, and four times as many before they return


class Governor:
    """Follows one latency target."""

    def __init__(self) -> None:
        self.share = 1.0                # of the configured token budget
        self.keyframes_only = False
        self._smoothed_ms = 0.0
        self._late = 0
        self._early = 0

    @property
    def reason(self) -> str:
        """What is given up at present; empty for nothing."""
        if self.keyframes_only:
            return f'results take {self._smoothed_ms:.0f} ms: token budget at {self.share:.0%}, captions at keyframes only'
        return f'results take {self._smoothed_ms:.0f} ms: token budget at {self.share:.0%}' if self.share < 1.0 else ''

    def note(self, total_ms: float, target_ms: float) -> None:
        """Take in one result's latency; a target of 0 asks for everything that is configured."""
        if target_ms <= 0:
            self.share, self.keyframes_only, self._smoothed_ms, self._late, self._early = 1.0, False, 0.0, 0, 0
            return
        self._smoothed_ms += (total_ms - self._smoothed_ms) * (SMOOTHING if self._smoothed_ms else 1.0)
        if self._smoothed_ms > target_ms:
            self._early = 0
            self._late += self.share <= SMALLEST_SHARE
            self.share = max(SMALLEST_SHARE, self.share * max(STEP_DOWN, target_ms / self._smoothed_ms))
            self.keyframes_only = self.keyframes_only or self._late >= PATIENCE
        elif self._smoothed_ms < COMFORT * target_ms:
            self._late = 0
            self._early += 1
            if not self.keyframes_only:
                self.share = min(1.0, self.share * STEP_UP)
            elif self._early >= 4 * PATIENCE:
                self.keyframes_only, self._early = False, 0
        else:
            self._late = self._early = 0
