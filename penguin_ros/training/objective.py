"""What one training step minimises: the answers, and what stands under each visual token. Knows nothing of data files.

Without the second, dense loss the small model does not learn to see in reasonable time (reference/nano.md): it gives the
encoder a reason to name and locate things before the decoder has found out which tokens to read. Its heads are dropped
after training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from penguin_ros.training.network import Network
from penguin_ros.training.oracle import DIGITS, Oracle, blurred, own_places, reconstruction_loss
from penguin_ros.training.rows import Batch, DenseTargets, TokenGrid, Words
from penguin_ros.training.texts import COLOURS, KINDS

BACKGROUND_WEIGHT = 0.15        # most tokens show no object, and are soon told from those that do
KIND_WEIGHT = 2.0               # shapes are learnt last: colours need one token, kinds several
DIGIT_WEIGHT = 0.5
KIND_WORD_WEIGHT = 3.0
BOX_WEIGHT = 5.0
PLACE_WEIGHT = 2.0
CENTRE_WEIGHT = 1.0
DISTANCE_WEIGHT = 1.0


class DenseHead(nn.Module):
    """Reads kind, colour, digit, box, middle, distance and own place off each merged encoder token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [1 + len(KINDS), len(COLOURS), DIGITS, 4, 1, 1, 2]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: torch.Tensor, targets: DenseTargets, columns: int) -> torch.Tensor:
        """``features`` [B, tokens, width] of frames with that many columns of tokens -> the scalar loss."""
        kind, colour, digit, box, centre, distance, place = self.linear(features.float()).split(self.sizes, dim=-1)
        weight = torch.ones(self.sizes[0], device=kind.device)
        weight[0] = BACKGROUND_WEIGHT
        loss = KIND_WEIGHT * functional.cross_entropy(kind.flatten(0, 1), targets.kind.flatten(), weight)
        own = own_places(features.shape[1], columns, place.device)
        loss = loss + PLACE_WEIGHT * (place - own).abs().mean()
        loss = loss + CENTRE_WEIGHT * functional.binary_cross_entropy_with_logits(centre[..., 0], targets.centre)
        covered = targets.kind > 0
        if covered.any():
            loss = loss + functional.cross_entropy(colour[covered], targets.colour[covered])
            loss = loss + BOX_WEIGHT * (box[covered] - targets.box[covered]).abs().mean()
            loss = loss + DISTANCE_WEIGHT * (distance[covered][:, 0] - targets.distance[covered]).abs().mean()
        readable = targets.digit >= 0
        if readable.any():
            loss = loss + DIGIT_WEIGHT * functional.cross_entropy(digit[readable], targets.digit[readable])
        return loss


@dataclass
class StepLoss:
    """Parts of one step's loss; ``total`` is to be minimised, the others are for the log (None: not part of this step)."""

    total: torch.Tensor
    answer: float | None = None
    dense: float | None = None
    features: list[torch.Tensor] = field(default_factory=list)  # per slot: merged encoder features [B, tokens, width]


def word_weights(words: Words) -> torch.Tensor:
    """How much each token of an answer counts, float [vocabulary]: words for kinds more than the many coordinates."""
    weights = torch.ones(words.tokenizer.get_vocab_size())
    weights[[token for kind in KINDS for token in words.ids(f' {kind}')]] = KIND_WORD_WEIGHT
    return weights


def step_loss(network: Network, head: DenseHead, batch: Batch, *, dense_weight: float, weights: torch.Tensor,
              short_weight: float = 1.0, oracle: Oracle | None = None, oracle_weight: float = 0.0,
              old_frames_learn: bool = True, dtype: torch.dtype = torch.bfloat16) -> StepLoss:
    """The loss of answers and encoder together; ``weights`` as word_weights gives them, ``short_weight`` for short ones.

    With ``oracle_weight`` the encoder's tokens are also held to the oracle's. Without ``old_frames_learn`` only the newest
    frame of a row teaches the encoder, and the others cost a third.
    """
    with _autocast(network, dtype):
        found = encode_batch(network, batch, old_frames_learn=old_frames_learn)
        rows = decode_batch(network, batch, [network.projector(one) for one in found])
        answer = _answer_loss(network, batch, rows, weights, short_weight)
    taught = range(len(batch.grids)) if old_frames_learn else [len(batch.grids) - 1]
    dense = torch.stack([head(found[slot], batch.dense[slot], batch.grids[slot][1]) for slot in taught]).mean()
    total = answer + dense_weight * dense
    if oracle is not None and oracle_weight:
        total = total + oracle_weight * _oracle_loss(network, oracle, batch, found, taught, dtype)
    return StepLoss(total, float(answer.detach()), float(dense.detach()), found)


