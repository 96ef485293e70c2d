"""Which rows of one camera's KV cache hold what, which can be reused and which can go. Knows nothing of decoding or pixels.

A stream is append-only: `<head>Time 0.0s:<frame>,Time 1.0s:<frame>` and so on. To ask something and forget it, the rows
written for the question are simply overwritten by what comes next (design section 3). To let a frame go its rows are
hidden; now and then the gaps are closed in place. Positions stay as written, since RoPE needs only differences, until
they come near the model's limit or the stamps grow long: then the stream is read anew from the visual tokens it keeps,
which are never encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from penguin_ros.core.engine import KVCache, LanguageEngine, Piece, VisualTokens
from penguin_ros.core.errors import BudgetError, QuestionError
from penguin_ros.core.prompt import frame_lead, stream_head
from penguin_ros.core.words import Words

FIRST_ROW = 1           # row 0 is reserved and never visible
LEAD_ROWS = 16          # most rows the words before one frame may take ("`,Time 86400.0s:`" takes 10 to 12)
GAP_ROWS = 64           # hidden rows cost attention too: gaps are closed once they pass this and half of what is visible
LONGEST_TIME_S = 600.0   # stamps start at zero again after this: the nano model was trained on times up to here


@dataclass(eq=False)     # two frames are never the same frame, even where a camera repeats a stamp
class RetainedFrame:
    """One frame the model can still look at."""

    stamp_ns: int
    visual: VisualTokens
    grid: tuple[int, int]           # patches
    keyframe: bool
    first_row: int = 0              # of its words; its visual tokens follow
    lead_rows: int = 0
    shown: np.ndarray = field(init=False)   # bool [visual.count]: which visual tokens the model can see
    present: np.ndarray = field(init=False)  # int: which visual tokens have a row in the cache, in order

    def __post_init__(self) -> None:
        self.shown = np.ones(self.visual.count, dtype=bool)
        self.present = np.arange(self.visual.count)

    @property
    def tokens(self) -> int:
        """Visual tokens the model can still see."""
        return int(self.shown.sum())

    @property
    def rows(self) -> int:
        return self.lead_rows + len(self.present)


@dataclass(frozen=True)
class StreamPoint:
    """A place in the stream to append behind, and to come back to."""

    row: int
    position: int


class Stream:
    """One camera's part of the language engine: its cache and the frames in it."""

    def __init__(self, language: LanguageEngine, words: Words, capacity_rows: int) -> None:
        self._language = language
        self._words = words
        self._cache: KVCache = language.new_cache(capacity_rows)
        self._visible = np.zeros(capacity_rows, dtype=bool)
        self._origin_ns = 0
        self._row = FIRST_ROW
        self._position = 0
        self.frames: list[RetainedFrame] = []
        self.reread = 0             # times the stream was read anew
        self.compacted = 0          # times gaps were closed

    # -- what is there -------------------------------------------------------------------------------------------

    @property
    def cache(self) -> KVCache:
        return self._cache

    @property
    def end(self) -> StreamPoint:
        """Behind the newest frame."""
        return StreamPoint(self._row, self._position)

    @property
    def tokens(self) -> int:
        """Visual tokens visible in all frames."""
        return sum(frame.tokens for frame in self.frames)

    @property
    def rows_used(self) -> int:
        return self._row

    def visible(self, rows: int) -> np.ndarray:
        """bool [rows]: which of the first rows may be looked at; rows beyond the stream's end are all visible."""
        mask = np.ones(rows, dtype=bool)
        known = min(rows, self._row)
        mask[:known] = self._visible[:known]
        return mask

    def time_s(self, stamp_ns: int) -> float:
        """The time the model reads for a stamp, in seconds from the stream's origin."""
        return max(0.0, (stamp_ns - self._origin_ns) / 1e9)

    # -- writing -------------------------------------------------------------------------------------------------

    def append_frame(self, stamp_ns: int, visual: VisualTokens, grid: tuple[int, int], *, keyframe: bool) -> RetainedFrame:
        """Read one frame behind the others. Raises BudgetError when the cache cannot hold it even after making room."""
        if not self.frames:
            self._start(stamp_ns)
        self._make_room(visual.count + LEAD_ROWS, stamp_ns)
        frame = RetainedFrame(stamp_ns=stamp_ns, visual=visual, grid=grid, keyframe=keyframe)
        self._write(frame)
        return frame

    def append(self, point: StreamPoint, pieces: Sequence[Piece], logits_for: Sequence[int]) -> tuple[StreamPoint, np.ndarray]:
        """Read pieces behind a point without making them part of the stream; returns the point behind them and logits.

        Raises QuestionError when they do not fit the rest of the cache or the model's positions.
        """
        count = sum(piece.count if isinstance(piece, VisualTokens) else len(piece) for piece in pieces)
        if point.row + count > self._cache.capacity_rows:
            raise QuestionError(
                f'{count} more tokens do not fit: {self._cache.capacity_rows - point.row} of {self._cache.capacity_rows} '
                'cache rows are free. Ask something shorter, or lower token_budget.window_tokens.')
        if point.position + count > self._language.spec.max_positions:
            raise QuestionError(
                f'{count} more tokens go beyond the {self._language.spec.max_positions} positions the model knows. '
                'Ask something shorter, or lower token_budget.window_tokens.')
        positions = np.arange(point.position, point.position + count)
        logits = self._language.append(self._cache, pieces, start=point.row, positions=positions,
                                       visible=self.visible(point.row), logits_for=logits_for)
        return StreamPoint(point.row + count, point.position + count), logits

    # -- letting go ----------------------------------------------------------------------------------------------

    def drop(self, frame: RetainedFrame) -> None:
        """Hide a frame from everything that is read from now on."""
        self._visible[frame.first_row:frame.first_row + frame.rows] = False
        self.frames.remove(frame)

    def thin(self, frame: RetainedFrame, tokens: int) -> None:
        """Hide visual tokens of a frame, evenly over it, until ``tokens`` are left. Those hidden do not come back."""
        shown = np.flatnonzero(frame.shown)
        if tokens >= len(shown):
            return
        kept = shown[np.linspace(0, len(shown) - 1, max(tokens, 1)).round().astype(int)]
        frame.shown = np.zeros(len(frame.shown), dtype=bool)
        frame.shown[kept] = True
        self._show(frame)

    def clear(self) -> None:
        """Forget every frame, as after a jump in time."""
        self.frames.clear()
        self._visible[:] = False
        self._row, self._position = FIRST_ROW, 0

    def make_question_room(self, rows: int) -> None:
        """See to it that ``rows`` more rows and positions fit behind the newest frame, as far as that is possible."""
        if self.frames:
            self._make_room(rows, self.frames[-1].stamp_ns)

    # -- inside --------------------------------------------------------------------------------------------------

    def _start(self, stamp_ns: int) -> None:
        self._visible[:] = False
        self._row, self._position, self._origin_ns = FIRST_ROW, 0, stamp_ns
        self._read([self._words.ids(stream_head())])

    def _write(self, frame: RetainedFrame) -> None:
        lead = self._words.ids(frame_lead(self.time_s(frame.stamp_ns), first=not self.frames))
        frame.first_row, frame.lead_rows = self._row, len(lead)
        frame.present = np.arange(frame.visual.count)
        self._read([lead, frame.visual])
        self.frames.append(frame)
        self._show(frame)

    def _read(self, pieces: Sequence[Piece]) -> None:
        end, _ = self.append(self.end, pieces, ())
        self._visible[self._row:end.row] = True
        self._row, self._position = end.row, end.position

    def _show(self, frame: RetainedFrame) -> None:
        first_visual_row = frame.first_row + frame.lead_rows
        self._visible[first_visual_row:first_visual_row + len(frame.present)] = frame.shown[frame.present]

    def _make_room(self, rows: int, stamp_ns: int) -> None:
        """Close gaps, or read anew, where it pays or so that ``rows`` more rows fit behind the newest frame."""
        too_old = self.time_s(stamp_ns) > LONGEST_TIME_S
        if too_old or self._position + rows > self._language.spec.max_positions:
            self._reread(rows, stamp_ns)
        elif self._row + rows > self._cache.capacity_rows or self._has_gaps():
            self._compact()
        if self._row + rows > self._cache.capacity_rows or self._position + rows > self._language.spec.max_positions:
            raise BudgetError(
                f'a frame of {rows} rows does not fit behind the {self._row} rows in use; the cache has '
                f'{self._cache.capacity_rows} rows and the model {self._language.spec.max_positions} positions. '
                'Lower token_budget.window_tokens or build the engine with more cache_rows.')

    def _has_gaps(self) -> bool:
        visible = int(self._visible[:self._row].sum())
        return self._row - FIRST_ROW - visible > GAP_ROWS + visible // 2

    def _compact(self) -> None:
        """Move what is visible down over what is hidden; positions move along, since they are written into the keys."""
        target = FIRST_ROW
        row = FIRST_ROW
        while row < self._row:
            if not self._visible[row]:
                row += 1
                continue
            run_end = row
            while run_end < self._row and self._visible[run_end]:
                run_end += 1
            if target != row:
                self._language.move_rows(self._cache, source=row, target=target, count=run_end - row)
            target += run_end - row
            row = run_end
        new_row = np.cumsum(self._visible[:self._row]) - 1 + FIRST_ROW
        for frame in self.frames:
            frame.first_row = int(new_row[frame.first_row])
            frame.present = np.flatnonzero(frame.shown)
        self._visible[:] = False
        self._visible[FIRST_ROW:target] = True
        self._row = target
        self.compacted += 1

    def _reread(self, rows: int, stamp_ns: int) -> None:
        """Start positions and stamps at zero again by reading the kept visual tokens anew, with room for ``rows`` more.

        A thinned frame is read whole and hidden again. Where that takes too many positions, the oldest frames go, those
        before the newest keyframe first. A frame that has stood longer than stamps may grow is told as taken at zero.
        """
        kept, self.frames = self.frames, []
        room = self._language.spec.max_positions - 2 * LEAD_ROWS - rows
        while len(kept) > 1 and sum(LEAD_ROWS + frame.visual.count for frame in kept) > room:
            newest_keyframe = max((index for index, frame in enumerate(kept) if frame.keyframe), default=0)
            kept.pop(1 if newest_keyframe == 0 else 0)
        if not kept:
            return
        self._start(max(kept[0].stamp_ns, stamp_ns - int(LONGEST_TIME_S / 2 * 1e9)))
        for frame in kept:
            last_row = self._cache.capacity_rows - rows - LEAD_ROWS - frame.visual.count
            if self._row > last_row:
                self._compact()
            while self._row > last_row and self.frames:
                self.drop(self.frames[0])
                self._compact()
            self._write(frame)
        if self._row + rows > self._cache.capacity_rows:
            self._compact()
        self.reread += 1
