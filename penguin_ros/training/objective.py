"""What one training step minimises: the answers, and what stands under each visual token. Knows nothing of data files.

Without the second, dense loss the small model does not learn to see in reasonable time (reference/nano.md): it gives the
encoder a reason to name and locate things before the decoder has found out which tokens to read. Its heads are dropped
after training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from penguin_ros.training.network import TOKEN_PX, Network
from penguin_ros.training.rows import Batch, DenseTargets, Words
from penguin_ros.training.texts import COLOURS, KINDS

BACKGROUND_WEIGHT = 0.15        # most tokens show no object, and are soon told from those that do
KIND_WEIGHT = 2.0               # shapes are learnt last: colours need one token, kinds several
DIGIT_WEIGHT = 0.5
KIND_WORD_WEIGHT = 3.0
DIGITS = 10
BOX_WEIGHT = 5.0
PLACE_WEIGHT = 2.0


class DenseHead(nn.Module):
    """Reads kind, colour, digit, box and own place off each merged encoder token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [1 + len(KINDS), len(COLOURS), DIGITS, 4, 2]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: torch.Tensor, targets: DenseTargets, columns: int) -> torch.Tensor:
        """``features`` [B, tokens, width] of frames with that many columns of tokens -> the scalar loss."""
        kind, colour, digit, box, place = self.linear(features.float()).split(self.sizes, dim=-1)
        weight = torch.ones(self.sizes[0], device=kind.device)
        weight[0] = BACKGROUND_WEIGHT
        loss = KIND_WEIGHT * functional.cross_entropy(kind.flatten(0, 1), targets.kind.flatten(), weight)
        tokens = features.shape[1]
        index = torch.arange(tokens, device=place.device)
        own = torch.stack([(index % columns + 0.5) / columns, (index // columns + 0.5) / (tokens // columns)], dim=-1)
        loss = loss + PLACE_WEIGHT * (place - own).abs().mean()
        covered = targets.kind > 0
        if covered.any():
            loss = loss + functional.cross_entropy(colour[covered], targets.colour[covered])
            loss = loss + BOX_WEIGHT * (box[covered] - targets.box[covered]).abs().mean()
        readable = targets.digit >= 0
        if readable.any():
            loss = loss + DIGIT_WEIGHT * functional.cross_entropy(digit[readable], targets.digit[readable])
        return loss


@dataclass
class StepLoss:
    """Parts of one step's loss; ``total`` is to be minimised, the others are for the log."""

    total: torch.Tensor
    answer: float
    dense: float
    features: list[torch.Tensor]    # per slot of the batch: merged encoder features [B, tokens, width]


def word_weights(words: Words) -> torch.Tensor:
    """How much each token of an answer counts, float [vocabulary]: words for kinds more than the many coordinates."""
    weights = torch.ones(words.tokenizer.get_vocab_size())
    weights[[token for kind in KINDS for token in words.ids(f' {kind}')]] = KIND_WORD_WEIGHT
    return weights


def step_loss(network: Network, head: DenseHead, batch: Batch, *, dense_weight: float, weights: torch.Tensor,
              dtype: torch.dtype = torch.bfloat16) -> StepLoss:
    """The loss of one batch; ``weights`` as word_weights gives them."""
    device = network.embedding.weight.device
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        rows, features = batch_rows(network, batch)
        asked = (batch.targets >= 0).to(device)
        logits = network.logits(rows[asked])
    answer = functional.cross_entropy(logits.float(), batch.targets.to(device)[asked], weights)
    dense = torch.stack([head(found, targets, images.shape[2] // TOKEN_PX)
                         for found, targets, images in zip(features, batch.dense, batch.images)]).mean()
    return StepLoss(answer + dense_weight * dense, float(answer.detach()), float(dense.detach()), features)


def batch_rows(network: Network, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The decoder's normed rows [B, S, width] of a batch, and per slot the merged encoder features [B, tokens, width]."""
    device = network.embedding.weight.device
    embeddings = network.embedding(batch.ids.to(device))
    features = []
    for slot, images in enumerate(batch.images):
        found = network.encode(images.to(device))
        features.append(found)
        visual = network.projector(found).to(embeddings.dtype)
        place = batch.starts[:, slot, None].to(device) + torch.arange(visual.shape[1], device=device)
        embeddings = embeddings.scatter(1, place[:, :, None].expand_as(visual), visual)
    return network.decode_rows(embeddings, batch.positions, batch.mask.to(device)), features