def decoder_loss(network: Network, oracle: Oracle, batch: Batch, *, weights: torch.Tensor, short_weight: float = 1.0,
                 dtype: torch.dtype = torch.bfloat16) -> StepLoss:
    """The loss of answers alone, from the oracle's visual tokens: no picture is needed."""
    visual = [blurred(oracle(targets, grid[1])) for targets, grid in zip(batch.dense, batch.grids)]
    with _autocast(network, dtype):
        answer = _answer_loss(network, batch, decode_batch(network, batch, visual), weights, short_weight)
    return StepLoss(answer, answer=float(answer.detach()))


def encoder_loss(network: Network, head: DenseHead, oracle: Oracle, batch: Batch, *, dense_weight: float, oracle_weight: float,
                 dtype: torch.dtype = torch.bfloat16) -> StepLoss:
    """The loss of the encoder alone: what stands under each token, and the oracle's tokens. Nothing is decoded."""
    with _autocast(network, dtype):
        found = encode_batch(network, batch)
    slots = range(len(batch.grids))
    dense = torch.stack([head(found[slot], batch.dense[slot], batch.grids[slot][1]) for slot in slots]).mean()
    total = dense_weight * dense + oracle_weight * _oracle_loss(network, oracle, batch, found, slots, dtype)
    return StepLoss(total, dense=float(dense.detach()), features=found)


def _autocast(network: Network, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(network.embedding.weight.device.type, dtype, enabled=dtype != torch.float32)


def _answer_loss(network: Network, batch: Batch, rows: torch.Tensor, weights: torch.Tensor,
                 short_weight: float) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens, weighted by word and by length of answer."""
    targets = batch.targets.to(rows.device)
    asked = targets >= 0
    losses = functional.cross_entropy(network.logits(rows[asked]).float(), targets[asked], reduction='none')
    weight = weights[targets[asked]] * (1.0 + (short_weight - 1.0) * batch.short.to(rows.device)[asked])
    return (losses * weight).sum() / weight.sum()


def _oracle_loss(network: Network, oracle: Oracle, batch: Batch, found: Sequence[torch.Tensor], slots: Iterable[int],
                 dtype: torch.dtype) -> torch.Tensor:
    losses = []
    for slot in slots:
        with torch.no_grad():
            truth = oracle(batch.dense[slot], batch.grids[slot][1])
        with _autocast(network, dtype):
            ours = network.projector(found[slot])
        losses.append(reconstruction_loss(ours, truth))
    return torch.stack(losses).mean()


def batch_rows(network: Network, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The decoder's normed rows [B, S, width] of a batch, and per slot the merged encoder features [B, tokens, width]."""
    features = encode_batch(network, batch)
    return decode_batch(network, batch, [network.projector(found) for found in features]), features


def encode_batch(network: Network, batch: Batch, *, old_frames_learn: bool = True) -> list[torch.Tensor]:
    """Per slot the merged encoder features [B, tokens, width]; frames of one size go through together."""
    device = network.embedding.weight.device
    newest = len(batch.images) - 1
    groups: dict[tuple[TokenGrid, bool], list[int]] = {}
    for slot, grid in enumerate(batch.grids):
        groups.setdefault((grid, old_frames_learn or slot == newest), []).append(slot)
    features: dict[int, torch.Tensor] = {}
    for (_, learns), slots in groups.items():
        images = torch.cat([batch.images[slot] for slot in slots]).to(device)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            found = network.encode(images)
        features.update(zip(slots, found.chunk(len(slots))))
    return [features[slot] for slot in range(len(batch.images))]


def decode_batch(network: Network, batch: Batch, visual: Sequence[torch.Tensor]) -> torch.Tensor:
    """The decoder's normed rows [B, S, width], with each slot's visual tokens [B, tokens, width] in their places."""
    device = network.embedding.weight.device
    embeddings = network.embedding(batch.ids.to(device))
    for slot, tokens in enumerate(visual):
        place = batch.starts[:, slot, None].to(device) + torch.arange(tokens.shape[1], device=device)
        embeddings = embeddings.scatter(1, place[:, :, None].expand_as(tokens), tokens.to(embeddings.dtype))
    return network.decode_rows(embeddings, batch.positions, batch.mask.to(device))
