"""Our steps and those of transformers are the same model's, so what is compared is only time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='needs PyTorch: pip install torch')
pytest.importorskip('transformers', reason='needs transformers: pip install transformers')

from penguin_ros.backends.roofline import Scene  # noqa: E402
from penguin_ros.bench import report  # noqa: E402
from penguin_ros.bench.steps import measure_steps  # noqa: E402
from penguin_ros.cli.main import main  # noqa: E402
from penguin_ros.model.config import DecoderConfig, EncoderConfig, PenguinVLConfig  # noqa: E402
from penguin_ros.model.definition import PenguinVL, initialise  # noqa: E402
from penguin_ros.model.precision import fast_type  # noqa: E402
from tests.core.numpy_engine import byte_words  # noqa: E402

SHAPE = PenguinVLConfig(
    encoder=EncoderConfig(width=32, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=48, norm_eps=1e-6, rope_theta=1e4),
    decoder=DecoderConfig(width=48, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=64, norm_eps=1e-6, rope_theta=1e4,
                          vocabulary=300, max_positions=4096),
    image_token_id=299, tied_embeddings=True)
SCENE = Scene(frame_tokens=16, kept_tokens=48, prompt_rows=5, caption_tokens=24)


@pytest.mark.parametrize('tied', [True, False])
def test_both_write_the_same_text_and_every_step_is_timed(tied: bool) -> None:
    model = PenguinVL(replace(SHAPE, tied_embeddings=tied)).eval()
    initialise(model, seed=0)
    told: list[str] = []
    found = measure_steps(model, byte_words(), repeats=3, scene=SCENE, progress=lambda what, done, total: told.append(what))
    assert found['logits_difference'] < 1e-5
    assert found['same_tokens'] == 24
    assert found['undrafted_passes'] == 25
    assert found['drafted_passes'] < 12, 'nine drafted tokens in ten are right'
    assert [one['name'].split(':')[0] for one in found['steps'][:3]] == [
        'encode a frame', 'prefill what is new', 'prefill the whole window']
    assert len(found['steps']) == 8
    assert all(one['ours_ms'] > 0 and one['plain_ms'] > 0 for one in found['steps'][:7])
    assert 'steps: plain tick' in told
    assert found['device'].startswith('CPU')
    assert not found['graphs']


def test_the_report_names_hardware_precision_and_counts_and_is_no_orin(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command itself, with a tiny model in the place of the 2B."""
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')
    pytest.importorskip('matplotlib', reason='needs matplotlib: pip install matplotlib')
    vocabulary = 4000       # the words are those of the shipped model
    monkeypatch.setattr('penguin_ros.bench.real_size.PENGUIN_VL_2B', replace(
        SHAPE, decoder=replace(SHAPE.decoder, vocabulary=vocabulary), image_token_id=vocabulary - 1))
    assert main(['bench', '--real-size', '--repeats', '1', '--new-tokens', '4', '--out', str(tmp_path)]) == 0
    text = (tmp_path / 'benchmarks.md').read_text()
    section = text.split('## Real size, beside plain transformers')[1].split('## Plots')[0]
    dtype = 'bfloat16' if fast_type(torch.device('cpu')) == torch.bfloat16 else 'float32'
    for words in ('CPU, ', dtype, 'transformers', '256 visual tokens, 1024 patches', '2 of 28 decoder layers',
                  'These are not figures of an Orin', 'those need CUDA', 'behind 1112 rows'):
        assert words in section
    ladder = text.split('## Real size')[1]
    assert '| (e) ours |' in ladder
    assert f', {dtype}, ' in ladder
    figures = json.loads((tmp_path / 'benchmarks' / 'result.json').read_text())
    assert len(figures['steps']['steps']) == 8
    assert (tmp_path / 'benchmarks' / 'real_size.png').stat().st_size > 5000
    on_gpu = {**figures['steps'], 'is_gpu': True, 'graphs': True, 'device': 'NVIDIA Something'}
    assert f'NVIDIA Something; {dtype}' in report.markdown({**figures, 'steps': on_gpu})
    capsys.readouterr()


@pytest.mark.parametrize('arguments, text', [
    (['--part', 'steps'], 'without --real-size there are recording'),
    (['--real-size', '--part', 'drive'], 'with --real-size there are steps, ladder')])
def test_a_part_that_does_not_go_with_the_size_is_refused(
        arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['bench', *arguments]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_on_a_gpu_its_name_and_the_graphs_are_told() -> None:
    model = PenguinVL(SHAPE).eval()
    initialise(model, seed=0)
    found = measure_steps(model.cuda(), byte_words(), repeats=3, scene=SCENE, progress=lambda *_: None)
    assert found['device'] == torch.cuda.get_device_name()
    assert found['graphs']
    assert found['same_tokens'] == 24
