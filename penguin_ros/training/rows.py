"""Clips become training rows: frames in the full chat template, several questions behind them. Knows nothing of weights.

One row is the stream as core/stream.py writes it, `<|im_start|>user\\nTime 3.0s:` and visual tokens, then several
question turns that each see the stream up to their frame and themselves, but not each other: the stream is encoded once
for all of them. Positions of every turn go on where its frame ended, exactly as when the node asks and rewinds.
As in the node, old frames may be hidden (dropped), thinned, and positions may have gaps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer

from penguin_ros.core.pixels import resize
from penguin_ros.core.prompt import IMAGE, TURN_END, frame_lead, question_tail, stream_head
from penguin_ros.sim.world import CORRIDOR_HALF_WIDTH_M, CORRIDOR_LENGTH_M
from penguin_ros.training.dataset import Clip, Mount, SceneFrame, Split, shown_box
from penguin_ros.training.memory import FrameMemory, frame_memory, stacked
from penguin_ros.training.network import MASKED, TOKEN_PX
from penguin_ros.training.questions import (
    NATIVE_ASPECT,
    Sources,
    Turn,
    View,
    caption_turn,
    changes_of,
    is_readable,
    sample_questions,
    sample_time_questions,
)
from penguin_ros.training.texts import COLOURS, COORDINATE_TOKENS, KINDS, Coordinates

TokenGrid = tuple[int, int]         # rows and columns of visual tokens, not of patches

PAD_GROUP = -1
_PAD_TO = 16
_LONGEST_START_S = 600.0
_ASKS_CHANGES = 0.8                 # of rows with several frames; the others have lost some of their old tokens
_LARGEST_GAP = 300                  # positions that frames dropped from the stream leave behind
_FARTHEST_FLOOR_M = 10.0
_LONG_ANSWERS = ('caption', 'where')


@dataclass
class Batch:
    """Rows of equal length; every row has the same frames' grids, so frames of one slot are encoded together."""

    grids: tuple[TokenGrid, ...]    # per slot
    images: list[torch.Tensor]      # per slot uint8 [B, H, W, 3]
    starts: torch.Tensor            # int [B, slots]: where each frame's visual tokens stand in the row
    ids: torch.Tensor               # int [B, S]
    positions: np.ndarray           # int [B, S]
    mask: torch.Tensor              # float [B, 1, S, S], additive
    targets: torch.Tensor           # int [B, S]: the token that follows, or -100 where nothing is learnt
    short: torch.Tensor             # bool [B, S]: whether that token is of a short answer, not of a caption or a place
    skills: list[list[tuple[str, int, int]]]    # per row: skill, first and last + 1 token of each turn
    dense: list[DenseTargets]       # per slot
    memory: list[FrameMemory]       # per slot; empty where it was not asked for
    pointers: Pointers

    @property
    def image_count(self) -> int:
        return sum(len(images) for images in self.images)


@dataclass
class Pointers:
    """Where answers can be read off: for tokens that are about something in a frame, which visual tokens show it."""

    rows: torch.Tensor              # int [N]: row of the batch
    places: torch.Tensor            # int [N]: place in the row, of the token before the one to be said
    sources: torch.Tensor           # bool [N, S]: the places in that row that show it
    weights: torch.Tensor           # float [N]: 1 over how many tokens of its turn point somewhere


@dataclass
class DenseTargets:
    """What stands under each visual token, for the auxiliary loss."""

    kind: torch.Tensor              # int [B, tokens]: 0 nothing, 1.. the kinds
    colour: torch.Tensor            # int [B, tokens]: -100 where nothing stands
    digit: torch.Tensor             # int [B, tokens]: 0 to 9 where a sign with a readable digit stands, else -100
    box: torch.Tensor               # float [B, tokens, 4], fractions of the image; only where something stands
    distance: torch.Tensor          # float [B, tokens]: natural logarithm of metres; only where something stands
    floor: torch.Tensor             # float [B, tokens]: log of metres to the floor behind a token's middle, nan if unknown
    on_path: torch.Tensor           # float [B, tokens]: 1 where that floor is of the strip that must be clear, else 0
    path_gap: torch.Tensor          # float [B, tokens]: metres from what stands there to that strip, nan if unknown


