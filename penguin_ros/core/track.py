"""Is this region the same thing as before. Knows nothing of how regions were found.

A thing is followed by its words and its place: the same words and the nearest place first, whatever else overlaps well
second. Ids are never used twice by one follower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penguin_ros.core.frame import Region
from penguin_ros.core.scene import GroundedPhrase

REMEMBERED_S = 5.0          # a thing not seen for longer starts as a new one
LEAST_OVERLAP = 0.3         # of regions with different words
WIDEST_STEP = 1.5           # same words: centres at most this many (mean) sides apart


@dataclass
class _Track:
    track_id: int
    words: str
    region: Region
    stamp_ns: int


class Tracker:
    """Gives the phrases of one camera's captions their track ids."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last_id = 0

    def clear(self) -> None:
        """Forget what was followed; ids go on."""
        self._tracks.clear()

    def follow(self, phrases: Sequence[GroundedPhrase], stamp_ns: int) -> tuple[GroundedPhrase, ...]:
        """The phrases with their track ids; a phrase without a region keeps 0."""
        self._tracks = [track for track in self._tracks if stamp_ns - track.stamp_ns <= REMEMBERED_S * 1e9]
        open_tracks = list(self._tracks)
        ids = [0] * len(phrases)
        pairs = sorted(
            ((_likeness(phrase, track), -index, number)
             for index, phrase in enumerate(phrases) if phrase.region is not None
             for number, track in enumerate(open_tracks)), reverse=True)
        taken: set[int] = set()
        for likeness, negative_index, number in pairs:
            if likeness <= 0:
                break
            if ids[-negative_index] or number in taken:
                continue
            taken.add(number)
            track, phrase = open_tracks[number], phrases[-negative_index]
            assert phrase.region is not None
            track.words, track.region, track.stamp_ns = phrase.text, phrase.region, stamp_ns
            ids[-negative_index] = track.track_id
        for index, phrase in enumerate(phrases):
            if phrase.region is not None and not ids[index]:
                self._last_id += 1
                ids[index] = self._last_id
                self._tracks.append(_Track(self._last_id, phrase.text, phrase.region, stamp_ns))
        return tuple(replace(phrase, track_id=track_id) for phrase, track_id in zip(phrases, ids))


def _likeness(phrase: GroundedPhrase, track: _Track) -> float:
    """0 for surely another thing; above 1 with the same words, by nearness; below 1 by overlap alone."""
    assert phrase.region is not None
    here, there = phrase.region, track.region
    if phrase.text != track.words:
        overlap = here.overlap(there)
        return overlap if overlap >= LEAST_OVERLAP else 0.0
    side = (here.width_px + here.height_px + there.width_px + there.height_px) / 4
    across = (here.x_min + here.x_max - there.x_min - there.x_max) / 2
    down = (here.y_min + here.y_max - there.y_min - there.y_max) / 2
    steps = (across ** 2 + down ** 2) ** 0.5 / max(side, 1.0)
    return 2.0 - steps / WIDEST_STEP if steps < WIDEST_STEP else 0.0
