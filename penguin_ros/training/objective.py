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

from penguin_ros.model.precision import fast_math
from penguin_ros.training.memory import FAR_FROM_PATH_M, MemoryHead
from penguin_ros.training.network import MASKED, Network
from penguin_ros.training.rows import Batch, DenseTargets, TokenGrid, Words
from penguin_ros.training.texts import COLOURS, KINDS

BACKGROUND_WEIGHT = 0.15        # most tokens show no object, and are soon told from those that do
KIND_WEIGHT = 2.0               # shapes are learnt last: colours need one token, kinds several
DIGIT_WEIGHT = 0.5
KIND_WORD_WEIGHT = 3.0
DIGITS = 10
BOX_WEIGHT = 5.0
PLACE_WEIGHT = 2.0
POINTER_LAYERS = 2              # whose first head looks where the answer can be read off


class DenseHead(nn.Module):
    """Reads kind, colour, digit, box and own place off each merged encoder token.

    With ``distance`` also how far away what stands there is, how far off the path and whether in it, and the floor behind it:
    how far ahead, and whether of the path.
    """

    def __init__(self, width: int, *, distance: bool = False) -> None:
        super().__init__()
        self.sizes = [1 + len(KINDS), len(COLOURS), DIGITS, 4, 2, 5 * distance]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: torch.Tensor, targets: DenseTargets, columns: int) -> torch.Tensor:
        """``features`` [B, tokens, width] of frames with that many columns of tokens -> the scalar loss."""
        kind, colour, digit, box, place, metres = self.linear(features.float()).split(self.sizes, dim=-1)
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
            if metres.shape[-1]:
                loss = loss + (metres[..., 0][covered] - targets.distance[covered]).abs().mean()
                loss = loss + _path_loss(metres[..., 3][covered], metres[..., 4][covered], targets.path_gap[covered])
        if metres.shape[-1] and targets.floor.isfinite().all():
            loss = loss + (metres[..., 1] - targets.floor).abs().mean()
            loss = loss + functional.binary_cross_entropy_with_logits(metres[..., 2], targets.on_path)
        readable = targets.digit >= 0
        if readable.any():
            loss = loss + DIGIT_WEIGHT * functional.cross_entropy(digit[readable], targets.digit[readable])
        return loss


def _path_loss(said_m: torch.Tensor, said_inside: torch.Tensor, gap_m: torch.Tensor) -> torch.Tensor:
    """Of metres to the path, exact near its edge only, and of being in it; nothing where it is unknown."""
    known = gap_m.isfinite()
    if not known.any():
        return (said_m.sum() + said_inside.sum()) * 0.0
    gap_m = gap_m[known]
    inside = functional.binary_cross_entropy_with_logits(said_inside[known], (gap_m < 0).float())
    return inside + (said_m[known] - gap_m.clamp(-FAR_FROM_PATH_M, FAR_FROM_PATH_M)).abs().mean()


@dataclass
class StepLoss:
    """Parts of one step's loss; ``total`` is to be minimised, the others are for the log."""

    total: torch.Tensor
    answer: float
    dense: float
    memory: float
    pointer: float
    features: list[torch.Tensor]    # per slot of the batch: merged encoder features [B, tokens, width]


def word_weights(words: Words) -> torch.Tensor:
    """How much each token of an answer counts, float [vocabulary]: words for kinds more than the many coordinates."""
    weights = torch.ones(words.tokenizer.get_vocab_size())
    weights[[token for kind in KINDS for token in words.ids(f' {kind}')]] = KIND_WORD_WEIGHT
    return weights


