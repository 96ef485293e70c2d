"""The shape of one Penguin-VL, as the config.json of its checkpoint states it. Knows nothing of weights (weights.py).

Source: reference/penguin_vl.md 1.1 and 1.7. The reference's class defaults describe another model, so nothing that
shapes a tensor has a default here: a field that config.json lacks is an error that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from penguin_ros.core.engine import LanguageSpec, VisionSpec
from penguin_ros.core.errors import CheckpointError

# Our names and the published ones, in the order in which config.json files are written.
_BLOCK_FIELDS = {
    'width': 'hidden_size', 'layers': 'num_hidden_layers', 'heads': 'num_attention_heads',
    'kv_heads': 'num_key_value_heads', 'head_dim': 'head_dim', 'mlp_width': 'intermediate_size',
    'norm_eps': 'rms_norm_eps', 'rope_theta': 'rope_theta',
}
_ENCODER_FIELDS = {**_BLOCK_FIELDS, 'patch_px': 'patch_size'}
_DECODER_FIELDS = {**_BLOCK_FIELDS, 'vocabulary': 'vocab_size', 'max_positions': 'max_position_embeddings'}
_REAL_FIELDS = {'norm_eps', 'rope_theta'}

# What the modules do without being told; a config that says otherwise describes a model this code does not compute.
_FIXED_FIELDS: dict[str, Any] = {
    'hidden_act': 'silu', 'attention_bias': False, 'use_sliding_window': False, 'rope_scaling': None, 'num_channels': 3,
}


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The shape of a stack of Qwen3 blocks."""

    width: int          # of the residual stream
    layers: int
    heads: int          # query heads
    kv_heads: int       # each serves heads / kv_heads query heads
    head_dim: int       # not width / heads: the encoder's queries are twice as wide as its stream
    mlp_width: int
    norm_eps: float
    rope_theta: float   # base of the rotary frequencies

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise CheckpointError(f'{name} is {value} in the model configuration; it must be above 0. '
                                      'Take config.json from the same place as the weights.')
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise CheckpointError(
                f'{self.heads} heads of width {self.head_dim} over {self.kv_heads} key/value heads do not fit: heads '
                'must be a multiple of key/value heads and head_dim even. '
                'Take config.json from the same place as the weights.')


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(BlockConfig):
    """The vision encoder: bidirectional blocks over the patches of one frame."""

    patch_px: int = 14

    @property
    def patch_values(self) -> int:
        """How many numbers one patch has: channel, row, column."""
        return 3 * self.patch_px**2

    def to_dict(self) -> dict[str, Any]:
        return {
            'model_type': 'penguinvl_vision_encoder', **_to_published(self, _ENCODER_FIELDS),
            'hidden_act': 'silu', 'attention_bias': False, 'num_channels': 3,
        }


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(BlockConfig):
    """The language model: causal blocks over words and visual tokens."""

    vocabulary: int
    max_positions: int = 40960