class Words:
    """Texts to token ids, remembered: the grammar repeats itself. Says also how boxes are written in these texts."""

    def __init__(self, tokenizer: Tokenizer, coordinates: Coordinates = 'tokens') -> None:
        self.tokenizer = tokenizer
        self.coordinates: Coordinates = coordinates
        self.ids = lru_cache(maxsize=200_000)(self._ids)
        self.image_id = self.id_of(IMAGE)
        self.end_id = self.id_of(TURN_END)
        self.item_end_id = self.id_of(';')
        self.coordinate_ids = frozenset(self.id_of(token) for token in COORDINATE_TOKENS)

    def id_of(self, token: str) -> int:
        """The id of one added token."""
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the rows of one batch have in common."""

    grids: tuple[TokenGrid, ...]        # one per frame, oldest first
    questions: int = 3                  # about the newest frame
    captions: int = 1                   # of that many newest frames
    time_questions: int = 3             # about all frames, in most rows of several
    change_weight: float = 1.0          # how much more often than otherwise those ask what changed
    is_montage: bool = False            # whether the frames are of several scenes


class _RowWriter:
    """Collects one row: the stream first, then its turns."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.group: list[int] = []
        self.sees: list[int] = []       # stream tokens before this index are visible
        self.frame: list[int] = []      # which frame a token belongs to or asks about
        self.hidden: list[bool] = []    # stream tokens that later frames and turns do not see
        self.targets: list[int] = []
        self.short: list[bool] = []
        self.skills: list[tuple[str, int, int]] = []
        self.next_position = 0
        self.frame_ends: list[tuple[int, int]] = []     # row index and position behind each frame
        self.starts: list[int] = []
        self.times_s: list[float] = []  # of the frames
        self.is_whole = True            # no old frame has lost tokens
        self.pointers: list[tuple[int, Sources, float]] = []    # place, where to read, weight
        self._groups = 0

    def stream(self, ids: Sequence[int], frame: int, hidden: Sequence[bool]) -> None:
        for token, is_hidden in zip(ids, hidden):
            self._put(token, self.next_position, 0, len(self.ids) + 1, frame, is_hidden, -100, False)
            self.next_position += 1

    def frame_tokens(self, lead: Sequence[int], count: int, frame: int, hidden: np.ndarray) -> None:
        self.stream(lead, frame, [bool(hidden.all())] * len(lead))
        self.starts.append(len(self.ids))
        self.stream([self.words.image_id] * count, frame, hidden.tolist())
        self.frame_ends.append((len(self.ids), self.next_position))

    def turn(self, turn: Turn, frame: int) -> None:
        self._groups += 1
        sees, position = self.frame_ends[frame]
        asked = self.words.ids(question_tail(turn.question))
        answered = (*self.words.ids(turn.answer), self.words.end_id)
        # The row's last token predicts nothing, so the end token itself needs no place.
        written = (*asked, *answered[:-1])
        targets = (*([-100] * (len(asked) - 1)), *answered)
        is_short = turn.skill not in _LONG_ANSWERS
        item, pointers = 0, []
        for token, target in zip(written, targets):
            if target >= 0 and item < len(turn.sources):
                pointers.append((len(self.ids), turn.sources[item]))
            item += target == self.words.item_end_id
            # A place in a short answer is as many tokens as the rest of it, and no harder than in a caption.
            self._put(token, position, self._groups, sees, frame, False, target,
                      is_short and target not in self.words.coordinate_ids)
            position += 1
        self.pointers += [(place, sources, 1.0 / len(pointers)) for place, sources in pointers]
        self.skills.append((turn.skill, len(self.ids) - len(written), len(self.ids)))

    def _put(self, token: int, position: int, group: int, sees: int, frame: int, hidden: bool, target: int,
             short: bool) -> None:
        self.ids.append(token)
        self.positions.append(position)
        self.group.append(group)
        self.sees.append(sees)
        self.frame.append(frame)
        self.hidden.append(hidden)
        self.targets.append(target)
        self.short.append(short)


