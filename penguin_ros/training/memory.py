"""What the decoder should know at each frame of a clip, and the loss that asks for it. Knows nothing of texts.

The auxiliary loss of objective.py gives the encoder a reason to see before anybody asks. Questions about number and time give
the decoder as thin a signal: a few tokens for a dozen frames. Here every visual token must tell, halfway up the decoder,
since when the thing under it has been in view, by frames and by the stamp, where it was then and what became of it. The last
token of every frame must tell how many things it shows, whether the path is clear and by how much, how the camera sits
(metres follow from that), which looks are here or gone, which came or went just now, by its own stamp and the one before,
what has changed since the first frame, and how far the robot itself went and turned: what only seems to move moves by that. A
question about a moment then finds its answer in one look. Heads are dropped after training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from penguin_ros.training.dataset import Clip, SceneFrame, SeenObject, shown_box
from penguin_ros.training.questions import changes_of
from penguin_ros.training.texts import COLOURS, KINDS

UNTOLD = -100
LONGEST_AGO = 12                # shown frames; clips have no more
MOST_COUNTED = 8
MOST_CHANGED = 4                # what came, moved, was painted or went is counted up to 3
CHANGES = ('came', 'moved', 'painted')      # what a thing in view can have gone through since the first frame shown
LOOKS = len(KINDS) * len(COLOURS)
COUNTED = 1 + len(KINDS) + len(COLOURS)
CHANGED_WEIGHT = 2.0            # whether a thing moved or was painted takes longest to learn
METRIC_WEIGHT = 5.0             # as of boxes in objective.py
PATH_WEIGHT = 3.0               # one answer of a frame beside those about dozens of looks
FAR_FROM_PATH_M = 1.0           # how far from the path's edge is enough to know
STAMP_DIGITS = 4                # hundreds, tens, ones and tenths of seconds


@dataclass
class FrameMemory:
    """Of one frame in its place among those shown; arrays of one row, or stacked over a batch's rows."""

    ago: np.ndarray         # int [.., tokens]: how many shown frames ago the thing under a token was first in view
    changed: np.ndarray     # float [.., tokens, 3]: CHANGES it went through, -1 where untold
    counts: np.ndarray      # int [.., COUNTED]: all things, of each kind, of each colour
    path: np.ndarray        # int [..]: 1 where the path is clear
    here: np.ndarray        # float [.., LOOKS]: -1 where half seen
    gone: np.ndarray        # float [.., LOOKS]: seen in an earlier frame and not now, -1 where untold
    first: np.ndarray       # int [.., tokens, STAMP_DIGITS]: of the frame in which the thing under a token was first in view
    stamp: np.ndarray       # int [.., STAMP_DIGITS]: of this frame
    before: np.ndarray      # int [.., STAMP_DIGITS]: of the frame shown before
    came: np.ndarray        # float [.., LOOKS]: here and not in the frame shown before, -1 where untold
    went: np.ndarray        # float [.., LOOKS]: in the frame shown before and not here, -1 where untold
    was: np.ndarray         # float [.., tokens, 4]: box of the thing under a token when it was first in view, nan where untold
    left: np.ndarray        # float [.., LOOKS]: of things that went since the first frame shown, -1 where untold
    changes: np.ndarray     # int [.., 4]: how many things came, moved, were painted (and are here), or went; UNTOLD
    ride: np.ndarray        # float [.., 2]: metres ahead and radians turned since the first frame shown, nan where untold
    path_gap: np.ndarray    # float [.., 1]: metres from the path to the nearest thing, negative in it, nan where untold
    camera: np.ndarray      # float [.., 3]: log of metres high, radians down, radians of vertical view, nan where untold


