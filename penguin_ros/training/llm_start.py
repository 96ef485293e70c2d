"""An encoder that starts as a text model, as Penguin-VL's does. Knows nothing of pictures.

Source: reference/penguin_vl.md 7.1: all layers and the final norm come from a text LLM, the patch projection is new, and
attention becomes bidirectional. Here the text LLM is one of the nano's own size that first learns the grammar of captions and
answers. In a small study it made no difference to this model (reference/nano.md); it is here to be measured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from penguin_ros.core.errors import ConfigError
from penguin_ros.core.prompt import TURN_END, question_tail
from penguin_ros.training.dataset import Clip
from penguin_ros.training.network import MASKED, Network
from penguin_ros.training.questions import View, caption_turn, sample_questions
from penguin_ros.training.rows import Words

ROWS = 32
_SHOWN_HEIGHT_PX = 168


def train_text_model(network: Network, clips: Sequence[Clip], words: Words, *, steps: int, seed: int) -> list[float]:
    """Teach the decoder of ``network`` to write questions and answers without seeing anything; returns the losses."""
    rng = random.Random(seed)
    parameters = [*network.decoder.parameters(), *network.decoder_norm.parameters(), *network.embedding.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    losses = []
    for _ in range(steps):
        ids = _text_rows([_text(rng, rng.choice(clips), words) for _ in range(ROWS)], words)
        length = ids.shape[1] - 1
        causal = torch.full((length, length), MASKED).triu(1)[None, None]
        rows = network.decode_rows(network.embedding(ids[:, :-1].clamp(min=0)), np.arange(length)[None].repeat(ROWS, 0), causal)
        loss = functional.cross_entropy(network.logits(rows).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def start_encoder_from(network: Network, text_model: Network) -> None:
    """Copy the text model's layers and final norm into the encoder of ``network``. Raises ConfigError if they do not fit."""
    ours, theirs = network.encoder.state_dict(), text_model.decoder.state_dict()
    if {name: tensor.shape for name, tensor in ours.items()} != {name: tensor.shape for name, tensor in theirs.items()}:
        raise ConfigError(
            f'the encoder is {network.shape.encoder}, the text model {text_model.shape.decoder}. An encoder can start from a '
            'text model of the same width, layers and heads only; make them equal or start from random weights.')
    network.encoder.load_state_dict(theirs)
    network.encoder_norm.load_state_dict(text_model.decoder_norm.state_dict())


def _text(rng: random.Random, clip: Clip, words: Words) -> str:
    view = View((clip.frames[-1],), (0.0,), _SHOWN_HEIGHT_PX, coordinates=words.coordinates)
    turn = rng.choice([caption_turn(rng, view), *sample_questions(rng, view, 1)])
    return question_tail(turn.question) + turn.answer + TURN_END


def _text_rows(texts: Sequence[str], words: Words) -> torch.Tensor:
    """int [rows, longest], -100 behind the end."""
    rows = [words.ids(text) for text in texts]
    padded = torch.full((len(rows), max(map(len, rows))), -100)
    for row, ids in zip(padded, rows):
        row[:len(ids)] = torch.tensor(ids)
    return padded
