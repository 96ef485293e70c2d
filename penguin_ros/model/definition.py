"""Penguin-VL as plain PyTorch modules, for training, reference numbers and export. Knows nothing of files or engines.

Source: reference/penguin_vl.md 1. One block serves both halves: the encoder runs it over the patches of one frame
without a mask, the decoder runs it causally. Modules are named so that state_dict() has the canonical names of
model/weights.py.
Shapes: B batch, S tokens or patches, T keys (earlier ones included), C encoder width, H decoder width, m merge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penguin_ros.core.errors import EngineError
from penguin_ros.core.rotary import encoder_tables, frequencies
from penguin_ros.model.config import BlockConfig, DecoderConfig, EncoderConfig, PenguinVLConfig

Tables = tuple[Tensor, Tensor]      # cos and sin, [S, 1, head_dim] or [B, S, 1, head_dim]
LayerCache = tuple[Tensor, Tensor]  # keys after rotation and values, each [rows, kv_heads, head_dim]


class RMSNorm(nn.Module):
    """Scale to a mean square of 1 in float32, then weigh in the model's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return self.weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with q/k norms before rotation; key/value head j serves query heads j*g to j*g+g-1."""

    def __init__(self, config: BlockConfig, fused: bool | None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.fused = fused
        self.q_proj = nn.Linear(config.width, config.heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, tables: Tables, *, causal: bool, mask: Tensor | None = None,
                cache: LayerCache | None = None, start: int = 0, rows: Tensor | None = None) -> Tensor:
        batch, count, _ = x.shape
        q = rotate(self.q_norm(self.q_proj(x).view(batch, count, self.heads, self.head_dim)), tables)
        k = rotate(self.k_norm(self.k_proj(x).view(batch, count, self.kv_heads, self.head_dim)), tables)
        v = self.v_proj(x).view(batch, count, self.kv_heads, self.head_dim)
        if cache is not None:
            keys, values = cache
            if rows is None:
                keys[start:start + count] = k[0]
                values[start:start + count] = v[0]
                total = start + count
            else:
                assert mask is not None, 'rows without a mask'
                keys.index_copy_(0, rows, k[0])
                values.index_copy_(0, rows, v[0])
                total = mask.shape[-1]
            k, v = keys[None, :total], values[None, :total]
        return self.o_proj(attend(q, k, v, causal=causal, mask=mask, fused=self.fused))


class MLP(nn.Module):
    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Pre-norm Qwen3 block; the keyword arguments of its attention pass through."""

    def __init__(self, config: BlockConfig, fused: bool | None) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, fused)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, tables: Tables, *, causal: bool, mask: Tensor | None = None,
                cache: LayerCache | None = None, start: int = 0, rows: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), tables, causal=causal, mask=mask, cache=cache, start=start, rows=rows)
        return x + self.mlp(self.post_attention_layernorm(x))


class PatchEmbedding(nn.Module):
    """Linear map of a patch's numbers (channel, row, column), its weight kept in the checkpoint's convolution shape."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.width, 3, config.patch_px, config.patch_px))
        self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches, self.weight.flatten(1), self.bias)


