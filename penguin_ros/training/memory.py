"""What the decoder should know at each frame of a clip, and the loss that asks for it. Knows nothing of texts.

The auxiliary loss of objective.py gives the encoder a reason to see before anybody asks. Questions about number and time give
the decoder as thin a signal: a few tokens for a dozen frames. Here every visual token must tell, halfway up the decoder, since
when the thing under it has been in view and what became of it; and the last token of every frame must tell how many
things it shows, whether the path is clear, and which looks are here or gone. Heads are dropped after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from penguin_ros.training.dataset import Clip
from penguin_ros.training.questions import changes_of
from penguin_ros.training.texts import COLOURS, KINDS

UNTOLD = -100
LONGEST_AGO = 12                # shown frames; clips have no more
MOST_COUNTED = 8
CHANGES = ('came', 'moved', 'painted')      # what a thing in view can have gone through since the first frame shown
LOOKS = len(KINDS) * len(COLOURS)
COUNTED = 1 + len(KINDS) + len(COLOURS)
RARE = 4.0                      # weight of a yes among many noes


@dataclass
class FrameMemory:
    """Of one frame in its place among those shown; arrays of one row, or stacked over a batch's rows."""

    ago: np.ndarray         # int [.., tokens]: how many shown frames ago the thing under a token was first in view
    changed: np.ndarray     # float [.., tokens, 3]: CHANGES it went through, -1 where untold
    counts: np.ndarray      # int [.., COUNTED]: all things, of each kind, of each colour
    path: np.ndarray        # int [..]: 1 where the path is clear
    here: np.ndarray        # float [.., LOOKS]: -1 where half seen
    gone: np.ndarray        # float [.., LOOKS]: seen in an earlier frame and not now, -1 where untold


def frame_memory(clip: Clip, chosen: Sequence[int], covering: np.ndarray, *, whole: bool) -> FrameMemory:
    """What there is to know at the last of the ``chosen`` frames; ``covering`` int [tokens] is a place in its objects, or -1.

    Without ``whole`` older frames have lost tokens, so nothing is told that needs them.
    """
    frame, older = clip.frames[chosen[-1]], [clip.frames[index] for index in chosen[:-1]]
    told = whole and bool(older)
    count = len(frame.objects)
    ago, changed = np.full(count + 1, UNTOLD), np.full((count + 1, len(CHANGES)), -1.0, np.float32)
    here, gone = _labels({(one.kind, one.colour) for one in frame.objects}), np.full(LOOKS, -1.0, np.float32)
    here[_places({(one.kind, one.colour) for one in frame.faint} - {(one.kind, one.colour) for one in frame.objects})] = -1.0
    if told:
        faint_ids = {one.id for shown in (*older, frame) for one in shown.faint}
        changes = changes_of(clip, chosen, list(range(len(chosen))))
        for place, one in enumerate(frame.objects):
            first = next((slot for slot, shown in enumerate(older) if any(one.id == other.id for other in shown.objects)),
                         len(older))
            if one.id not in faint_ids:
                ago[place] = min(len(older) - first, LONGEST_AGO - 1)
            if changes is not None:
                changed[place] = [any((what, one.id) == change[:2] for change in changes) for what in CHANGES]
        earlier = {(one.kind, one.colour) for shown in older for one in shown.objects}
        now = {(one.kind, one.colour) for one in (*frame.objects, *frame.faint)}
        gone = _labels(earlier - now)
        gone[_places({(one.kind, one.colour) for shown in (*older, frame) for one in shown.faint} - earlier)] = -1.0
    kinds, colours = [one.kind for one in frame.objects], [one.colour for one in frame.objects]
    counts = [count, *(kinds.count(kind) for kind in KINDS), *(colours.count(colour) for colour in COLOURS)]
    return FrameMemory(ago[covering], changed[covering], np.minimum(counts, MOST_COUNTED - 1), np.array(int(frame.path_clear)),
                       here, gone)


def _places(looks: set[tuple[str, str]]) -> list[int]:
    return [KINDS.index(kind) * len(COLOURS) + COLOURS.index(colour) for kind, colour in looks]


def _labels(looks: set[tuple[str, str]]) -> np.ndarray:
    labels: np.ndarray = np.zeros(LOOKS, dtype=np.float32)
    labels[_places(looks)] = 1.0
    return labels


def stacked(memories: Sequence[FrameMemory]) -> FrameMemory:
    """One slot of all rows of a batch."""
    return FrameMemory(*(np.stack([getattr(one, name) for one in memories])
                         for name in ('ago', 'changed', 'counts', 'path', 'here', 'gone')))


class MemoryHead(nn.Module):
    """Reads a frame's memory off the decoder's states between two blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_norm, self.frame_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.token = nn.Linear(width, LONGEST_AGO + len(CHANGES))
        self.frame_sizes = [COUNTED * MOST_COUNTED, 2, LOOKS, LOOKS]
        self.frame = nn.Linear(width, sum(self.frame_sizes))

    def forward(self, token_states: torch.Tensor, frame_states: torch.Tensor, starts: torch.Tensor,
                memories: Sequence[FrameMemory]) -> torch.Tensor:
        """States [B, S, width] that tokens and frames are read from, int ``starts`` [B, slots] -> the scalar loss."""
        device = token_states.device
        rows = torch.arange(len(starts), device=device)[:, None]
        tokens, ago, changed, ends = [], [], [], []
        for slot, memory in enumerate(memories):
            start, count = starts[:, slot, None].to(device), memory.ago.shape[1]
            tokens.append(token_states[rows, start + torch.arange(count, device=device)].flatten(0, 1))
            ends.append(frame_states[rows[:, 0], start[:, 0] + count - 1])
            ago.append(torch.from_numpy(memory.ago).flatten())
            changed.append(torch.from_numpy(memory.changed).flatten(0, 1))
        of_frames = [torch.from_numpy(np.concatenate([getattr(memory, name) for memory in memories])).to(device)
                     for name in ('counts', 'path', 'here', 'gone')]
        told_ago, told_changed = torch.cat(ago).to(device), torch.cat(changed).to(device)
        said_ago, said_changed = self.token(self.token_norm(torch.cat(tokens).float())).split(
            [LONGEST_AGO, len(CHANGES)], dim=-1)
        counts, path, here, gone = self.frame(self.frame_norm(torch.cat(ends).float())).split(self.frame_sizes, dim=-1)
        loss = functional.cross_entropy(counts.reshape(-1, MOST_COUNTED), of_frames[0].flatten())
        loss = loss + functional.cross_entropy(path, of_frames[1])
        loss = loss + _told_loss(here, of_frames[2]) + _told_loss(gone, of_frames[3]) + _told_loss(said_changed, told_changed)
        if (told_ago != UNTOLD).any():
            loss = loss + functional.cross_entropy(said_ago, told_ago, ignore_index=UNTOLD)
        return loss


def _told_loss(said: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    known = told >= 0
    if not known.any():
        return said.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(said[known], told[known], pos_weight=said.new_tensor(RARE))