@dataclass(frozen=True, kw_only=True)
class PenguinVLConfig:
    """Everything that shapes a Penguin-VL."""

    encoder: EncoderConfig
    decoder: DecoderConfig
    image_token_id: int                         # the id that stands for one visual token in a written-out prompt
    tied_embeddings: bool                       # the output matrix is the embedding matrix
    projector_type: str = 'mlp2x_gelu'

    def __post_init__(self) -> None:
        _projector_depth(self.projector_type)
        if not 0 <= self.image_token_id < self.decoder.vocabulary:
            raise CheckpointError(
                f'image_token_index is {self.image_token_id}; a vocabulary of {self.decoder.vocabulary} has ids 0 to '
                f'{self.decoder.vocabulary - 1}. Take config.json from the same place as the weights.')

    @property
    def projector_depth(self) -> int:
        """How many linear layers the projector has."""
        return _projector_depth(self.projector_type)

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that ``config_from_dict`` reads back as an equal configuration."""
        return {
            'model_type': 'penguinvl_qwen3', **_to_published(self.decoder, _DECODER_FIELDS),
            'hidden_act': 'silu', 'attention_bias': False, 'use_sliding_window': False, 'rope_scaling': None,
            'tie_word_embeddings': self.tied_embeddings, 'image_token_index': self.image_token_id,
            'vision_projector_type': self.projector_type, 'vision_encoder_config': self.encoder.to_dict(),
        }


def vision_spec(config: PenguinVLConfig, *, merge: int, max_patches: int) -> VisionSpec:
    """What the core needs to know of a vision engine of this model."""
    encoder = config.encoder
    return VisionSpec(patch_px=encoder.patch_px, merge=merge, head_dim=encoder.head_dim, rope_theta=encoder.rope_theta,
                      width=config.decoder.width, max_patches=max_patches)


def language_spec(config: PenguinVLConfig, *, max_append: int, max_positions: int = 0) -> LanguageSpec:
    """What the core needs to know of a language engine of this model; ``max_positions`` 0: as the model was trained."""
    decoder = config.decoder
    return LanguageSpec(
        layers=decoder.layers, kv_heads=decoder.kv_heads, head_dim=decoder.head_dim, width=decoder.width,
        vocabulary=decoder.vocabulary, rope_theta=decoder.rope_theta, max_positions=max_positions or decoder.max_positions,
        max_append=max_append, image_token_id=config.image_token_id)


def config_from_folder(folder: str | Path) -> PenguinVLConfig:
    """Read ``folder``/config.json; an encoder named by path or hub id is looked for in and beside the folder."""
    folder = Path(folder)
    return config_from_dict(_read_json(folder / 'config.json'), folder=folder)


def encoder_config_from_folder(folder: str | Path) -> EncoderConfig:
    """The encoder's shape, from a folder like Penguin-Encoder or from one that holds a whole Penguin-VL."""
    folder = Path(folder)
    fields = _read_json(folder / 'config.json')
    if fields.get('model_type') == 'penguinvl_vision_encoder':
        return encoder_config_from_dict(fields, where=str(folder / 'config.json'))
    return config_from_dict(fields, folder=folder).encoder


def config_from_dict(fields: Mapping[str, Any], *, folder: Path | None = None) -> PenguinVLConfig:
    """The configuration in a config.json's content; ``folder`` is where an encoder named by path is looked for."""
    where = str(folder / 'config.json') if folder else 'config.json'
    if fields.get('model_type') == 'penguinvl_vision_encoder':
        raise CheckpointError(f'{where} describes a vision encoder alone; a whole Penguin-VL was needed. '
                              'Name a folder like tencent/Penguin-VL-2B.')
    _refuse_other_models(fields, where)
    return PenguinVLConfig(
        encoder=_find_encoder(fields, folder, where),
        decoder=DecoderConfig(**_from_published(fields, _DECODER_FIELDS, where)),
        image_token_id=_number(fields, 'image_token_index', int, where),
        tied_embeddings=bool(fields.get('tie_word_embeddings', False)),
        projector_type=str(fields.get('vision_projector_type', 'mlp2x_gelu')))


def encoder_config_from_dict(fields: Mapping[str, Any], *, where: str = 'vision_encoder_config') -> EncoderConfig:
    """The encoder configuration in its own config.json or in a ``vision_encoder_config`` block."""
    _refuse_other_models(fields, where)
    return EncoderConfig(**_from_published(fields, _ENCODER_FIELDS, where))