def frame_memory(clip: Clip, chosen: Sequence[int], times_s: Sequence[float], covering: np.ndarray, *,
                 whole: bool, flipped: bool = False) -> FrameMemory:
    """What there is to know at the last of the ``chosen`` frames, stamped ``times_s``.

    ``covering`` int [tokens] is a place in its objects, or -1. Since when a thing is there is not told where another one that
    looks alike was there before. Without ``whole`` older frames have lost tokens, so nothing is told that needs them. Of a
    ``flipped`` clip boxes and turns are mirrored.
    """
    frame, older = clip.frames[chosen[-1]], [clip.frames[index] for index in chosen[:-1]]
    told = whole and bool(older)
    count = len(frame.objects)
    ago, changed = np.full(count + 1, UNTOLD), np.full((count + 1, len(CHANGES)), -1.0, np.float32)
    first_stamp, was = np.full((count + 1, STAMP_DIGITS), UNTOLD), np.full((count + 1, 4), np.nan, np.float32)
    changes = changes_of(clip, chosen, list(range(len(chosen)))) if told else None
    here, gone = _labels(_looks(frame.objects)), np.full(LOOKS, -1.0, np.float32)
    here[_places(_looks(frame.faint) - _looks(frame.objects))] = -1.0
    if told:
        faint_ids = {one.id for shown in (*older, frame) for one in shown.faint}
        for place, one in enumerate(frame.objects):
            first = next((slot for slot, shown in enumerate(older) if any(one.id == other.id for other in shown.objects)),
                         len(older))
            alike = any(_look(one) == _look(other) and one.id != other.id for shown in older for other in shown.objects)
            if one.id not in faint_ids and not alike:
                ago[place] = min(len(older) - first, LONGEST_AGO - 1)
                first_stamp[place] = _digits(times_s[first])
                if first < len(older):
                    was[place] = next(shown_box(seen, flipped) for seen in older[first].objects if seen.id == one.id)
            if changes is not None:
                changed[place] = [any((what, one.id) == change[:2] for change in changes) for what in CHANGES]
        earlier = set().union(*(_looks(shown.objects) for shown in older))
        gone = _labels(earlier - _looks((*frame.objects, *frame.faint)))
        gone[_places(set().union(*(_looks(shown.faint) for shown in (*older, frame))) - earlier)] = -1.0
    kinds, colours = [one.kind for one in frame.objects], [one.colour for one in frame.objects]
    counts = [count, *(kinds.count(kind) for kind in KINDS), *(colours.count(colour) for colour in COLOURS)]
    return FrameMemory(ago[covering], changed[covering], np.minimum(counts, MOST_COUNTED - 1), np.array(int(frame.path_clear)),
                       here, gone, first_stamp[covering], _digits(times_s[-1]),
                       _digits(times_s[-2]) if older else np.full(STAMP_DIGITS, UNTOLD), *_came_and_went(older, frame, told),
                       was[covering], *_left_and_changes(older, frame, changes),
                       _ride(older[0], frame, flipped) if told else np.full(2, np.nan, np.float32),
                       _nearest_to_path(frame), _camera(frame))


def _nearest_to_path(frame: SceneFrame) -> np.ndarray:
    """Float [1]: how clear or blocked the path is, exact near its edge only; untold where a shelf or a wall blocks it."""
    gap_m = min((seen.path_gap_m for seen in (*frame.objects, *frame.faint)), default=FAR_FROM_PATH_M)
    agrees = (gap_m >= 0) == frame.path_clear       # false too where clips were rendered before gaps were noted
    return np.array([min(max(gap_m, -FAR_FROM_PATH_M), FAR_FROM_PATH_M) if agrees else math.nan], np.float32)


def _camera(frame: SceneFrame) -> np.ndarray:
    if frame.mount is None:
        return np.full(3, np.nan, np.float32)
    return np.array([math.log(frame.mount.height_m), frame.mount.pitch_rad, frame.mount.fovy_rad], np.float32)


