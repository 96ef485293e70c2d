"""Penguin-VL as transformers alone would run it: its Qwen3 layers, its cache, its `generate`. Knows nothing of our engines.

The weights are those of a model of ours, shared, so that both compute the same thing at the same time and place. Nothing is
kept from one caption to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from penguin_ros.core.errors import EngineError
from penguin_ros.core.rotary import encoder_tables
from penguin_ros.model.config import BlockConfig
from penguin_ros.model.definition import PenguinVL, merge_windows


class PlainPenguin:
    """Frames to visual tokens, prompts to text, one after another."""

    def __init__(self, model: PenguinVL, merge: int) -> None:
        qwen3 = _qwen3()
        self._model, self._merge = model, merge
        encoder, decoder = model.config.encoder, model.config.decoder
        config = qwen3.Qwen3Config(**_published(decoder), vocab_size=decoder.vocabulary,
                                   max_position_embeddings=decoder.max_positions,
                                   tie_word_embeddings=model.config.tied_embeddings)
        encoder_config = qwen3.Qwen3Config(**_published(encoder))
        with torch.device('meta'):      # shapes only, the weights are there already
            self.language = qwen3.Qwen3ForCausalLM(config)
            layers = torch.nn.ModuleList(
                qwen3.Qwen3DecoderLayer(encoder_config, index) for index in range(encoder.layers))
        weights = {name if name.startswith('lm_head') else f'model.{name}': value
                   for name, value in model.decoder.state_dict().items()}
        weights.setdefault('lm_head.weight', weights['model.embed_tokens.weight'])
        self.language.load_state_dict(weights, assign=True)
        with torch.device(model.decoder.norm.weight.device):
            self.language.model.rotary_emb = qwen3.Qwen3RotaryEmbedding(config)
        self.language.generation_config.eos_token_id = None     # a caption has as many tokens as it is asked for
        self.language.eval()
        layers.load_state_dict(model.encoder.layers.state_dict(), assign=True)
        self._layers: list[Any] = list(layers.eval())
        for layer in self._layers:
            layer.self_attn.is_causal = False       # every patch sees every other

    @torch.inference_mode()
    def encode(self, patches: np.ndarray, grid: tuple[int, int]) -> Tensor:
        """Visual tokens [N/m2, H] of one frame."""
        encoder = self._model.encoder
        like = encoder.norm.weight
        config = encoder.config
        x = encoder.embeddings['patch_embedding'](torch.tensor(patches[None], device=like.device, dtype=like.dtype))
        cos, sin = (torch.from_numpy(table).squeeze(1)[None].to(like.device, like.dtype) for table in encoder_tables(
            grid, merge=self._merge, head_dim=config.head_dim, theta=config.rope_theta))
        for layer in self._layers:
            x = layer(x, position_embeddings=(cos, sin))
        return self._model.projector(merge_windows(encoder.norm(x), self._merge))[0]

    @torch.inference_mode()
    def embed(self, ids: np.ndarray) -> Tensor:
        """Embeddings [T, H] of words."""
        table = self._model.decoder.embed_tokens
        return table(torch.as_tensor(ids, dtype=torch.long, device=table.weight.device))

    @torch.inference_mode()
    def read(self, embeddings: Tensor) -> tuple[Tensor, Any]:
        """Logits [V] behind a prompt [T, H], and the cache it filled."""
        out = self.language(inputs_embeds=embeddings[None], use_cache=True, logits_to_keep=1)
        return out.logits[0, -1], out.past_key_values

    @torch.inference_mode()
    def next_token(self, token_id: int, cache: Any) -> int:
        """One more token behind a cache, which then is as before."""
        token = torch.tensor([[token_id]], device=self.language.device)
        out = self.language(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.crop(-1)
        return int(out.logits[0, -1].argmax())

    @torch.inference_mode()
    def generate(self, embeddings: Tensor, new_tokens: int) -> list[int]:
        """The text behind a prompt [T, H]."""
        mask = torch.ones(1, len(embeddings), dtype=torch.long, device=embeddings.device)
        return self.language.generate(inputs_embeds=embeddings[None], attention_mask=mask, max_new_tokens=new_tokens,
                                      do_sample=False)[0].tolist()


def _published(block: BlockConfig) -> dict[str, Any]:
    """The shape of a stack of blocks as transformers spells it, with the attention it uses by default."""
    return {'hidden_size': block.width, 'num_hidden_layers': block.layers, 'num_attention_heads': block.heads,
            'num_key_value_heads': block.kv_heads, 'head_dim': block.head_dim, 'intermediate_size': block.mlp_width,
            'rms_norm_eps': block.norm_eps, 'rope_theta': block.rope_theta, 'attn_implementation': 'sdpa'}


def _qwen3() -> Any:
    try:
        from transformers.models.qwen3 import modeling_qwen3
    except ImportError as error:
        raise EngineError(f'transformers with Qwen3 is not here ({error}); it is what our steps are compared with. '
                          "Install it: pip install 'penguin_ros[bench]'") from error
    return modeling_qwen3