def build_batch(split: Split, clips: Sequence[Clip], layout: Layout, words: Words, rng: random.Random, *,
                augment: bool = True, with_memory: bool = False) -> Batch:
    """Rows for clips that each have at least as many frames as the layout; deterministic for a given ``rng``."""
    rows, images, dense, memory, sources = [], [], [], [], []
    for clip in clips:
        chosen = sorted(rng.sample(range(len(clip.frames)), len(layout.grids)))
        flipped = augment and rng.random() < 0.5 and not _shows_sign(clip)
        row = _row(clip, chosen, layout, words, rng, flipped=flipped)
        rows.append(row)
        pictures = [split.image(clip.frames[index]) for index in chosen]
        images.append([shown(picture, grid, flipped) for picture, grid in zip(pictures, layout.grids)])
        covering = [_covering(clip.frames[index], grid, flipped) for index, grid in zip(chosen, layout.grids)]
        dense.append([_dense(clip.frames[index], grid, found, flipped)
                      for index, grid, found in zip(chosen, layout.grids, covering)])
        sources.append(_sources(clip, chosen, covering, row))
        if with_memory:
            memory.append([frame_memory(clip, chosen[:slot + 1], row.times_s[:slot + 1], found, whole=row.is_whole,
                                        flipped=flipped)
                           for slot, found in enumerate(covering)])
    length = -(-max(len(row.ids) for row in rows) // _PAD_TO) * _PAD_TO
    slots = range(len(layout.grids))
    return Batch(
        grids=layout.grids,
        images=[torch.from_numpy(np.stack([row[slot] for row in images])) for slot in slots],
        starts=torch.tensor([row.starts for row in rows]),
        ids=torch.from_numpy(_padded([row.ids for row in rows], length, 0)),
        positions=_padded([row.positions for row in rows], length, 0),
        mask=_mask(rows, length),
        targets=torch.from_numpy(_padded([row.targets for row in rows], length, -100)),
        short=torch.from_numpy(_padded([row.short for row in rows], length, False, np.bool_)),
        skills=[row.skills for row in rows],
        dense=[DenseTargets(*(torch.from_numpy(np.stack([row[slot][part] for row in dense])) for part in range(8)))
               for slot in slots],
        memory=[stacked([row[slot] for row in memory]) for slot in slots] if with_memory else [],
        pointers=_pointers(rows, sources, length))


def _sources(clip: Clip, chosen: Sequence[int], covering: Sequence[np.ndarray],
             row: _RowWriter) -> dict[tuple[int, int | None], np.ndarray]:
    """The places in a row that show each thing of each slot; by None the last place of a frame."""
    found: dict[tuple[int, int | None], np.ndarray] = {}
    for slot, (index, covered) in enumerate(zip(chosen, covering)):
        for place, seen in enumerate(clip.frames[index].objects):
            found[slot, seen.id] = row.starts[slot] + np.flatnonzero(covered == place)
        found[slot, None] = np.array([row.starts[slot] + len(covered) - 1])
    return found


def _pointers(rows: Sequence[_RowWriter], sources: Sequence[dict[tuple[int, int | None], np.ndarray]], length: int) -> Pointers:
    found = [(index, place, np.concatenate([shown[source] for source in wanted]), weight)
             for index, (row, shown) in enumerate(zip(rows, sources)) for place, wanted, weight in row.pointers]
    found = [one for one in found if len(one[2])]       # a thing behind others may be the nearest on no token
    is_source = np.zeros((len(found), length), dtype=np.bool_)
    for number, (_, _, places, _) in enumerate(found):
        is_source[number, places] = True
    return Pointers(torch.tensor([index for index, *_ in found], dtype=torch.int64),
                    torch.tensor([place for _, place, *_ in found], dtype=torch.int64),
                    torch.from_numpy(is_source), torch.tensor([weight for *_, weight in found]))


def _shows_sign(clip: Clip) -> bool:
    return any(seen.kind == 'sign' for frame in clip.frames for seen in (*frame.objects, *frame.faint))


def shown(picture: np.ndarray, grid: TokenGrid, flipped: bool) -> np.ndarray:
    pixels = resize(picture, grid[0] * TOKEN_PX, grid[1] * TOKEN_PX)
    return np.ascontiguousarray(pixels[:, ::-1]) if flipped else pixels


def _row(clip: Clip, chosen: Sequence[int], layout: Layout, words: Words, rng: random.Random, *,
         flipped: bool) -> _RowWriter:
    row = _RowWriter(words)
    start_s = rng.uniform(0.0, _LONGEST_START_S) if rng.random() < 0.8 else 0.0
    times_s = row.times_s = [round(start_s + clip.frames[index].time_s, 1) for index in chosen]
    asks_changes = len(chosen) > 1 and rng.random() < _ASKS_CHANGES
    has_gaps = len(chosen) > 1 and rng.random() < 0.5
    row.stream(words.ids(stream_head()), 0, [False] * len(words.ids(stream_head())))
    for slot, (rows, columns) in enumerate(layout.grids):
        is_newest = slot == len(chosen) - 1
        hidden = np.zeros(rows * columns, dtype=bool) if is_newest or asks_changes else _hidden(rng, rows * columns)
        row.is_whole = row.is_whole and not hidden.any()
        row.frame_tokens(words.ids(frame_lead(times_s[slot], first=slot == 0)), rows * columns, slot, hidden)
        if has_gaps and rng.random() < 0.5:
            row.next_position += rng.randrange(_LARGEST_GAP)
    for slot in range(len(chosen)):
        view = View(tuple(clip.frames[index] for index in chosen[:slot + 1]), tuple(times_s[:slot + 1]),
                    layout.grids[slot][0] * TOKEN_PX, flipped=flipped, coordinates=words.coordinates)
        if slot >= len(chosen) - layout.captions:
            row.turn(caption_turn(rng, view), slot)
        if slot == len(chosen) - 1:
            turns = sample_questions(rng, view, layout.questions)
            if asks_changes:
                view = replace(view, changes=changes_of(clip, chosen, times_s))
                turns += sample_time_questions(rng, view, layout.time_questions, change_weight=layout.change_weight)
            for turn in turns:
                row.turn(turn, slot)
    return row


def _hidden(rng: random.Random, count: int) -> np.ndarray:
    """Which tokens of an old frame the stream has let go: none, an even part of them, or all."""
    choice = rng.random()
    if choice < 0.6:
        return np.zeros(count, dtype=bool)
    hidden = np.ones(count, dtype=bool)
    if choice < 0.8:
        kept = rng.randrange(count // 4, count) or 1
        hidden[np.linspace(0, count - 1, kept).round().astype(int)] = False
    return hidden


def _padded(lists: Sequence[Sequence[int]], length: int, value: int, dtype: type = np.int64) -> np.ndarray:
    padded: np.ndarray = np.full((len(lists), length), value, dtype=dtype)
    for row, values in zip(padded, lists):
        row[:len(values)] = values
    return padded


def _mask(rows: Sequence[_RowWriter], length: int) -> torch.Tensor:
    """Narrow integers: this is made anew for every batch, and the arrays are [B, S, S]."""
    group = _padded([row.group for row in rows], length, PAD_GROUP, np.int16)
    sees = _padded([row.sees for row in rows], length, 0, np.int16)
    frame = _padded([row.frame for row in rows], length, PAD_GROUP, np.int16)
    hidden = _padded([row.hidden for row in rows], length, 0, np.bool_)
    index = np.arange(length, dtype=np.int16)
    in_stream = (index < sees[:, :, None]) & (group == 0)[:, None, :]
    if hidden.any():
        in_stream &= ~hidden[:, None, :] | (frame[:, :, None] == frame[:, None, :])
    own_turn = (group[:, :, None] == group[:, None, :]) & (group > 0)[:, :, None] & (index[:, None] >= index)
    return torch.from_numpy(np.where(in_stream | own_turn, np.float32(0.0), np.float32(MASKED))[:, None])


def _covering(frame: SceneFrame, grid: TokenGrid, flipped: bool) -> np.ndarray:
    """Int [tokens]: place in the frame's objects of the nearest that covers two fifths of a token (or of itself), or -1."""
    rows, columns = grid
    covering: np.ndarray = np.full((rows, columns), -1)
    low_x, low_y = np.arange(columns) / columns, np.arange(rows) / rows
    for place in sorted(range(len(frame.objects)), key=lambda place: -frame.objects[place].distance_m):
        x0, y0, x1, y1 = shown_box(frame.objects[place], flipped)
        across = np.clip(np.minimum(x1, low_x + 1 / columns) - np.maximum(x0, low_x), 0, None)
        down = np.clip(np.minimum(y1, low_y + 1 / rows) - np.maximum(y0, low_y), 0, None)
        smaller = min(1 / (rows * columns), (x1 - x0) * (y1 - y0))
        covering[down[:, None] * across[None, :] > 0.4 * smaller] = place
    return covering.reshape(-1)


def _dense(frame: SceneFrame, grid: TokenGrid, covering: np.ndarray, flipped: bool) -> tuple[np.ndarray, ...]:
    """What DenseTargets says of one frame: about the object that covers each token, and about the floor behind it."""
    height_px = grid[0] * TOKEN_PX
    told = [(1 + KINDS.index(seen.kind), COLOURS.index(seen.colour),
             seen.digit if seen.digit is not None and is_readable(seen, height_px) else -100) for seen in frame.objects]
    kind, colour, digit = np.array([*told, (0, -100, -100)])[covering].T
    box = np.array([*(shown_box(seen, flipped) for seen in frame.objects), (0.0,) * 4], dtype=np.float32)
    distance = np.array([*(math.log(max(seen.distance_m, 0.1)) for seen in frame.objects), 0.0], dtype=np.float32)
    path_gap = np.array([*(seen.path_gap_m for seen in frame.objects), math.nan], dtype=np.float32)
    return kind, colour, digit, box[covering], distance[covering], *_floor(frame.mount, grid), path_gap[covering]


def _floor(mount: Mount | None, grid: TokenGrid) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the metres ahead at which the ray through each token's middle meets the floor, and whether on the path.

    Roll is left out: under a degree. Nothing is farther than _FARTHEST_FLOOR_M, also above the horizon.
    """
    rows, columns = grid
    if mount is None:
        unknown = np.full(rows * columns, np.nan, np.float32)
        return unknown, unknown
    down = ((np.arange(rows) + 0.5) / rows - 0.5) * 2 * math.tan(mount.fovy_rad / 2)
    aside = ((np.arange(columns) + 0.5) / columns - 0.5) * 2 * math.tan(mount.fovy_rad / 2) * NATIVE_ASPECT
    falls = down * math.cos(mount.pitch_rad) + math.sin(mount.pitch_rad)
    length = mount.height_m / np.maximum(falls, 1e-3)
    ahead_m = np.clip(length * (math.cos(mount.pitch_rad) - down * math.sin(mount.pitch_rad)), 0.1, _FARTHEST_FLOOR_M)
    aside_m = np.abs(length[:, None] * aside)
    on_path = (falls[:, None] > 0) & (ahead_m[:, None] < CORRIDOR_LENGTH_M) & (aside_m < CORRIDOR_HALF_WIDTH_M)
    return (np.log(ahead_m).repeat(columns).astype(np.float32), on_path.reshape(-1).astype(np.float32))