def step_loss(network: Network, head: DenseHead, batch: Batch, *, dense_weight: float, weights: torch.Tensor,
              short_weight: float = 1.0, old_frames_learn: bool = True, memory_head: MemoryHead | None = None,
              memory_weight: float = 0.0, pointer_weight: float = 0.0, only_heads: bool = False, only_dense: bool = False,
              dtype: torch.dtype | None = None) -> StepLoss:
    """The loss of one batch; ``weights`` as word_weights gives them, ``short_weight`` times that in short answers.

    Without ``old_frames_learn`` only the newest frame of a row teaches the encoder, and the others cost a third. With
    ``only_heads`` the auxiliary losses teach their heads and nothing else: a head that knows nothing yet misleads. With
    ``only_dense`` the decoder is left out and learns nothing: half a step's time. Without ``dtype`` the device's fastest.
    """
    device = network.embedding.weight.device
    if only_dense:
        with fast_math(device, dtype):
            features = _encoded(network, batch, old_frames_learn)
        dense = _dense_loss(head, features, batch)
        return StepLoss(dense_weight * dense, 0.0, float(dense.detach()), 0.0, 0.0, features)
    with fast_math(device, dtype):
        states, features = batch_states(network, batch, old_frames_learn=old_frames_learn)
        rows = network.decoder_norm(states[-1])
        targets = batch.targets.to(device)
        asked = targets >= 0
        logits = network.logits(rows[asked])
    losses = functional.cross_entropy(logits.float(), targets[asked], reduction='none')
    weight = weights[targets[asked]] * (1.0 + (short_weight - 1.0) * batch.short.to(device)[asked])
    answer = (losses * weight).sum() / weight.sum()
    dense = _dense_loss(head, [found.detach() for found in features] if only_heads else features, batch)
    total = answer + dense_weight * dense
    memory = torch.zeros(())
    if memory_head is not None and memory_weight:
        halfway = len(states) // 2
        read = [states[max(halfway - 2, 0)], states[halfway - 1], states[halfway]]
        memory = memory_head([state.detach() for state in read] if only_heads else read, batch.starts, batch.memory)
        total = total + memory_weight * memory
    pointer = torch.zeros(())
    if pointer_weight and len(batch.pointers.rows):
        with fast_math(device, dtype):
            pointer = pointer_loss(network, batch, states)
        total = total + pointer_weight * pointer
    return StepLoss(total, float(answer.detach()), float(dense.detach()), float(memory.detach()), float(pointer.detach()),
                    features)


def _dense_loss(head: DenseHead, features: list[torch.Tensor], batch: Batch) -> torch.Tensor:
    return torch.stack([head(found, told, columns)
                        for found, told, (_, columns) in zip(features, batch.dense, batch.grids)]).mean()


def pointer_loss(network: Network, batch: Batch, states: list[torch.Tensor]) -> torch.Tensor:
    """How little the first head of the POINTER_LAYERS above the middle looks at what shows the thing the next token is about.

    Minus the logarithm of the attention on those places, every turn counting alike. That a decoder discovers which token to
    read comes late and as a jump, long after the encoder sees (reference/nano.md), and for moments in a clip not at all.
    """
    device = states[0].device
    cos, sin = network.decoder_tables(batch.positions, states[0])
    rows, places = batch.pointers.rows.to(device), batch.pointers.places.to(device)
    weights, sources = batch.pointers.weights.to(device), batch.pointers.sources.to(device)
    mask = batch.mask.to(device)[rows, 0, places]
    losses = []
    halfway = len(states) // 2
    for layer in range(halfway, min(halfway + POINTER_LAYERS, len(states))):
        looks = network.decoder_block(layer).look(states[layer - 1], cos, sin)[rows, places].float() + mask
        there = looks.masked_fill(~sources, MASKED)
        losses.append(((looks.logsumexp(dim=-1) - there.logsumexp(dim=-1)) * weights).sum() / weights.sum())
    return torch.stack(losses).mean()


def batch_rows(network: Network, batch: Batch, *, old_frames_learn: bool = True) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The decoder's normed rows [B, S, width] of a batch, and per slot the merged encoder features [B, tokens, width]."""
    states, features = batch_states(network, batch, old_frames_learn=old_frames_learn)
    return network.decoder_norm(states[-1]), features


def batch_states(network: Network, batch: Batch, *,
                 old_frames_learn: bool = True) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """As batch_rows, the rows behind every decoder layer, none normed."""
    device = network.embedding.weight.device
    embeddings = network.embedding(batch.ids.to(device))
    features = _encoded(network, batch, old_frames_learn)
    for slot, found in enumerate(features):
        visual = network.projector(found).to(embeddings.dtype)
        place = batch.starts[:, slot, None].to(device) + torch.arange(visual.shape[1], device=device)
        embeddings = embeddings.scatter(1, place[:, :, None].expand_as(visual), visual)
    return network.decoder_states(embeddings, batch.positions, batch.mask.to(device)), features


def _encoded(network: Network, batch: Batch, old_frames_learn: bool) -> list[torch.Tensor]:
    """Per slot the merged encoder features; frames of one size go through together."""
    newest = len(batch.grids) - 1
    groups: dict[tuple[TokenGrid, bool], list[int]] = {}
    for slot, grid in enumerate(batch.grids):
        groups.setdefault((grid, old_frames_learn or slot == newest), []).append(slot)
    features: dict[int, torch.Tensor] = {}
    for (_, learns), slots in groups.items():
        images = torch.cat([batch.images[slot] for slot in slots]).to(network.embedding.weight.device)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            found = network.encode(images)
        features.update(zip(slots, found.chunk(len(slots))))
    return [features[slot] for slot in range(len(batch.grids))]
