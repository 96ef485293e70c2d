"""The modules compute the published model in every form that training, engines and verification use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from write_random_checkpoint import TINY

torch = pytest.importorskip('torch', reason='needs PyTorch: pip install torch')

from penguin_ros.core import rotary  # noqa: E402
from penguin_ros.core.errors import EngineError  # noqa: E402
from penguin_ros.model.checkpoint import load_model  # noqa: E402
from penguin_ros.model.definition import PenguinVL, decoder_tables, initialise, merge_windows  # noqa: E402

GOLDEN = Path(__file__).parent.parent / 'data' / 'golden'
CASES = [(model, case['file']) for model in ('model_A', 'model_B')
         for case in json.loads((GOLDEN / model / 'cases.json').read_text())]


def tiny_model(seed: int = 0, **options: Any) -> PenguinVL:
    model = PenguinVL(TINY, **options)
    initialise(model, seed=seed)
    return model


def close(found: torch.Tensor, needed: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return bool((found - needed).abs().max() <= tolerance * needed.abs().max())


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('model, file', CASES)
def test_both_kinds_of_attention_give_the_golden_logits(model: str, file: str, fused: bool) -> None:
    case = {name: torch.tensor(array) for name, array in np.load(GOLDEN / model / file).items()}
    names = ('input_ids', 'pixel_values', 'grid_sizes', 'merge_sizes')
    with torch.no_grad():
        logits = load_model(GOLDEN / model, fused_attention=fused)(*(case.get(name) for name in names))
    assert close(logits[0], case['logits'], 1e-4)


def test_both_kinds_of_attention_give_the_same_gradients() -> None:
    gradients = []
    for fused in (True, False, None):
        model = tiny_model(fused_attention=fused)
        visual = model.encode_frames(torch.rand(2, 16, 588, generator=torch.Generator().manual_seed(0)), (4, 4), 2)
        mask = torch.ones(2, 1, 8, 8, dtype=torch.bool).tril()
        mask[1, :, 6:, 2:5] = False
        embeddings = torch.cat([visual, model.decoder.embed_tokens(torch.arange(8).view(2, 4))], dim=1)
        model.decoder.logits(model.decoder(embeddings, torch.arange(8), mask)).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert close(gradients[1][name], gradient, 1e-4), name
        assert torch.equal(gradients[1][name], gradients[2][name])  # a CPU that trains chooses the plain products


def test_tables_equal_the_cores_to_the_last_bit_of_the_angle() -> None:
    positions = np.array([0, 1, 2, 77, 1000, 40959])
    for head_dim, theta in ((128, 1e6), (32, 1e4), (24, 100.0)):
        found = decoder_tables(torch.tensor(positions), head_dim, theta, torch.float32)
        for made, needed in zip(found, rotary.decoder_tables(positions, head_dim=head_dim, theta=theta)):
            assert made.shape == needed.shape
            np.testing.assert_allclose(made.numpy(), needed, rtol=0, atol=3e-7)  # the angles are equal, cosines round


def test_positions_can_differ_within_a_batch() -> None:
    model = tiny_model()
    embeddings = model.decoder.embed_tokens(torch.arange(10).view(2, 5))
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 2, 3]])
    together = model.decoder(embeddings, positions)
    for row in (0, 1):
        assert close(together[row:row + 1], model.decoder(embeddings[row:row + 1], positions[row]))


@pytest.mark.parametrize('fused', [True, False])
def test_bool_and_additive_masks_and_none_mean_the_same(fused: bool) -> None:
    model = tiny_model(fused_attention=fused)
    embeddings, positions = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    allowed = torch.ones(1, 1, 7, 7, dtype=torch.bool).tril()
    needed = model.decoder(embeddings, positions)
    assert close(model.decoder(embeddings, positions, allowed), needed)
    assert close(model.decoder(embeddings, positions, torch.where(allowed, 0.0, -1e4)), needed)


@pytest.mark.parametrize('fused', [True, False])
def test_rows_appended_to_a_cache_equal_one_pass(fused: bool) -> None:
    model = tiny_model(fused_attention=fused)
    with torch.no_grad():
        embeddings = model.decoder.embed_tokens(torch.arange(9)[None])
        needed = model.decoder(embeddings, torch.arange(9))
        cache = [(torch.zeros(12, 2, 16), torch.zeros(12, 2, 16)) for _ in range(2)]
        parts = [model.decoder(embeddings[:, begin:end], torch.arange(begin, end), cache=cache, start=begin)
                 for begin, end in ((0, 4), (4, 8), (8, 9))]
    assert close(torch.cat(parts, dim=1), needed)


@pytest.mark.parametrize('merge', [1, 2, 3, 4])
def test_windows_are_merged_as_bilinear_resizing_does(merge: int) -> None:
    rows, columns = 2 * merge, 3 * merge
    plane = torch.randn(1, 5, rows, columns, generator=torch.Generator().manual_seed(merge))
    needed = torch.nn.functional.interpolate(plane, size=(2, 3), mode='bilinear', align_corners=False)
    y, x = rotary.patch_positions((rows, columns), merge)
    in_window_order = plane[0, :, y, x].T[None]
    assert close(merge_windows(in_window_order, merge)[0].T.reshape(1, 5, 2, 3), needed)


def test_a_batch_of_frames_equals_the_packed_layout() -> None:
    model = tiny_model()
    patches = torch.rand(3, 24, 588, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        batched = model.encode_frames(patches, (4, 6), 2)
        packed = model.encode_packed(patches.flatten(0, 1), torch.tensor([[1, 4, 6], [2, 4, 6]]), torch.tensor([2, 2]))
    assert batched.shape == (3, 6, 48)
    assert close(packed, batched.flatten(0, 1))


def test_patches_that_do_not_fit_their_grids_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(EngineError, match='do not fit a grid of 4 x 5 with merge 2'):
        model.encoder(torch.zeros(1, 20, 588), (4, 5), 2)
    with pytest.raises(EngineError, match='1 grids need 16 patches and 1 merge sizes; 15 and 1 were given'):
        model.encode_packed(torch.zeros(15, 588), torch.tensor([[1, 4, 4]]), torch.tensor([2]))


def test_placeholders_must_be_as_many_as_visual_tokens() -> None:
    model = tiny_model()
    ids = torch.tensor([[1, 127, 127, 2]])
    copy = ids.clone()
    visual = torch.randn(2, 48)
    embeddings = model.embed_prompt(ids, visual)
    assert torch.equal(embeddings[0, 1:3], visual)
    assert torch.equal(embeddings[0, 3], model.decoder.embed_tokens.weight[2])
    assert torch.equal(ids, copy)  # the reference writes zeros into it
    for tokens in (None, visual[:1], torch.randn(3, 48)):
        with pytest.raises(EngineError, match=f'2 placeholders .* {0 if tokens is None else len(tokens)} visual tokens'):
            model.embed_prompt(ids, tokens)


def test_random_weights_have_the_recipes_spread() -> None:
    model = PenguinVL(replace(TINY, encoder=replace(TINY.encoder, width=256, mlp_width=512)))
    initialise(model, seed=5)
    weight = model.encoder.layers[0].mlp.up_proj.weight
    assert weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert weight.abs().max().item() <= 2 * 256**-0.5 / 0.8796
    assert model.encoder.embeddings['patch_embedding'].weight.std().item() == pytest.approx(588**-0.5, rel=0.02)
    assert model.decoder.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(bool((norm == 1).all()) for name, norm in model.named_parameters() if 'norm' in name)
    assert not model.encoder.embeddings['patch_embedding'].bias.any()
    again = PenguinVL(model.config)
    initialise(again, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_training_in_bfloat16_autocast_makes_the_loss_fall() -> None:
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    patches = torch.rand(4, 16, 588, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(20).view(4, 5)
    losses = []
    for _ in range(12):
        with torch.autocast('cpu', torch.bfloat16):
            embeddings = torch.cat([model.encode_frames(patches, (4, 4), 2), model.decoder.embed_tokens(ids)], dim=1)
            logits = model.decoder.logits(model.decoder(embeddings, torch.arange(9)))[:, 3:-1]
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_verifying_before_training_leaves_nothing_that_breaks_gradients() -> None:
    model = tiny_model()
    patches = torch.rand(1, 64, 588)
    with torch.inference_mode():
        model.encode_frames(patches, (8, 8), 2)  # fills the cache of rotary tables
    model.encode_frames(patches, (8, 8), 2).sum().backward()
