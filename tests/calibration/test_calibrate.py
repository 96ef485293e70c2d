"""penguin calibrate, from frames to scales; what it notes is what happened, and engines are built from what it wrote."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='needs onnx: pip install onnx')
onnxruntime = pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install onnxruntime')

from penguin_ros.assemble import load_engines  # noqa: E402
from penguin_ros.backends.manifest import read_manifest  # noqa: E402
from penguin_ros.backends.recipe import read_recipe  # noqa: E402
from penguin_ros.calibration.frames import decoded_frames, read_frames, write_frames  # noqa: E402
from penguin_ros.calibration.observe import KEPT_ROWS, Observations, observed_graph  # noqa: E402
from penguin_ros.cli.main import main  # noqa: E402
from penguin_ros.core.config import PenguinConfig  # noqa: E402
from penguin_ros.core.decode import Limits, decode  # noqa: E402
from penguin_ros.core.errors import ConfigError  # noqa: E402
from penguin_ros.core.pixels import patches_for_grid  # noqa: E402
from penguin_ros.core.prompt import question_tail  # noqa: E402
from penguin_ros.core.rotary import encoder_tables  # noqa: E402
from penguin_ros.core.stream import Stream  # noqa: E402
from penguin_ros.model.calibration import read_calibration  # noqa: E402
from penguin_ros.model.config import DecoderConfig, EncoderConfig, PenguinVLConfig  # noqa: E402
from penguin_ros.model.export import ExportOptions, export_checkpoint  # noqa: E402
from penguin_ros.model.weights import WeightFiles, published_name, write_safetensors  # noqa: E402
from tests.core.numpy_engine import byte_words  # noqa: E402
from tests.model.write_random_checkpoint import write_random_checkpoint  # noqa: E402

ROOT = Path(__file__).parents[2]
NANO = ROOT / 'engines' / 'nano'
_block = {'layers': 1, 'heads': 4, 'kv_heads': 2, 'head_dim': 16, 'norm_eps': 1e-6, 'rope_theta': 1e4}
SMALL = PenguinVLConfig(
    encoder=EncoderConfig(width=64, mlp_width=96, **_block),
    decoder=DecoderConfig(width=64, mlp_width=128, vocabulary=300, max_positions=2048, **_block),
    image_token_id=256, tied_embeddings=True)
RECIPE = """checkpoint: model
output: engine
vision_weights: int8
language_weights: int4
calibration: calibration
max_patches: 64
max_append: 64
cache_rows: 512
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, a recipe for it, and a few pictures; the working directory."""
    monkeypatch.chdir(tmp_path)
    write_random_checkpoint(tmp_path / 'model', SMALL, dtype='F32')
    byte_words()._tokenizer.save(str(tmp_path / 'model' / 'tokenizer.json'))
    (tmp_path / 'pictures').mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        small = generator.integers(0, 255, (6, 8, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'pictures' / f'{number}.png'), cv2.resize(small, (160, 120)))
    (tmp_path / 'recipe.yaml').write_text(RECIPE)
    return tmp_path


def test_from_pictures_to_an_engine_whose_name_depends_on_the_calibration(
        site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['calibrate', 'recipe.yaml', '--frames', 'pictures']) == 0
    said = capsys.readouterr().out
    assert '6 frames chosen' in said
    assert re.search(r'vision: \d+ activations, those in float16 reach .*7 products int8, error', said)
    assert re.search(r'language: .*7 products int4, error', said)
    found = read_calibration('calibration', 'model')
    assert len(found.vision.roundings) == len(found.language.roundings) == 7
    assert main(['build', 'recipe.yaml']) == 0
    manifest = read_manifest(site / 'engine')
    assert manifest.options == {'vision_weights': 'int8', 'language_weights': 'int4', 'calibration': found.sha256}
    engines = load_engines(PenguinConfig(engine=str(site / 'engine')), logging.getLogger())
    assert engines.engine_id == manifest.engine_hash

    before = {file: file.read_bytes() for file in Path('calibration').rglob('*') if file.is_file()}
    assert main(['calibrate', 'recipe.yaml']) == 0       # the same frames again
    assert before == {file: file.read_bytes() for file in Path('calibration').rglob('*') if file.is_file()}

    (site / 'calibration' / 'prompts.jsonl').write_text('{"id": "caption", "text": "What is in {box}?"}\n')
    assert main(['calibrate', 'recipe.yaml']) == 0
    assert main(['build', 'recipe.yaml']) == 0
    assert read_manifest(site / 'engine').engine_hash != manifest.engine_hash


def test_without_frames_it_says_where_to_take_them(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['calibrate', 'recipe.yaml']) == 1
    assert re.search(r'no frames are named.*--frames.*calibration/README\.md', capsys.readouterr().err)
    assert main(['build', 'recipe.yaml']) == 1
    assert 'penguin calibrate' in capsys.readouterr().err


def test_a_prompt_that_is_not_there_is_named(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['calibrate', 'recipe.yaml', '--frames', 'pictures', '--count', '1']) == 0
    list_file = site / 'calibration' / 'frames.json'
    list_file.write_text(list_file.read_text().replace('"caption"', '"colour"'))
    assert main(['calibrate', 'recipe.yaml']) == 1
    assert 'are to be asked colour, which prompts.jsonl' in capsys.readouterr().err


def test_a_recipe_with_rounded_weights_must_name_a_calibration(site: Path) -> None:
    (site / 'recipe.yaml').write_text(RECIPE.replace('calibration: calibration\n', ''))
    with pytest.raises(ConfigError, match='no calibration is named'):
        read_recipe('recipe.yaml')


def test_a_checkpoint_folder_will_do_and_kinds_can_be_chosen(site: Path) -> None:
    assert main(['calibrate', 'model', '--frames', 'pictures', '--count', '2', '--vision', 'none', '--language', 'int8']) == 0
    found = read_calibration('calibration/model', 'model')
    assert (found.vision.kind, found.language.kind) == ('', 'int8')
    assert not found.vision.roundings
    assert all(rounding.input_scale is not None for rounding in found.language.roundings.values())
    assert main(['export', 'model', 'out', '--language-weights', 'int8', '--calibration', 'calibration/model']) == 0


def enlarge(model: Path, name: str, factor: float) -> None:
    """Multiply one weight of a checkpoint."""
    weights = WeightFiles(model)
    values = {published_name(one): weights.read(one) * np.float32(factor if one == name else 1) for one in weights.names()}
    write_safetensors(model / 'model.safetensors', {key: ('F32', value.shape) for key, value in values.items()},
                      lambda key: [values[key].tobytes()])


def test_an_activation_beyond_float16_fails_and_the_remedy_it_names_works(
        site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enlarge(site / 'model', 'decoder.layers.0.mlp.up_proj.weight', 1e6)
    assert main(['calibrate', 'recipe.yaml', '--frames', 'pictures']) == 1
    error = capsys.readouterr().err
    line = re.search(r'with this line in the recipe: (float32: \[.*\])\.', error)
    assert line, error
    assert 'decoder.layers.0.mlp.down_proj.weight' in line[1]
    assert 'decoder.layers.0.mlp.up_proj.weight' in line[1]
    (site / 'recipe.yaml').write_text(f'{RECIPE}precision: fp16\n')
    assert main(['build', 'recipe.yaml']) == 1          # the calibration is there, but promises no good
    assert 'go beyond 10000' in capsys.readouterr().err
    (site / 'recipe.yaml').write_text(f'{RECIPE}precision: fp16\n{line[1]}\n')
    assert main(['calibrate', 'recipe.yaml']) == 0
    assert main(['build', 'recipe.yaml']) == 0
    assert 'float32' in read_manifest(site / 'engine').options


def test_what_is_noted_is_what_the_graph_computes(site: Path) -> None:
    export = export_checkpoint('model', 'out', ExportOptions(merge=2, debug=True))
    observations = observed_graph(Path('out/vision.onnx'), Path('out/observed.onnx'))
    session = onnxruntime.InferenceSession('out/observed.onnx', providers=['CPUExecutionProvider'])
    encoder, generator = export.config.encoder, np.random.default_rng(0)
    cos, sin = encoder_tables((4, 6), merge=2, head_dim=encoder.head_dim, theta=encoder.rope_theta)
    largest = 0.0
    for _ in range(3):
        patches = generator.uniform(-1, 1, (24, encoder.patch_values)).astype(np.float32)
        names = [port.name for port in session.get_outputs()]
        made = dict(zip(names, session.run(names, {'patches': patches, 'cos': cos, 'sin': sin})))
        observations.note({name: made[name] for name in observations.names})
        largest = max(largest, float(np.abs(made['encoder_final']).max()))
    reaches = observations.reaches()
    assert reaches['encoder_final'].largest == pytest.approx(largest)
    given = observations.channels['encoder.layers.0.attention.norm.weighted']
    assert given.shape == (64,)
    assert given.max() == pytest.approx(reaches['encoder.layers.0.attention.norm.weighted'].largest)
    assert observations.rows_of('encoder.layers.0.attention.norm.weighted').shape == (15, 64)     # every fifth of 24, thrice


def test_what_a_float16_engine_holds_in_float16_is_known(site: Path) -> None:
    """The rule of the audit, held against the types in the float16 graph itself."""
    export_checkpoint('model', 'exact', ExportOptions())
    export_checkpoint('model', 'half', ExportOptions(precision='fp16'))
    for graph in ('vision', 'language'):
        observations = observed_graph(Path(f'exact/{graph}.onnx'), Path(f'exact/{graph}.observed.onnx'))
        model = onnx.shape_inference.infer_shapes(onnx.load(f'half/{graph}.onnx', load_external_data=False))
        weights = {tensor.name for tensor in model.graph.initializer}
        half = {value.name.removesuffix('.float16') for group in (model.graph.value_info, model.graph.input, model.graph.output)
                for value in group if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
        noted = {name for name, reach in observations.held.items() if reach.float16}
        before = -1
        while len(noted) > before:      # the same values go on under other names
            before = len(noted)
            for node in model.graph.node:
                names = {name.removesuffix('.float16') for name in (*node.input, *node.output)}
                if node.op_type in ('Reshape', 'Transpose', 'Slice', 'Concat', 'Identity') and names & noted:
                    noted |= names
        assert {name for name in half - weights if not name.startswith('past_')} <= noted


def test_not_a_number_counts_as_beyond_everything() -> None:
    observations = Observations({}, {}, [])
    for value in (1.0, float('nan'), 2.0):
        observations.note({'largest/x': np.array(value, np.float32)})
    assert observations.largest['x'] == float('inf')


def test_rows_are_kept_evenly_and_not_without_end() -> None:
    observations = Observations({}, {}, [])
    for number in range(2500):
        observations.note({'rows/x': np.array([[2 * number], [2 * number + 1]], np.float32)})
    rows = observations.rows_of('x')[:, 0]
    assert KEPT_ROWS // 2 <= len(rows) <= KEPT_ROWS
    assert set(np.diff(rows)) <= {8, 16}
    assert rows[0] < 100
    assert rows[-1] > 4900


def test_the_ranges_can_be_read_by_people(site: Path) -> None:
    assert main(['calibrate', 'model', '--frames', 'pictures', '--count', '1']) == 0
    ranges = json.loads(Path('calibration/model/ranges/language.json').read_text())
    assert ranges['float16_limit'] == 1e4
    assert ranges['activations']['decoder.layers.0.mlp.gated']['weights'] == ['decoder.layers.0.mlp.down_proj.weight']
    assert 0 < ranges['products']['decoder.layers.0.mlp.down_proj.weight']['error'] < 0.2


def test_the_shipped_model_rounded_says_nearly_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its weights are: words of its captions stay the likeliest ones; few box edges move, most by a hundredth."""
    pytest.importorskip('rosbags', reason='needs rosbags: pip install rosbags')
    monkeypatch.chdir(tmp_path)
    listed = read_frames(ROOT / 'calibration' / 'nano' / 'frames.json')
    few = replace(listed, frames=tuple(replace(frame, prompts=('caption',)) for frame in listed.frames[::5]))
    write_frames(tmp_path / 'calibration', few, {'caption': ''})
    recipe = RECIPE.replace('checkpoint: model', f'checkpoint: {NANO}').replace('patches: 64', 'patches: 512')
    (tmp_path / 'nano.yaml').write_text(recipe)
    assert main(['calibrate', 'nano.yaml']) == 0
    assert main(['build', 'nano.yaml']) == 0
    exact, rounded = (load_engines(PenguinConfig(engine=str(folder)), logging.getLogger())
                      for folder in (NANO, tmp_path / 'engine'))
    likeliest: list[np.ndarray] = []
    for frame, pixels in decoded_frames(few):
        prompt = exact.words.ids(question_tail(exact.dialect.caption_instruction))
        patches = patches_for_grid(pixels, frame.grid, merge=2)
        logits = []
        written: list[int] = []
        for engines in (exact, rounded):
            stream = Stream(engines.language, engines.words, 512)
            stream.append_frame(frame.stamp_ns, engines.vision.encode(patches, frame.grid), frame.grid, keyframe=True)
            if engines is exact:
                written = decode(stream, [prompt], end_id=engines.words.end_id, limits=Limits(64)).ids
            text = np.concatenate([prompt, np.array(written, np.int64)])
            logits.append(stream.append(stream.end, [text], range(len(prompt) - 1, len(text)))[1])
        likeliest.append(np.stack([one.argmax(axis=1) for one in logits]))
    before, after = np.concatenate(likeliest, axis=1)
    edges = np.array([exact.words.ids(f'<{value}>')[0] for value in range(5, 1000, 10)])     # in order of their values
    is_edge = np.isin(before, edges)
    assert (before == after).mean() > 0.9
    assert min(is_edge.sum(), (~is_edge).sum()) >= 100
    changed = before[~is_edge] != after[~is_edge]
    assert changed.mean() < 0.02, f'{changed.sum()} of {len(changed)} words'
    assert np.isin(after[is_edge], edges).all()
    moved = np.abs(np.searchsorted(edges, before[is_edge]) - np.searchsorted(edges, after[is_edge]))
    assert (moved <= 2).mean() > 0.93, moved.tolist()
    assert moved.mean() < 0.6, moved.tolist()
