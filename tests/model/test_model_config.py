"""Configurations are read in both published forms, and what cannot be right is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penguin_ros.core.errors import CheckpointError
from penguin_ros.model.config import (
    PENGUIN_ENCODER,
    PENGUIN_VL_2B,
    PENGUIN_VL_8B,
    config_from_dict,
    config_from_folder,
    encoder_config_from_folder,
)

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'


@pytest.fixture
def fields() -> dict[str, Any]:
    return json.loads((GOLDEN / 'model_A' / 'config.json').read_text())


def write_config(folder: Path, content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize('config', [PENGUIN_VL_2B, PENGUIN_VL_8B, *(config_from_folder(GOLDEN / f'model_{x}') for x in 'AB')])
def test_a_configuration_written_is_read_back_equal(config: Any) -> None:
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_inline_encoder_is_read(fields: dict[str, Any]) -> None:
    config = config_from_dict(fields)
    assert (config.encoder.width, config.encoder.layers, config.encoder.patch_values) == (64, 3, 588)
    assert (config.decoder.vocabulary, config.image_token_id, config.tied_embeddings) == (300, 299, True)


@pytest.mark.parametrize('named, place', [
    ('Penguin-Encoder', 'model/Penguin-Encoder'), ('someone/small-encoder', 'small-encoder'), ('../other', 'other'),
    ('/publisher/disk/enc-7', 'enc-7'), ('/publisher/disk/enc-7', 'model/enc-7')])
def test_an_encoder_named_by_path_is_found_in_or_beside_the_checkpoint(
        tmp_path: Path, fields: dict[str, Any], named: str, place: str) -> None:
    encoder = fields.pop('vision_encoder_config')
    write_config(tmp_path / place, encoder)
    folder = write_config(tmp_path / 'model', {**fields, 'vision_encoder': named})
    assert config_from_folder(folder).encoder.width == encoder['hidden_size']


def test_an_encoder_named_by_an_absolute_path_is_read_there(tmp_path: Path, fields: dict[str, Any]) -> None:
    encoder = write_config(tmp_path / 'elsewhere' / 'encoder', fields.pop('vision_encoder_config'))
    folder = write_config(tmp_path / 'models' / 'model', {**fields, 'mm_vision_encoder': str(encoder)})
    assert config_from_folder(folder).encoder.width == 64


def test_the_published_encoder_needs_no_folder(tmp_path: Path, fields: dict[str, Any]) -> None:
    del fields['vision_encoder_config']
    folder = write_config(tmp_path / 'model', {**fields, 'vision_encoder': 'tencent/Penguin-Encoder'})
    assert config_from_folder(folder).encoder == PENGUIN_ENCODER


def test_an_unknown_encoder_is_named_with_the_places_looked_at(tmp_path: Path, fields: dict[str, Any]) -> None:
    del fields['vision_encoder_config']
    folder = write_config(tmp_path / 'model', {**fields, 'vision_encoder': 'someone/big-encoder'})
    with pytest.raises(CheckpointError, match=r"'someone/big-encoder'.*big-encoder.*Put the encoder folder beside"):
        config_from_folder(folder)


def test_a_checkpoint_folder_of_the_encoders_own_name_is_not_taken_for_the_encoder(
        tmp_path: Path, fields: dict[str, Any]) -> None:
    del fields['vision_encoder_config']
    folder = write_config(tmp_path / 'model', {**fields, 'vision_encoder': 'someone/model'})
    with pytest.raises(CheckpointError, match='Put the encoder folder beside'):
        config_from_folder(folder)


def test_the_encoders_shape_is_read_from_its_own_folder_and_from_a_whole_model(tmp_path: Path) -> None:
    alone = write_config(tmp_path / 'encoder', PENGUIN_ENCODER.to_dict())
    assert encoder_config_from_folder(alone) == PENGUIN_ENCODER
    assert encoder_config_from_folder(GOLDEN / 'model_A').width == 64
    with pytest.raises(CheckpointError, match='describes a vision encoder alone'):
        config_from_folder(alone)


def test_a_rope_theta_kept_in_rope_parameters_is_found(fields: dict[str, Any]) -> None:
    theta = fields.pop('rope_theta')
    config = config_from_dict({**fields, 'rope_parameters': {'rope_theta': theta, 'rope_type': 'default'}})
    assert config.decoder.rope_theta == theta


@pytest.mark.parametrize('name', ['hidden_size', 'head_dim', 'rope_theta', 'image_token_index'])
def test_a_missing_field_is_named(fields: dict[str, Any], name: str) -> None:
    del fields[name]
    with pytest.raises(CheckpointError, match=f'lacks {name}'):
        config_from_dict(fields)


def test_a_missing_field_of_the_encoder_is_named(fields: dict[str, Any]) -> None:
    del fields['vision_encoder_config']['patch_size']
    with pytest.raises(CheckpointError, match=r'vision_encoder_config of config\.json lacks patch_size'):
        config_from_dict(fields)


@pytest.mark.parametrize('change, text', [
    ({'hidden_size': '96'}, 'has "96" for hidden_size'), ({'num_hidden_layers': 2.5}, 'has 2.5 for num_hidden_layers'),
    ({'rope_theta': float('inf')}, 'has Infinity for rope_theta'), ({'vocab_size': True}, 'has true for vocab_size'),
    ({'num_hidden_layers': 0}, 'layers is 0'), ({'num_key_value_heads': 4}, '6 heads of width 16 over 4 key/value heads'),
    ({'image_token_index': 300}, 'a vocabulary of 300 has ids 0 to 299'), ({'hidden_act': 'gelu'}, 'hidden_act = "gelu"'),
    ({'attention_bias': True}, 'attention_bias = true'), ({'rope_scaling': {'rope_type': 'yarn'}}, 'rope_scaling'),
    ({'vision_projector_type': 'qformer'}, "'qformer'"), ({'vision_encoder_config': None}, 'names no vision encoder')])
def test_a_field_that_cannot_be_is_named(fields: dict[str, Any], change: dict[str, Any], text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        config_from_dict({**fields, **change})


@pytest.mark.parametrize('content, text', [('{"hidden_size": 9', 'cannot be read'), ('[1, 2]', 'not a JSON object')])
def test_a_damaged_config_file_is_named(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(CheckpointError, match=rf'config\.json .*{text}'):
        config_from_folder(tmp_path)