def _find_encoder(fields: Mapping[str, Any], folder: Path | None, where: str) -> EncoderConfig:
    """The encoder, given inline or named by ``vision_encoder`` (older exports: ``mm_vision_encoder``)."""
    inline = fields.get('vision_encoder_config')
    if isinstance(inline, Mapping):
        return encoder_config_from_dict(inline, where=f'vision_encoder_config of {where}')
    named = fields.get('vision_encoder') or fields.get('mm_vision_encoder')
    if not isinstance(named, str):
        raise CheckpointError(f'{where} names no vision encoder. It needs a vision_encoder_config block, or '
                              'vision_encoder with the path of an encoder folder.')
    last = Path(named).name
    # A path on the publisher's machine means nothing here, but its last part often lies in or beside the checkpoint.
    places = [folder / named, folder / last, folder.parent / last] if folder else [Path(named)]
    for place in places:
        if (place / 'config.json').is_file() and place.resolve() != (folder and folder.resolve()):
            return encoder_config_from_dict(_read_json(place / 'config.json'), where=str(place / 'config.json'))
    if last.lower() == 'penguin-encoder':
        return PENGUIN_ENCODER
    raise CheckpointError(
        f'{where} names the vision encoder {named!r}, of which no config.json is here (looked in '
        f'{", ".join(str(place) for place in places)}). Put the encoder folder beside the checkpoint.')


def _refuse_other_models(fields: Mapping[str, Any], where: str) -> None:
    for name, needed in _FIXED_FIELDS.items():
        found = fields.get(name, needed)
        if found != needed and not (name == 'rope_scaling' and _is_plain_rope(found)):
            raise CheckpointError(f'{where} has {name} = {json.dumps(found)}; only {json.dumps(needed)} is supported. '
                                  'Use a checkpoint of the published Penguin-VL family.')


def _is_plain_rope(scaling: Any) -> bool:
    return isinstance(scaling, Mapping) and scaling.get('rope_type', scaling.get('type')) == 'default'


def _projector_depth(projector_type: str) -> int:
    match = re.fullmatch(r'mlp([1-9])x_gelu', projector_type)
    if not match:
        raise CheckpointError(f'vision_projector_type is {projector_type!r}; mlp1x_gelu to mlp9x_gelu are supported. '
                              'Use a checkpoint of the published Penguin-VL family (mlp2x_gelu).')
    return int(match[1])


def _from_published(fields: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    rope = fields.get('rope_parameters')  # newer exports keep rope_theta in here
    fields = {**(rope if isinstance(rope, Mapping) else {}), **fields}
    return {ours: _number(fields, published, float if ours in _REAL_FIELDS else int, where)
            for ours, published in names.items()}


def _to_published(config: BlockConfig, names: Mapping[str, str]) -> dict[str, Any]:
    return {published: getattr(config, ours) for ours, published in names.items()}


def _number(fields: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) \
            or kind(value) != value:
        found = 'lacks' if name not in fields else f'has {json.dumps(value)} for'
        raise CheckpointError(f'{where} {found} {name}, which must be {"a whole" if kind is int else "a"} number. '
                              'Take config.json from the same place as the weights.')
    return kind(value)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise CheckpointError(f'{path} does not exist. A checkpoint folder holds config.json and *.safetensors; '
                              'check the path or download the folder again.') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}). Download it again.') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds {type(content).__name__}, not a JSON object. Download it again.')
    return content


PENGUIN_ENCODER = EncoderConfig(width=1024, layers=28, heads=16, kv_heads=8, head_dim=128, mlp_width=3072,
                                norm_eps=1e-6, rope_theta=1e6)
PENGUIN_VL_2B = PenguinVLConfig(
    encoder=PENGUIN_ENCODER, image_token_id=151669, tied_embeddings=True,
    decoder=DecoderConfig(width=2048, layers=28, heads=16, kv_heads=8, head_dim=128, mlp_width=6144,
                          norm_eps=1e-6, rope_theta=1e6, vocabulary=151936))
PENGUIN_VL_8B = PenguinVLConfig(
    encoder=PENGUIN_ENCODER, image_token_id=151669, tied_embeddings=False,
    decoder=DecoderConfig(width=4096, layers=36, heads=32, kv_heads=8, head_dim=128, mlp_width=12288,
                          norm_eps=1e-6, rope_theta=1e6, vocabulary=151936))