class Encoder(nn.Module):
    """Patches of whole frames to merged features; frames never see each other."""

    def __init__(self, config: EncoderConfig, *, fused_attention: bool | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.ModuleDict({'patch_embedding': PatchEmbedding(config)})
        self.layers = nn.ModuleList(Block(config, fused_attention) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, patches: Tensor, grid: tuple[int, int], merge: int) -> Tensor:
        """Encode a batch of frames of one grid: patches [B, rows*columns, 588] -> features [B, rows*columns/m2, C].

        Patches are in merge-window order (1.5); features are row-major.
        """
        rows, columns = grid
        if rows % merge or columns % merge or patches.shape[1:] != (rows * columns, self.config.patch_values):
            raise EngineError(
                f'patches of shape {tuple(patches.shape)} do not fit a grid of {rows} x {columns} with merge {merge}; '
                f'[frames, {rows * columns}, {self.config.patch_values}] and sides divisible by {merge} were needed. '
                'Resize the frame to the grid first.')
        x = self.embeddings['patch_embedding'](patches)
        tables = self._tables(grid, merge, x)
        for layer in self.layers:
            x = layer(x, tables, causal=False)
        return merge_windows(self.norm(x), merge)

    def forward_packed(self, patches: Tensor, grid_sizes: Tensor, merge_sizes: Tensor) -> Tensor:
        """Encode frames and pictures laid end to end: patches [P, 588], grid_sizes [G, 3] of t, h, w, merge_sizes [G].

        Returns features [M, C], M = sum t*(h/m)*(w/m). A grid row with t > 1 is t frames of one grid.
        """
        grids = [tuple(int(side) for side in row) for row in grid_sizes]
        counts = [t * h * w for t, h, w in grids]
        if sum(counts) != len(patches) or len(grids) != len(merge_sizes):
            raise EngineError(f'{len(grids)} grids need {sum(counts)} patches and {len(grids)} merge sizes; '
                              f'{len(patches)} and {len(merge_sizes)} were given. Make the arrays agree.')
        features = [
            self(group.view(t, h * w, -1), (h, w), int(merge)).flatten(0, 1)
            for group, (t, h, w), merge in zip(patches.split(counts), grids, merge_sizes)
        ]
        return torch.cat(features)

    def _tables(self, grid: tuple[int, int], merge: int, like: Tensor) -> Tables:
        cos, sin = _encoder_tables(grid, merge, self.config.head_dim, self.config.rope_theta, like.device)
        return cos.to(like.dtype), sin.to(like.dtype)


class Projector(nn.Module):
    """Features of the encoder to visual tokens in the decoder's width, one by one."""

    def __init__(self, config: PenguinVLConfig) -> None:
        super().__init__()
        readout: list[nn.Module] = [nn.Linear(config.encoder.width, config.decoder.width)]
        for _ in range(config.projector_depth - 1):
            readout += [nn.GELU(), nn.Linear(config.decoder.width, config.decoder.width)]
        self.readout = nn.Sequential(*readout)

    def forward(self, features: Tensor) -> Tensor:
        return self.readout(features)


class Decoder(nn.Module):
    """The language model over embeddings, be they of words or of frames."""

    def __init__(self, config: DecoderConfig, *, tied_embeddings: bool, fused_attention: bool | None = None) -> None:
        super().__init__()
        self.config = config
        # Not a bare nn.Embedding: drawing its numbers on the meta device makes torch import 70 MB of code for nothing.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.zeros(config.vocabulary, config.width), freeze=False)
        self.layers = nn.ModuleList(Block(config, fused_attention) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = None if tied_embeddings else nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, *,
                cache: Sequence[LayerCache] | None = None, start: int = 0) -> Tensor:
        """Hidden states [B, S, H] after the final norm, for embeddings [B, S, H] at int positions [S] or [B, S].

        ``mask`` [B or 1, 1, S, T] is bool (True: may look) or added to the scores; None means causal. With ``cache``
        (one pair per layer, B = 1) the new keys and values are written to rows [start, start+S) in place, T = start + S,
        and None means that every earlier row is looked at.
        """
        tables = decoder_tables(positions, self.config.head_dim, self.config.rope_theta, embeddings.dtype)
        return self.states(embeddings, tables, mask, cache=cache, start=start)

    def states(self, embeddings: Tensor, tables: Tables, mask: Tensor | None = None, *,
               cache: Sequence[LayerCache] | None = None, start: int = 0, rows: Tensor | None = None) -> Tensor:
        """As ``forward``, with tables made elsewhere.

        ``rows`` [S] instead of ``start``: each new row is written to the cache row named there, and the mask says which of
        the first T rows are looked at. Nothing here depends on a number that only the host knows, so it can be recorded.
        """
        x = embeddings
        for index, layer in enumerate(self.layers):
            x = layer(x, tables, causal=True, mask=mask, cache=cache[index] if cache else None, start=start, rows=rows)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the whole vocabulary [..., V] for hidden states [..., H]."""
        return F.linear(hidden, self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight)


class PenguinVL(nn.Module):
    """Encoder, projector and decoder. Weights come from model/checkpoint.py or, to train, from ``initialise``.

    ``fused_attention`` picks torch's fused attention (True), plain products and a softmax (False), or the faster of the
    two for the device (None): on a CPU the fused one has a very slow backward pass (reference/nano.md, Pitfalls).
    """

    def __init__(self, config: PenguinVLConfig, *, fused_attention: bool | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder, fused_attention=fused_attention)
        self.projector = Projector(config)
        self.decoder = Decoder(config.decoder, tied_embeddings=config.tied_embeddings, fused_attention=fused_attention)

    def encode_frames(self, patches: Tensor, grid: tuple[int, int], merge: int) -> Tensor:
        """Visual tokens [B, N/m2, H] of a batch of frames of one grid, patches [B, N, 588]."""
        return self.projector(self.encoder(patches, grid, merge))

    def encode_packed(self, patches: Tensor, grid_sizes: Tensor, merge_sizes: Tensor) -> Tensor:
        """Visual tokens [M, H] of frames and pictures laid end to end (Encoder.forward_packed)."""
        return self.projector(self.encoder.forward_packed(patches, grid_sizes, merge_sizes))

    def embed_prompt(self, input_ids: Tensor, visual_tokens: Tensor | None = None) -> Tensor:
        """Embeddings [B, S, H] of a written-out prompt [B, S], its placeholders replaced by ``visual_tokens`` [M, H].

        The caller's ids are not changed. Raises EngineError unless there are exactly M placeholders.
        """
        is_visual = input_ids == self.config.image_token_id
        needed, given = int(is_visual.sum()), 0 if visual_tokens is None else len(visual_tokens)
        if needed != given:
            raise EngineError(
                f'the prompt has {needed} placeholders (id {self.config.image_token_id}) and {given} visual tokens '
                'were given. Write one placeholder per visual token of every frame.')
        embeddings = self.decoder.embed_tokens(input_ids.masked_fill(is_visual, 0))
        if visual_tokens is None or not needed:
            return embeddings
        return embeddings.masked_scatter(is_visual[..., None], visual_tokens.to(embeddings.dtype))

    def forward(self, input_ids: Tensor, patches: Tensor | None = None, grid_sizes: Tensor | None = None,
                merge_sizes: Tensor | None = None) -> Tensor:
        """Logits [B, S, V] of a written-out prompt with its pictures, everything in one causal pass."""
        visual_tokens = None
        if patches is not None and grid_sizes is not None and merge_sizes is not None:
            visual_tokens = self.encode_packed(patches, grid_sizes, merge_sizes)
        embeddings = self.embed_prompt(input_ids, visual_tokens)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.decoder.logits(self.decoder(embeddings, positions))


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """Mix component i of each head with component i + d/2; x [B, S, heads, d].

    With the encoder's tables the two outputs use different angles, so this is not a rotation there (1.4): keep it so.
    """
    cos, sin = tables
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, mask: Tensor | None, fused: bool | None) -> Tensor:
    """Attention [B, S, heads*d] of q [B, S, heads, d] over k, v [B, T, kv_heads, d].

    Without a mask, ``causal`` lets the last query see every key, the one before it all but the last key, and so on.
    """
    batch, count, heads, head_dim = q.shape
    total, kv_heads = k.shape[1:3]
    if fused is None:
        fused = not (q.device.type == 'cpu' and q.requires_grad)
    if mask is None and causal and count > 1 and (total > count or not fused):
        mask = torch.ones(count, total, dtype=torch.bool, device=q.device).tril(total - count)[None, None]
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    group = heads // kv_heads
    if fused:
        q = q.transpose(1, 2)
        if mask is not None and group > 1:
            # CUDA's fused kernels take a mask or groups, not both: the queries of a group are stacked instead.
            q, mask = q.reshape(batch, kv_heads, group * count, head_dim), mask.repeat(1, 1, group, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None and count > 1,
                                               enable_gqa=q.shape[1] != kv_heads)
        return mixed.view(batch, heads, count, head_dim).transpose(1, 2).reshape(batch, count, heads * head_dim)
    # The queries of a group are stacked, so that keys and values are never repeated.
    q = q.view(batch, count, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4) * head_dim**-0.5
    scores = q.reshape(batch, kv_heads, group * count, head_dim) @ k.transpose(2, 3)
    if mask is not None:
        scores = scores.view(batch, kv_heads, group, count, total)
        mask = mask[:, :, None]
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
        scores = scores.view(batch, kv_heads, group * count, total)
    mixed = (scores.softmax(dim=-1) @ v).view(batch, kv_heads, group, count, head_dim)
    return mixed.permute(0, 3, 1, 2, 4).reshape(batch, count, heads * head_dim)


def merge_windows(x: Tensor, merge: int) -> Tensor:
    """Bilinear reduction of each m x m window: [B, N, C] in window order -> [B, N/m2, C] (1.6).

    Without antialias the sample point is the window's centre: an odd m takes the centre patch, an even m the mean of
    the middle four.
    """
    if merge == 1:
        return x
    windows = x.view(x.shape[0], -1, merge, merge, x.shape[-1])
    low, high = (merge - 1) // 2, merge // 2 + 1
    return windows[:, :, low:high, low:high].mean(dim=(2, 3))


def decoder_tables(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Tables:
    """cos and sin [..., 1, head_dim] of int positions [...]; equal to core/rotary.py, made on the positions' device."""
    ladder = torch.from_numpy(frequencies(head_dim, theta)).to(positions.device)
    angles = positions.float()[..., None] * ladder
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(-2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


@lru_cache(maxsize=64)
def _encoder_tables(grid: tuple[int, int], merge: int, head_dim: int, theta: float, device: torch.device) -> Tables:
    cos, sin = encoder_tables(grid, merge=merge, head_dim=head_dim, theta=theta)
    with torch.inference_mode(False):  # these outlive the call, and a later one may train
        return torch.from_numpy(cos).to(device), torch.from_numpy(sin).to(device)


def initialise(model: PenguinVL, *, seed: int) -> None:
    """Random weights to train from: truncated LeCun normal for matrices (7.1), 0.02 normal for the embedding.

    Norms are 1 and biases 0, but the projector keeps torch's own way for linear layers, as the reference does.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith('embed_tokens.weight'):
            nn.init.normal_(parameter, std=0.02, generator=generator)
        elif 'norm' in name.split('.')[-2]:
            nn.init.ones_(parameter)
        elif name.endswith('.bias'):
            nn.init.zeros_(parameter)
        else:
            _lecun_normal(parameter, math.prod(parameter.shape[1:]), generator)
    for layer in model.projector.readout:
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _lecun_normal(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    std = fan_in**-0.5 / 0.8796  # cutting at two sigma narrows the spread by 0.8796
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
