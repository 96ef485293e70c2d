"""Checkpoints are loaded into PyTorch at the cost of their own size, and written as the published ones are."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from write_random_checkpoint import TINY, write_random_checkpoint

torch = pytest.importorskip('torch', reason='needs PyTorch: pip install torch')

from penguin_ros.core.errors import CheckpointError  # noqa: E402
from penguin_ros.model.checkpoint import load_encoder, load_model, save_checkpoint  # noqa: E402
from penguin_ros.model.config import DecoderConfig, EncoderConfig, PenguinVLConfig, config_from_folder  # noqa: E402
from penguin_ros.model.definition import PenguinVL, initialise  # noqa: E402
from penguin_ros.model.weights import expected_shapes, open_weights  # noqa: E402

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'
UNTIED = replace(TINY, tied_embeddings=False)

# As deep as the 2B and a tenth as wide; most of it in matrices, as there.
NARROW = PenguinVLConfig(
    encoder=EncoderConfig(width=128, layers=28, heads=4, kv_heads=2, head_dim=64, mlp_width=512, norm_eps=1e-6, rope_theta=1e6),
    decoder=DecoderConfig(width=256, layers=28, heads=4, kv_heads=2, head_dim=64, mlp_width=1024, norm_eps=1e-6,
                          rope_theta=1e6, vocabulary=100_000),
    image_token_id=99_999, tied_embeddings=True)


@pytest.mark.parametrize('config', [TINY, UNTIED, replace(TINY, projector_type='mlp3x_gelu')])
def test_the_modules_have_the_canonical_names_and_shapes(config: PenguinVLConfig) -> None:
    with torch.device('meta'):
        state = PenguinVL(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected_shapes(config)


@pytest.mark.parametrize('config, shards', [(TINY, 1), (TINY, 3), (UNTIED, 1), (UNTIED, 2)])
@pytest.mark.parametrize('dtype', ['F32', 'BF16', 'F16'])
def test_every_weight_of_every_layout_arrives(tmp_path: Path, config: PenguinVLConfig, shards: int, dtype: str) -> None:
    write_random_checkpoint(tmp_path, config, shards=shards, dtype=dtype)
    model = load_model(tmp_path)
    files = open_weights(tmp_path, config)
    assert not model.training
    assert {str(parameter.dtype) for parameter in model.parameters()} == {
        {'F32': 'torch.float32', 'BF16': 'torch.bfloat16', 'F16': 'torch.float16'}[dtype]}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.float(), torch.tensor(files.read(name)).float())
    assert (model.decoder.lm_head is None) == config.tied_embeddings


def test_a_type_asked_for_is_converted_to(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, dtype='BF16')
    stored, wide = load_model(tmp_path).state_dict(), load_model(tmp_path, dtype=torch.float32).state_dict()
    assert all(torch.equal(wide[name], tensor.float()) for name, tensor in stored.items())


def test_the_encoder_alone_loads_from_its_folder_and_from_a_whole_model(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / 'encoder', TINY.encoder)
    write_random_checkpoint(tmp_path / 'whole', TINY)
    whole = load_model(tmp_path / 'whole')
    patches = torch.rand(1, 16, 588, dtype=torch.bfloat16)
    assert torch.equal(load_encoder(tmp_path / 'whole')(patches, (4, 4), 2), whole.encoder(patches, (4, 4), 2))
    assert load_encoder(tmp_path / 'encoder')(patches, (4, 4), 2).shape == (1, 4, 32)


def test_what_is_saved_loads_back_equal_under_the_published_names(tmp_path: Path) -> None:
    for config in (TINY, UNTIED):
        model = PenguinVL(config)
        initialise(model, seed=1)
        save_checkpoint(tmp_path, model)
        assert config_from_folder(tmp_path) == config
        loaded = load_model(tmp_path).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    save_checkpoint(tmp_path, model, dtype=torch.bfloat16)
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_model(tmp_path).state_dict().values())


def test_saving_over_the_files_a_model_was_loaded_from_is_safe(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, dtype='F32')
    model = load_model(tmp_path)
    before = (tmp_path / 'model.safetensors').read_bytes()
    with torch.no_grad():
        model.decoder.norm.weight.add_(1)
    assert (tmp_path / 'model.safetensors').read_bytes() == before  # the mapping is private
    save_checkpoint(tmp_path, model)
    assert torch.equal(load_model(tmp_path).decoder.norm.weight, model.decoder.norm.weight)


def test_a_loaded_model_can_be_trained(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, dtype='F32')
    model = load_model(tmp_path)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert model.decoder.embed_tokens.weight.grad is not None


def test_a_wrong_tensor_is_named_when_loading(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY)
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'hidden_size': 40}))
    with pytest.raises(CheckpointError, match=r'model\.embed_tokens\.weight \[128, 48\] instead of \[128, 40\]'):
        load_model(tmp_path)


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs Linux, whose /proc tells the peak memory')
@pytest.mark.parametrize('shards', [1, 4])
def test_loading_and_using_all_weights_takes_less_than_1_3_times_the_file_size(tmp_path: Path, shards: int) -> None:
    write_random_checkpoint(tmp_path, NARROW, shards=shards)
    measured = measure_loading(tmp_path)
    assert measured['file_bytes'] > 100e6  # large beside what a Python process wobbles by
    assert 0.9 < measured['ratio'] < 1.3


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs Linux, whose /proc tells the peak memory')
def test_converting_while_loading_holds_one_copy_of_the_converted_weights(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, NARROW)
    assert 1.9 < measure_loading(tmp_path, 'float32')['ratio'] < 2.3  # twice the file: the same numbers, twice as wide


def measure_loading(folder: Path, *dtype: str) -> dict[str, float]:
    program = Path(__file__).parent / 'measure_loading.py'
    result = subprocess.run([sys.executable, str(program), str(folder), *dtype], cwd=Path(__file__).parents[2],
                            env={'PYTHONPATH': '.', 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)
