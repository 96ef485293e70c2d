"""An encoder that starts from a text model: the text model learns the grammar, and its layers arrive in the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penguin_ros.core.errors import ConfigError
from penguin_ros.training.dataset import open_split
from penguin_ros.training.llm_start import start_encoder_from, train_text_model
from penguin_ros.training.network import Network, NetworkShape, TowerShape
from penguin_ros.training.rows import Words
from penguin_ros.training.tokenizer import build_tokenizer
from tests.training.drawn import draw_split

SMALL = TowerShape(width=48, layers=2, heads=2, kv_heads=1, head_dim=24, ffn=64)


def _network(words: Words, seed: int, encoder: TowerShape = SMALL) -> Network:
    torch.manual_seed(seed)
    return Network(NetworkShape(vocabulary=words.tokenizer.get_vocab_size(), image_token_id=words.image_id, encoder=encoder,
                                decoder=SMALL))


def test_the_text_model_learns_and_the_encoder_takes_its_layers(tmp_path: Path) -> None:
    draw_split(tmp_path / 'clips', 20, seed=1)
    words = Words(build_tokenizer())
    text_model, network = _network(words, 0), _network(words, 1)
    losses = train_text_model(text_model, open_split(tmp_path / 'clips').clips, words, steps=12, seed=3)
    assert losses[-1] < 0.9 * losses[0]
    patch, decoder = network.patch.weight.clone(), network.decoder[0].qkv.weight.clone()
    start_encoder_from(network, text_model)
    for name, tensor in text_model.decoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], tensor)
    assert torch.equal(network.encoder_norm.weight, text_model.decoder_norm.weight)
    assert torch.equal(network.patch.weight, patch)
    assert torch.equal(network.decoder[0].qkv.weight, decoder)


def test_an_encoder_of_another_shape_cannot_start_from_it() -> None:
    words = Words(build_tokenizer())
    with pytest.raises(ConfigError, match='same width, layers and heads'):
        start_encoder_from(_network(words, 0, TowerShape(width=48, layers=3, heads=2, kv_heads=1, head_dim=24, ffn=64)),
                           _network(words, 1))