def _left_and_changes(older: Sequence[SceneFrame], frame: SceneFrame,
                      changes: tuple[tuple[str, int, float], ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Looks of what went, by the thing and not by its looks alone, and how many things each question about change is about."""
    if changes is None:
        return np.full(LOOKS, -1.0, np.float32), np.full(1 + len(CHANGES), UNTOLD)
    went = {id for what, id, _ in changes if what == 'went'}
    looks = {one.id: _look(one) for shown in older for one in shown.objects if one.id in went}
    here = {one.id for one in frame.objects}
    counts = [len({id for name, id, _ in changes if name == what and id in here}) for what in CHANGES]
    return _labels(set(looks.values())), np.minimum([*counts, len(went)], MOST_CHANGED - 1)


def _ride(first: SceneFrame, frame: SceneFrame, flipped: bool) -> np.ndarray:
    """Float [2]: metres ahead and radians to the left that the robot went since a frame; what moved looks otherwise by that."""
    if first.pose is None or frame.pose is None:
        return np.full(2, np.nan, np.float32)
    (x0, y0, yaw0), (x1, y1, yaw1) = first.pose, frame.pose
    ahead_m = (x1 - x0) * math.cos(yaw0) + (y1 - y0) * math.sin(yaw0)
    turned_rad = math.atan2(math.sin(yaw1 - yaw0), math.cos(yaw1 - yaw0))
    return np.array([ahead_m, -turned_rad if flipped else turned_rad], np.float32)


def _came_and_went(older: Sequence[SceneFrame], frame: SceneFrame, told: bool) -> tuple[np.ndarray, np.ndarray]:
    """Looks that came or went with this frame; all that the first frame shows came with it."""
    now, now_faint = _looks(frame.objects), _looks(frame.faint)
    last, last_faint = (_looks(older[-1].objects), _looks(older[-1].faint)) if older else (set(), set())
    came, went = _labels(now - last), _labels(last - now)
    came[_places(last_faint - last | now_faint - now)] = went[_places(now_faint - now | last_faint - last)] = -1.0
    if not older:
        went[:] = -1.0
    elif not told:
        came[:] = went[:] = -1.0
    return came, went


def _look(thing: SeenObject) -> tuple[str, str]:
    return thing.kind, thing.colour


def _looks(things: Sequence[SeenObject]) -> set[tuple[str, str]]:
    return {_look(one) for one in things}


def _digits(time_s: float) -> np.ndarray:
    """Int [STAMP_DIGITS] of a stamp, leading zeros too."""
    return np.array([int(digit) for digit in f'{round(10 * time_s) % 10 ** STAMP_DIGITS:0{STAMP_DIGITS}d}'])


def _places(looks: set[tuple[str, str]]) -> list[int]:
    return [KINDS.index(kind) * len(COLOURS) + COLOURS.index(colour) for kind, colour in looks]


def _labels(looks: set[tuple[str, str]]) -> np.ndarray:
    labels: np.ndarray = np.zeros(LOOKS, dtype=np.float32)
    labels[_places(looks)] = 1.0
    return labels


def stacked(memories: Sequence[FrameMemory]) -> FrameMemory:
    """One slot of all rows of a batch."""
    return FrameMemory(*(np.stack([getattr(one, part.name) for one in memories]) for part in fields(FrameMemory)))


class MemoryHead(nn.Module):
    """Reads a frame's memory off the decoder's states between its blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        digits = 10 * STAMP_DIGITS
        self.stamp = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, digits))
        self.token = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, LONGEST_AGO + 4))
        self.first = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, digits + len(CHANGES)))
        self.frame_sizes = [COUNTED * MOST_COUNTED, 2, LOOKS, LOOKS, LOOKS, LOOKS, digits, digits, LOOKS,
                            (1 + len(CHANGES)) * MOST_CHANGED, 2, 1, 3]
        self.frame = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, sum(self.frame_sizes)))

    def forward(self, states: Sequence[torch.Tensor], starts: torch.Tensor, memories: Sequence[FrameMemory]) -> torch.Tensor:
        """Three ``states`` [B, S, width], lower ones first, int ``starts`` [B, slots] -> the scalar loss.

        A token's own stamp is read off the first, since when its thing is here and where it was off the second, and off the
        third the stamp of that moment, what became of it, and what the frame's last token knows.
        """
        device = states[0].device
        rows = torch.arange(len(starts), device=device)[:, None]
        places = [starts[:, slot, None].to(device) + torch.arange(memory.ago.shape[1], device=device)
                  for slot, memory in enumerate(memories)]
        early, middle, late = (torch.cat([state[rows, place].flatten(0, 1) for place in places]).float() for state in states)
        ends = torch.cat([states[2][rows[:, 0], place[:, -1]] for place in places]).float()

        def told(name: str, *, of_tokens: bool = False) -> torch.Tensor:
            parts = [getattr(memory, name) for memory in memories]
            return torch.from_numpy(np.concatenate([part.reshape(-1, *part.shape[2:]) if of_tokens else part
                                                    for part in parts])).to(device)

        own = torch.from_numpy(np.concatenate([np.repeat(memory.stamp, memory.ago.shape[1], axis=0)
                                               for memory in memories])).to(device)
        said_ago, said_was = self.token(middle).split([LONGEST_AGO, 4], dim=-1)
        said_first, said_changed = self.first(late).split([10 * STAMP_DIGITS, len(CHANGES)], dim=-1)
        known = self.frame(ends).split(self.frame_sizes, dim=-1)
        counts, path, here, gone, came, went, stamp, before, left, changes, ride, path_gap, camera = known
        loss = functional.cross_entropy(counts.reshape(-1, MOST_COUNTED), told('counts').flatten())
        loss = loss + PATH_WEIGHT * functional.cross_entropy(path, told('path'))
        loss = loss + _metric_loss(path_gap, told('path_gap')) + _metric_loss(camera, told('camera'))
        for said, name in ((here, 'here'), (gone, 'gone'), (came, 'came'), (went, 'went'), (left, 'left')):
            loss = loss + _told_loss(said, told(name))
        for said, answers in zip(said_changed.unbind(-1), told('changed', of_tokens=True).unbind(-1)):
            loss = loss + CHANGED_WEIGHT * _told_loss(said, answers)
        loss = loss + _class_loss(changes, told('changes'), MOST_CHANGED)
        loss = loss + _metric_loss(said_was, told('was', of_tokens=True)) + _metric_loss(ride, told('ride'))
        slots = torch.cat([torch.full((memory.ago.size,), slot) for slot, memory in enumerate(memories)]).to(device)
        ago, first = told('ago', of_tokens=True), told('first', of_tokens=True)
        # Most things are there from the first frame on: alone they would decide what is learnt.
        for group in ((ago >= 0) & (ago == slots), (ago >= 0) & (ago < slots)):
            if group.any():
                loss = loss + _class_loss(said_ago[group], ago[group], LONGEST_AGO)
                loss = loss + _class_loss(said_first[group], first[group], 10)
        for said, digits in ((self.stamp(early), own), (stamp, told('stamp')), (before, told('before'))):
            loss = loss + _class_loss(said, digits, 10)
        return loss


def _class_loss(said: torch.Tensor, told: torch.Tensor, classes: int) -> torch.Tensor:
    """Cross-entropy of one or several digits each, 0 where nothing is told."""
    if not (told != UNTOLD).any():
        return said.sum() * 0.0
    return functional.cross_entropy(said.reshape(-1, classes), told.flatten(), ignore_index=UNTOLD)


def _metric_loss(said: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Mean distance from what is told, METRIC_WEIGHT times; 0 where nothing is."""
    known = told.isfinite()
    return METRIC_WEIGHT * (said[known] - told[known]).abs().mean() if known.any() else said.sum() * 0.0


def _told_loss(said: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Of yes and no, each counting as much as the other however seldom it is true; -1 is untold."""
    if not (told >= 0).any():
        return said.sum() * 0.0
    losses = functional.binary_cross_entropy_with_logits(said, told.clamp(min=0.0), reduction='none')
    groups = [losses[told == answer].mean() for answer in (0.0, 1.0) if (told == answer).any()]
    return torch.stack(groups).sum()
