"""Visual tokens made of the truth instead of pixels: what an encoder that sees perfectly would give. Knows no pictures.

The decoder learns to answer from these first, at a fraction of the cost: no picture is read, resized or encoded. They are then
what the encoder learns to give, by the losses of Penguin-VL's warm-up (losses.py), so that the decoder understands it from the
start. The oracle is dropped after training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from penguin_ros.training.losses import amplitude_loss, direction_loss, relation_loss
from penguin_ros.training.rows import DenseTargets
from penguin_ros.training.texts import COLOURS, KINDS

DIGITS = 10
NOISE_SHARE = 0.3           # of a token's own size: the decoder is not to rely on more than an encoder can give
_EDGE_WAVES = (1, 2, 4, 8, 16, 32, 64)      # half periods over the picture; the finest is narrower than a coordinate token
_PLACE_WAVES = (1, 2, 4, 8)
# The many waves would drown the few words otherwise: kind and colour weigh about as much as the box.
_WORD_SCALE = 3.0
_WAVE_SCALE = 0.5


class Oracle(nn.Module):
    """Turns what stands under each token into the token an encoder should give for it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        facts = 1 + len(KINDS) + len(COLOURS) + DIGITS + 2 + 2 * 4 * len(_EDGE_WAVES) + 2 * 2 * len(_PLACE_WAVES)
        self.network = nn.Sequential(nn.Linear(facts, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, targets: DenseTargets, columns: int) -> Tensor:
        """Targets of frames with that many columns of tokens -> visual tokens [B, tokens, width] in the decoder's space."""
        covered = (targets.kind > 0)[..., None]
        facts = torch.cat([
            _one_hot(targets.kind, 1 + len(KINDS)), _one_hot(targets.colour, len(COLOURS)), _one_hot(targets.digit, DIGITS),
            _WORD_SCALE * targets.centre[..., None], targets.distance[..., None],
            _waves(targets.box, _EDGE_WAVES) * covered,
            _waves(own_places(targets.kind.shape[1], columns, targets.kind.device), _PLACE_WAVES).expand(len(covered), -1, -1),
        ], dim=-1)
        tokens: Tensor = self.network(facts)
        return tokens


def blurred(tokens: Tensor) -> Tensor:
    """The tokens [B, tokens, width] with noise of NOISE_SHARE of their root mean square."""
    size = tokens.detach().pow(2).mean(dim=-1, keepdim=True).sqrt()
    return tokens + NOISE_SHARE * size * torch.randn_like(tokens)


def reconstruction_loss(student: Tensor, oracle: Tensor) -> Tensor:
    """Direction, amplitude and relation of an encoder's projected tokens against the oracle's, each [B, tokens, width].

    Source: reference/penguin_vl.md 7.3; here the teacher is the oracle, in the decoder's own space, so nothing lies between.
    """
    ours, theirs = student.float().flatten(0, 1), oracle.detach().float().flatten(0, 1)
    return direction_loss(ours, theirs) + amplitude_loss(ours, theirs) + relation_loss(ours, theirs)


def own_places(tokens: int, columns: int, device: torch.device) -> Tensor:
    """The middle of each token as fractions x, y of the picture, float [tokens, 2]."""
    index = torch.arange(tokens, device=device)
    return torch.stack([(index % columns + 0.5) / columns, (index // columns + 0.5) / (tokens // columns)], dim=-1)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    """Float [..., count], _WORD_SCALE at the class; all zero where it is negative."""
    return _WORD_SCALE * functional.one_hot(classes.clamp(min=0), count).float() * (classes >= 0)[..., None]


def _waves(fractions: Tensor, waves: tuple[int, ...]) -> Tensor:
    """Sines and cosines of fractions [..., n] -> [..., 2 * n * waves]."""
    angles = math.pi * fractions[..., None] * torch.tensor(waves, dtype=torch.float32, device=fractions.device)
    return _WAVE_SCALE * torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
