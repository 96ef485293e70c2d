"""The nano model in the form it is trained in: batched, fused, explicit attention. Knows nothing of data or schedules.

The same architecture as penguin_ros/model/definition.py, which runs packed frames and is faithful to the public code;
a test holds the two equal. Here many images of one grid go through together, q, k and v are one matrix, gate and up
another, and attention is written out (torch's fused attention has a very slow bfloat16 backward on CPUs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from penguin_ros.core.rotary import decoder_tables, encoder_tables

PATCH_PX = 14
MERGE = 2
CHANNELS = 3
TOKEN_PX = PATCH_PX * MERGE
MASKED = -1e4  # finite: a row that sees nothing stays finite

Tables = tuple[torch.Tensor, torch.Tensor]
CacheRows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """Size of the encoder or of the decoder."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 3
    head_dim: int = 32
    ffn: int = 512
    rope_theta: float = 100.0


SMALL_TOWER = TowerShape(width=128, layers=2, heads=4, kv_heads=2, ffn=344)     # learns something in a minute: for quick looks


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Size of the whole model."""

    vocabulary: int
    image_token_id: int
    encoder: TowerShape = TowerShape(rope_theta=100.0)
    decoder: TowerShape = TowerShape(rope_theta=10_000.0)
    max_positions: int = 4096

    def config(self) -> dict[str, Any]:
        """The model's config.json, with the public checkpoints' field names."""
        def tower(shape: TowerShape) -> dict[str, Any]:
            return {
                'hidden_size': shape.width, 'num_hidden_layers': shape.layers, 'num_attention_heads': shape.heads,
                'num_key_value_heads': shape.kv_heads, 'head_dim': shape.head_dim, 'intermediate_size': shape.ffn,
                'rope_theta': shape.rope_theta, 'rms_norm_eps': 1e-6, 'hidden_act': 'silu', 'attention_bias': False,
                'max_position_embeddings': self.max_positions}
        return {
            'model_type': 'penguinvl_qwen3', 'torch_dtype': 'float16', **tower(self.decoder),
            'vocab_size': self.vocabulary, 'tie_word_embeddings': True, 'image_token_index': self.image_token_id,
            'rope_scaling': None, 'use_sliding_window': False, 'vision_projector_type': 'mlp2x_gelu',
            'vision_encoder_config': {
                'model_type': 'penguinvl_vision_encoder', **tower(self.encoder),
                'patch_size': PATCH_PX, 'num_channels': CHANNELS}}


class Block(nn.Module):
    """One Qwen3 layer for a batch of sequences of equal length."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.shape = shape
        self.input_norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.qkv = nn.Linear(shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(shape.head_dim, eps=1e-6)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.gate_up = nn.Linear(shape.width, 2 * shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                mask: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` [B, S, width], tables [B or 1, S, 1, head_dim], additive mask [B, 1, S, S] or None (all see all)."""
        return self._rest(x, *self._attend(*self._project(x, cos, sin), mask))

    def append(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor | None,
               past: CacheRows | None) -> tuple[torch.Tensor, CacheRows]:
        """As forward, for new rows behind ``past`` rows; also returns all rows' keys and values."""
        q, k, v = self._project(x, cos, sin)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
        return self._rest(x, *self._attend(q, k, v, mask)), (k, v)

    def look(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """How much the first head would look from each row at each, float [B, S, S] before mask and softmax."""
        size = self.shape.head_dim
        first_key = self.shape.heads * size
        weight = torch.cat([self.qkv.weight[:size], self.qkv.weight[first_key:first_key + size]])
        q, k = functional.linear(self.input_norm(x), weight)[:, :, None].chunk(2, dim=-1)
        q, k = _rotate(self.q_norm(q), cos, sin)[:, :, 0], _rotate(self.k_norm(k), cos, sin)[:, :, 0]
        return (q @ k.transpose(1, 2)) * size ** -0.5

    def _project(self, x: torch.Tensor, cos: torch.Tensor,
                 sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = self.shape
        batch, length, _ = x.shape
        rows = self.qkv(self.input_norm(x)).view(batch, length, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        q, k, v = rows.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=2)
        return _rotate(self.q_norm(q), cos, sin), _rotate(self.k_norm(k), cos, sin), v

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
                mask: torch.Tensor | None) -> tuple[torch.Tensor]:
        shape = self.shape
        batch, length, past_and_length = q.shape[0], q.shape[1], k.shape[1]
        group = shape.heads // shape.kv_heads
        # Query heads that share a kv head lie behind each other in one matrix, so keys are never repeated.
        q = q.view(batch, length, shape.kv_heads, group, shape.head_dim).permute(0, 2, 3, 1, 4)
        q = q.reshape(batch, shape.kv_heads, group * length, shape.head_dim)
        scores = (q @ k.permute(0, 2, 3, 1)) * shape.head_dim ** -0.5
        if mask is not None:
            scores = scores.view(batch, shape.kv_heads, group, length, past_and_length) + mask[:, :, None].to(scores.dtype)
            scores = scores.view(batch, shape.kv_heads, group * length, past_and_length)
        mixed = scores.softmax(dim=-1).to(v.dtype) @ v.transpose(1, 2)
        mixed = mixed.view(batch, shape.kv_heads, group, length, shape.head_dim).permute(0, 3, 1, 2, 4)
        return (mixed.reshape(batch, length, shape.heads * shape.head_dim),)

    def _rest(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        x = x + self.out(mixed)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


def patches_of(images: torch.Tensor) -> torch.Tensor:
    """uint8 RGB [B, H, W, 3], whole tokens high and wide -> normalised patches [B, patches, 588] in merge-window order."""
    batch, rows, columns = images.shape[0], images.shape[1] // TOKEN_PX, images.shape[2] // TOKEN_PX
    windows = images.view(batch, rows, MERGE, PATCH_PX, columns, MERGE, PATCH_PX, CHANNELS)
    patches = windows.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, -1, CHANNELS * PATCH_PX ** 2)
    return patches.float().div(127.5).sub(1.0)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


class Network(nn.Module):
    """Encoder, merge, projector and decoder; embeddings are tied to the logits."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch = nn.Linear(CHANNELS * PATCH_PX ** 2, shape.encoder.width)
        self.encoder = nn.ModuleList(Block(shape.encoder) for _ in range(shape.encoder.layers))
        self.encoder_norm = nn.RMSNorm(shape.encoder.width, eps=1e-6)
        self.projector = nn.Sequential(
            nn.Linear(shape.encoder.width, shape.decoder.width), nn.GELU(),
            nn.Linear(shape.decoder.width, shape.decoder.width))
        self.embedding = nn.Embedding(shape.vocabulary, shape.decoder.width)
        self.decoder = nn.ModuleList(Block(shape.decoder) for _ in range(shape.decoder.layers))
        self.decoder_norm = nn.RMSNorm(shape.decoder.width, eps=1e-6)
        self._tables: dict[tuple[int, int], Tables] = {}
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features ** -0.5, a=-0.2, b=0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for tower in (self.encoder, self.decoder):
            for block in _blocks(tower):
                for last in (block.out, block.down):
                    last.weight.data.mul_((2 * len(tower)) ** -0.5)
        nn.init.normal_(self.embedding.weight, std=0.05)

    def order_coordinates(self, first_id: int, count: int) -> None:
        """Start the coordinate tokens' embeddings as smooth curves of the coordinate: neighbours begin alike."""
        width = self.shape.decoder.width
        place = (torch.arange(count, dtype=torch.float32) + 0.5) / count
        waves = torch.arange(1, 25, dtype=torch.float32)
        features = torch.cat([f(math.pi * place[:, None] * waves) / waves.sqrt() for f in (torch.sin, torch.cos)], dim=1)
        curves = features @ torch.randn(features.shape[1], width)
        rows = self.embedding.weight.data[first_id:first_id + count]
        rows.mul_(0.3).add_(curves * (0.05 / curves.std()))

    def eye(self) -> tuple[nn.Module, ...]:
        """What makes features of an image."""
        return self.patch, self.encoder, self.encoder_norm

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 RGB [B, H, W, 3], whole tokens high and wide -> merged encoder features [B, tokens, width]."""
        batch, rows, columns = images.shape[0], images.shape[1] // TOKEN_PX, images.shape[2] // TOKEN_PX
        x = self.patch(patches_of(images))
        cos, sin = self._encoder_tables((rows * MERGE, columns * MERGE))
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        for block in _blocks(self.encoder):
            x = block(x, cos, sin)
        # Patches lie in window order, so each token is the mean of the next four.
        return self.encoder_norm(x).view(batch, rows * columns, MERGE * MERGE, -1).mean(dim=2)

    def _encoder_tables(self, grid: tuple[int, int]) -> Tables:
        if grid not in self._tables:
            shape = self.shape.encoder
            made = encoder_tables(grid, merge=MERGE, head_dim=shape.head_dim, theta=shape.rope_theta)
            self._tables[grid] = (torch.from_numpy(made[0])[None], torch.from_numpy(made[1])[None])
        cos, sin = self._tables[grid]
        return cos.to(self.patch.weight.device), sin.to(self.patch.weight.device)

    def decode_rows(self, embeddings: torch.Tensor, positions: np.ndarray, mask: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, S, width], int positions [B, S], additive mask [B, 1, S, S] -> normed hidden rows [B, S, width]."""
        return self.decoder_norm(self.decoder_states(embeddings, positions, mask)[-1])

    def decoder_states(self, embeddings: torch.Tensor, positions: np.ndarray, mask: torch.Tensor) -> list[torch.Tensor]:
        """As decode_rows, the rows behind every block, none normed."""
        cos, sin = self.decoder_tables(positions, embeddings)
        states = [embeddings]
        for block in _blocks(self.decoder):
            states.append(block(states[-1], cos, sin, mask))
        return states[1:]

    def decoder_block(self, layer: int) -> Block:
        return _blocks(self.decoder)[layer]

    def append_rows(self, embeddings: torch.Tensor, positions: np.ndarray, mask: torch.Tensor | None,
                    past: list[CacheRows] | None) -> tuple[torch.Tensor, list[CacheRows]]:
        """As decode_rows, behind the rows of ``past``; for greedy decoding during validation."""
        cos, sin = self.decoder_tables(positions, embeddings)
        x, rows = embeddings, []
        for layer, block in enumerate(_blocks(self.decoder)):
            x, kept = block.append(x, cos, sin, mask, past[layer] if past else None)
            rows.append(kept)
        return self.decoder_norm(x), rows

    def decoder_tables(self, positions: np.ndarray, like: torch.Tensor) -> Tables:
        """Rotary tables [B, S, 1, head_dim] for int positions [B, S]."""
        shape = self.shape.decoder
        cos, sin = decoder_tables(positions.reshape(-1), head_dim=shape.head_dim, theta=shape.rope_theta)
        size = (*positions.shape, 1, shape.head_dim)
        return (torch.from_numpy(cos).view(size).to(like.device, like.dtype),
                torch.from_numpy(sin).view(size).to(like.device, like.dtype))

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        return functional.linear(rows, self.embedding.weight)

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """The weights under the public checkpoints' names (reference/penguin_vl.md 5.2), float32."""
        tensors: dict[str, torch.Tensor] = {
            'model.embed_tokens.weight': self.embedding.weight, 'model.norm.weight': self.decoder_norm.weight}
        tensors.update(_tower_tensors('model.layers.', self.decoder))
        vision = 'model.vision_encoder.vision_encoder.'
        tensors[vision + 'embeddings.patch_embedding.weight'] = self.patch.weight.view(
            -1, CHANNELS, PATCH_PX, PATCH_PX)
        tensors[vision + 'embeddings.patch_embedding.bias'] = self.patch.bias
        tensors.update(_tower_tensors(vision + 'encoder.layers.', self.encoder))
        tensors[vision + 'encoder.norm.weight'] = self.encoder_norm.weight
        tensors.update({f'model.vision_projector.readout.{name}': tensor
                        for name, tensor in self.projector.named_parameters()})
        return {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in tensors.items()}


    def load_checkpoint(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the weights of a checkpoint that `checkpoint` gave; raises KeyError or RuntimeError where they do not fit.

        A decoder of more layers than the checkpoint's computes the same at first: see grown_layers.
        """
        vision = 'model.vision_encoder.vision_encoder.'
        patch = tensors[vision + 'embeddings.patch_embedding.weight']
        own = {'patch.weight': patch.reshape(len(patch), -1),
               'patch.bias': tensors[vision + 'embeddings.patch_embedding.bias'],
               'encoder_norm.weight': tensors[vision + 'encoder.norm.weight'],
               'embedding.weight': tensors['model.embed_tokens.weight'], 'decoder_norm.weight': tensors['model.norm.weight']}
        own |= {f'projector.{name}': tensors[f'model.vision_projector.readout.{name}']
                for name, _ in self.projector.named_parameters()}
        own |= _fused('encoder.', len(self.encoder), tensors, vision + 'encoder.layers.')
        kept = sum(name.startswith('model.layers.') and name.endswith('input_layernorm.weight') for name in tensors)
        own |= _fused('decoder.', kept, tensors, 'model.layers.')
        self.load_state_dict(self._grown(own, kept))

    def _grown(self, own: dict[str, torch.Tensor], kept: int) -> dict[str, torch.Tensor]:
        """The tensors of a decoder of ``kept`` layers as one of ours, new layers adding nothing until they are trained."""
        places = grown_layers(kept, len(self.decoder))
        grown = {name: tensor for name, tensor in own.items() if not name.startswith('decoder.')}
        for place, block in enumerate(_blocks(self.decoder)):
            for name, tensor in block.state_dict().items():
                if place in places:
                    grown[f'decoder.{place}.{name}'] = own[f'decoder.{places.index(place)}.{name}']
                else:
                    is_last = name in ('out.weight', 'down.weight')
                    grown[f'decoder.{place}.{name}'] = torch.zeros_like(tensor) if is_last else tensor
        return grown


def grown_layers(kept: int, layers: int) -> list[int]:
    """Where the ``kept`` layers of a decoder stand after it has grown: one new layer in front of each of the last old ones."""
    if not kept <= layers < 2 * kept:
        raise RuntimeError(f'a decoder of {kept} layers cannot grow to {layers}')
    return [place + max(place - (2 * kept - 1 - layers), 0) for place in range(kept)]


def _blocks(tower: nn.ModuleList) -> list[Block]:
    return cast('list[Block]', list(tower))


def _tower_tensors(prefix: str, tower: nn.ModuleList) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for index, block in enumerate(_blocks(tower)):
        shape, name = block.shape, f'{prefix}{index}.'
        q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        q, k, v = block.qkv.weight.split([q_width, kv_width, kv_width])
        gate, up = block.gate_up.weight.chunk(2)
        tensors.update({
            name + 'input_layernorm.weight': block.input_norm.weight,
            name + 'self_attn.q_proj.weight': q, name + 'self_attn.k_proj.weight': k,
            name + 'self_attn.v_proj.weight': v, name + 'self_attn.o_proj.weight': block.out.weight,
            name + 'self_attn.q_norm.weight': block.q_norm.weight,
            name + 'self_attn.k_norm.weight': block.k_norm.weight,
            name + 'post_attention_layernorm.weight': block.ffn_norm.weight,
            name + 'mlp.gate_proj.weight': gate, name + 'mlp.up_proj.weight': up,
            name + 'mlp.down_proj.weight': block.down.weight})
    return tensors


def _fused(own: str, layers: int, tensors: Mapping[str, torch.Tensor], theirs: str) -> dict[str, torch.Tensor]:
    """A checkpoint's layers with q, k and v, and gate and up, as one matrix each, by our names."""
    names = {'input_norm': 'input_layernorm', 'q_norm': 'self_attn.q_norm', 'k_norm': 'self_attn.k_norm',
             'out': 'self_attn.o_proj', 'ffn_norm': 'post_attention_layernorm', 'down': 'mlp.down_proj'}
    fused = {'qkv': [f'self_attn.{one}_proj' for one in 'qkv'], 'gate_up': ['mlp.gate_proj', 'mlp.up_proj']}
    found = {}
    for layer in range(layers):
        for name, other in names.items():
            found[f'{own}{layer}.{name}.weight'] = tensors[f'{theirs}{layer}.{other}.weight']
        for name, parts in fused.items():
            found[f'{own}{layer}.{name}.weight'] = torch.cat([tensors[f'{theirs}{layer}.{part}.weight'] for part in parts])
    return found
