"""How tokens are written one after another, and when writing stops. Knows nothing of what they mean (grounding.py).

Greedy. A draft (the stream's last caption) is verified up to 16 tokens a pass: where the draft is what greedy decoding
would have written anyway, one engine call writes many tokens; where it is not, the pass still yields one token. The text
is that of plain greedy decoding (design section 5).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from penguin_ros.core.coordinates import CoordinateTokens
from penguin_ros.core.engine import Piece
from penguin_ros.core.stream import Stream, StreamPoint

VERIFY_TOKENS = 16      # the verification profile of the language engine takes up to this many (design section 3)
_FIRST_WIDTH = 7        # drafted tokens of the first pass: up to 8 in all cost hardly more than one
_LEAST_WIDTH = 4
_RESYNC_TOKENS = 3      # where text was put in or left out, the draft is taken up again where this many written tokens recur
_EXTRA_COST = 1 / 20    # of a pass, for each further token in it; measured 1/24 on a CPU, less on a GPU
_FIRST_CREDIT = 0.25    # passes that may be spent on a draft not yet known to be good
_CREDIT_A_TOKEN = 0.012  # and for each token written: together a caption of 20 tokens or more gets at most 5 % slower


@dataclass
class Decoded:
    """What was written and how it came about."""

    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)    # of each token, under the model
    between: dict[int, int] = field(default_factory=dict)       # of tokens that are coordinates, by index: coordinates.py
    stopped: str = 'end'        # 'end', 'length', 'deadline' or 'cancelled'
    passes: int = 0             # engine calls, the one over the prompt included
    drafted: int = 0            # draft tokens offered
    accepted: int = 0           # of these, right

    @property
    def confidence(self) -> float:
        """Mean probability of the tokens; 0 for nothing written."""
        return float(np.mean(self.probabilities)) if self.probabilities else 0.0


@dataclass(frozen=True)
class Limits:
    """When decoding stops before the model does."""

    max_new_tokens: int
    deadline_s: float = float('inf')            # on ``clock``
    cancelled: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic

    def stop(self, written: int) -> str | None:
        """Why to stop now, or None to go on; asked between any two engine calls."""
        if self.cancelled():
            return 'cancelled'
        if self.clock() >= self.deadline_s:
            return 'deadline'
        return 'length' if written >= self.max_new_tokens else None


def decode(stream: Stream, prompt: Sequence[Piece], *, end_id: int, limits: Limits, at: StreamPoint | None = None,
           draft: Sequence[int] = (), coordinates: CoordinateTokens | None = None,
           on_tokens: Callable[[Decoded], None] | None = None) -> Decoded:
    """Read a prompt behind the stream and write its continuation; the stream itself is left as it was.

    With ``coordinates`` it is noted of each of these tokens where between it and the next the model takes the edge to be.
    ``on_tokens`` is called after every engine call that wrote something. Raises QuestionError when prompt and answer do
    not fit the cache.
    """
    decoded = Decoded()

    def write(token: int, probability: float, logits: np.ndarray) -> None:
        between = coordinates.between(token, logits) if coordinates else None
        if between is not None:
            decoded.between[len(decoded.ids)] = between
        decoded.ids.append(token)
        decoded.probabilities.append(probability)

    follower = _DraftFollower(draft)
    point = at or stream.end
    fed: list[Piece] = list(prompt)
    while True:
        count = sum(len(piece) if isinstance(piece, np.ndarray) else piece.count for piece in fed)
        offered = follower.offer(decoded.ids, min(limits.max_new_tokens - len(decoded.ids), VERIFY_TOKENS - 1))
        if offered:
            fed.append(np.asarray(offered, dtype=np.int64))
        behind, logits = stream.append(point, fed, range(count - 1, count + len(offered)))
        decoded.passes += 1
        accepted = 0
        next_id, probability = _likeliest(logits[0])
        # A drafted token stands when it is the one greedy decoding writes there; its row in the cache is then right too.
        while accepted < len(offered) and next_id == offered[accepted] and next_id != end_id:
            write(next_id, probability, logits[accepted])
            accepted += 1
            next_id, probability = _likeliest(logits[accepted])
        decoded.drafted += len(offered)
        decoded.accepted += accepted
        follower.learn(len(offered), accepted)
        unused = len(offered) - accepted
        point = StreamPoint(behind.row - unused, behind.position - unused)
        stopped = 'end' if next_id == end_id else limits.stop(len(decoded.ids))
        if not stopped:
            write(next_id, probability, logits[accepted])
            fed = [np.asarray([next_id], dtype=np.int64)]
        if on_tokens is not None and (accepted or not stopped):
            on_tokens(decoded)
        if stopped:
            decoded.stopped = stopped
            return decoded


def choice_probabilities(stream: Stream, prompt: Sequence[Piece], choices: Sequence[Sequence[int] | np.ndarray], *, end_id: int,
                         limits: Limits, at: StreamPoint | None = None) -> np.ndarray:
    """How likely each choice is to be the answer, float64 [len(choices)], summing to 1.

    The prompt is read once; each choice is one pass over its tokens and the end token, then forgotten. The probability of
    a choice is that of writing exactly it, normalised over the choices. Stops early only by raising, see ``Limits``.
    """
    length = sum(len(piece) if isinstance(piece, np.ndarray) else piece.count for piece in prompt)
    point, first = stream.append(at or stream.end, prompt, [length - 1])
    scores = []
    for choice in choices:
        ids = [int(token) for token in choice]
        logits = first
        if ids:
            _, rest = stream.append(point, [np.asarray(ids, dtype=np.int64)], range(len(ids)))
            logits = np.concatenate([first, rest])
        scores.append(sum(_log_probability(row, token) for row, token in zip(logits, [*ids, end_id])))
        if limits.stop(0) in ('deadline', 'cancelled'):
            break
    scores += [-np.inf] * (len(choices) - len(scores))
    weights = np.exp(np.asarray(scores) - max(scores))
    return weights / weights.sum()


class _DraftFollower:
    """Where in the draft the text is, and how much of it is worth offering.

    Two captions of a stream mostly differ in single tokens (an edge of a box), so a difference is first taken for a token
    in another's place. What is offered widens with success. Wrong offers are paid from a credit that right ones earn, so
    that a useless draft costs no more than a twentieth of the time.
    """

    def __init__(self, draft: Sequence[int]) -> None:
        self._draft = [int(token) for token in draft]
        self._next = 0              # index in the draft of the token expected after what is written
        self._seen = 0              # written tokens taken in
        self._differing = 0         # of the last of them in a row
        self._width = _FIRST_WIDTH
        self._credit_passes = _FIRST_CREDIT

    def offer(self, written: Sequence[int], room: int) -> list[int]:
        """The draft's continuation of what is written, at most ``room`` tokens."""
        if not self._draft:
            return []
        for count in range(self._seen + 1, len(written) + 1):
            self._take_in(written[:count])
        self._credit_passes += _CREDIT_A_TOKEN * (len(written) - self._seen)
        self._seen = len(written)
        affordable = int(self._credit_passes / _EXTRA_COST + 1e-9)
        if affordable < _LEAST_WIDTH:       # saved up: the first token more costs as much as the next three
            return []
        return self._draft[self._next:self._next + max(0, min(room, self._width, affordable))]

    def learn(self, offered: int, accepted: int) -> None:
        if offered:
            self._credit_passes += accepted - offered * _EXTRA_COST
            self._width = min(VERIFY_TOKENS - 1, max(2 * accepted + 1, _LEAST_WIDTH))

    def _take_in(self, written: Sequence[int]) -> None:
        as_drafted = self._next < len(self._draft) and self._draft[self._next] == written[-1]
        self._differing = 0 if as_drafted else self._differing + 1
        self._next += 1
        if self._differing > 1:
            self._next = self._find(written)

    def _find(self, written: Sequence[int]) -> int:
        """Where the draft goes on after the last written tokens, nearest to where it was; there, where they are not found."""
        tail = list(written[-_RESYNC_TOKENS:])
        places = [end for end in range(_RESYNC_TOKENS, len(self._draft) + 1)
                  if self._draft[end - _RESYNC_TOKENS:end] == tail]
        return min(places, key=lambda end: abs(end - self._next), default=self._next)


def _likeliest(logits: np.ndarray) -> tuple[int, float]:
    """The likeliest token and its probability."""
    token = int(logits.argmax())
    shifted = logits.astype(np.float32) - logits[token]
    return token, float(1.0 / np.exp(shifted).sum())


def _log_probability(logits: np.ndarray, token: int) -> float:
    wide = logits.astype(np.float64)
    top = wide.max()
    return float(wide[token] - top - np.log(np.exp(wide - top).sum()))
