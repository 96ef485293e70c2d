"""Texts to token ids and back, with the place of each token in the text. Knows nothing of prompts or of engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from penguin_ros.core.errors import CheckpointError
from penguin_ros.core.prompt import SPECIAL_TOKENS, TURN_END


class Words:
    """A model's tokenizer (Hugging Face tokenizer.json)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        end_id = tokenizer.token_to_id(TURN_END)
        if end_id is None:
            raise CheckpointError(
                f'the tokenizer does not know {TURN_END}, which ends every turn. Use the tokenizer.json of the checkpoint.')
        self.end_id = int(end_id)
        # Control tokens never reach a reader; the thinking tags and placeholders would only confuse a parser.
        self._silent = {tokenizer.token_to_id(token) for token in SPECIAL_TOKENS} - {None}

    def ids(self, text: str) -> np.ndarray:
        """int64 [T], nothing added in front or behind."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens, control tokens left out."""
        kept = [int(token) for token in ids if int(token) not in self._silent]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def text_with_ends(self, ids: Sequence[int], instead: Mapping[int, str] | None = None) -> tuple[str, list[int]]:
        """The text, and for every token the number of characters that stand once it is written.

        ``instead`` has other texts for some of the tokens, by their index; none of them may be part of a character.
        A token that is only part of a character (byte-level vocabularies cut accents and emoji) ends where the whole
        characters end, so that slices of the text are always valid.
        """
        text = ''
        ends: list[int] = []
        pending: list[int] = []
        for index, token in enumerate(ids):
            pending.append(token)
            piece = self.text(pending) if not instead or index not in instead else instead[index]
            if not piece.endswith('\N{REPLACEMENT CHARACTER}'):
                text, pending = text + piece, []
            ends.append(len(text))
        return text + self.text(pending), ends


def read_words(folder: Path) -> Words:
    """The tokenizer of the model in this folder. Raises CheckpointError when it is missing or damaged."""
    path = folder / 'tokenizer.json'
    if not path.exists():
        raise CheckpointError(f'{path} is missing. Copy tokenizer.json of the checkpoint there.')
    try:
        return Words(Tokenizer.from_file(str(path)))
    except CheckpointError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for every kind of damage
        raise CheckpointError(f'{path} cannot be read: {error}. Copy it again from the checkpoint.') from error
