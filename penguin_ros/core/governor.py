"""How much less is done when results come too late, and when more is done again. Knows nothing of what is measured.

The degradation ladder (design section 6): full -> smaller budget -> fewer captions -> keyframes only. STALE, the last step,
is not chosen but found out (node.py). Judged by the second-latest of the last results, a 95th percentile of twenty: above
the target the budget jumps to where it should fit, well below it grows by small steps, in between nothing moves. A growth
that made results late is taken back and not tried again for a while, longer each time, so that nothing swings.
"""

from __future__ import annotations

from collections import deque

AIM = 0.75                  # of the target: where a cut leads; with 10 % noise the latest of twenty is then still in time
COMFORT = 0.72              # with a step of GROWTH and that noise a budget that grows from here ends inside the band
GROWTH = 1.08
SMALLEST_SHARE = 0.2        # of the configured budget; below that fewer captions help more than fewer tokens
FIXED_PART = 0.3            # of the time of a look, taken not to shrink with the budget
SHORTEST_GAP_S, LONGEST_GAP_S = 0.5, 4.0    # between two captions of a camera, doubled step by step
SHORTEST_HOLD_S, LONGEST_HOLD_S = 60.0, 480.0   # without growth after one that was too much
RESULTS = 20                # a judgement that all is well takes so many results in a row
LATE_RESULTS = 2            # a judgement that results are late takes so many of them


class Governor:
    """Follows one latency target."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self.share = 1.0                # of the configured token budget
        self.caption_gap_s = 0.0        # least time between two captions of one camera, beside what is configured
        self.keyframes_only = False
        self._results_ms: deque[float] = deque(maxlen=RESULTS)
        self._settled_s = float('-inf')
        self._late_ms = 0.0
        self._before_growth: tuple[float, float, bool] | None = None    # where the last change was a growth
        self._hold_s = SHORTEST_HOLD_S
        self._held_until_s = float('-inf')

    @property
    def step(self) -> str:
        """Which step of the ladder is in force."""
        if self.keyframes_only:
            return 'keyframes only'
        if self.caption_gap_s:
            return 'fewer captions'
        return 'smaller budget' if self.share < 1.0 else 'full'

    @property
    def reason(self) -> str:
        """What is given up at present; empty for nothing."""
        given_up = [f'token budget at {self.share:.0%}'] if self.share < 1.0 else []
        if self.keyframes_only:
            given_up.append('captions at keyframes only')
        elif self.caption_gap_s:
            given_up.append(f'{self.caption_gap_s:g} s between captions')
        return f'results took {self._late_ms:.0f} ms: {", ".join(given_up)}' if given_up else ''

    def note(self, total_ms: float, target_ms: float, now_s: float) -> None:
        """Take in one result's latency, ready at ``now_s``; a target of 0 asks for everything that is configured.

        What came in before the last change had settled says nothing of it and is passed over.
        """
        if target_ms <= 0:
            self._restart()
            return
        if now_s - total_ms / 1e3 < self._settled_s:
            return
        self._results_ms.append(total_ms)
        late = [result for result in self._results_ms if result > target_ms]
        if len(late) >= LATE_RESULTS:
            self._late_ms = sum(late) / len(late)
            if self._before_growth:
                self._take_back(self._before_growth, now_s)
                now_s += self._late_ms / 1e3    # what waits already is late too
            else:
                self._do_less(target_ms)
            self._before_growth = None
        elif self._has_room(target_ms) and now_s >= self._held_until_s:
            self._before_growth = self.share, self.caption_gap_s, self.keyframes_only
            self._do_more()
        else:
            return
        self._results_ms.clear()
        self._settled_s = now_s

    def _has_room(self, target_ms: float) -> bool:
        return (self.step != 'full' and len(self._results_ms) == RESULTS
                and sorted(self._results_ms)[-2] < COMFORT * target_ms)

    def _take_back(self, before: tuple[float, float, bool], now_s: float) -> None:
        self.share, self.caption_gap_s, self.keyframes_only = before
        self._held_until_s = now_s + self._hold_s
        self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S)

    def _do_less(self, target_ms: float) -> None:
        if self.share > SMALLEST_SHARE:
            fixed_ms = FIXED_PART * self._late_ms
            fits = max(0.0, AIM * target_ms - fixed_ms) / (self._late_ms - fixed_ms)
            self.share = max(SMALLEST_SHARE, self.share * fits)
        elif self.caption_gap_s < LONGEST_GAP_S:
            self.caption_gap_s = max(SHORTEST_GAP_S, 2 * self.caption_gap_s)
        else:
            self.keyframes_only = True

    def _do_more(self) -> None:
        """One step back up, in the opposite order."""
        if self.keyframes_only:
            self.keyframes_only = False
        elif self.caption_gap_s:
            self.caption_gap_s = self.caption_gap_s / 2 if self.caption_gap_s > SHORTEST_GAP_S else 0.0
        else:
            self.share = min(1.0, self.share * GROWTH)
