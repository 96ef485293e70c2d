"""`penguin verify`: every golden case passes, and any changed number makes its case fail and be named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from penguin_ros.cli import verify as command
from penguin_ros.cli.main import main
from penguin_ros.core.errors import ConfigError
from penguin_ros.verify import known
from penguin_ros.verify.findings import CaseResult
from penguin_ros.verify.folder import UnreadableFolderError, verify_folder

pytest.importorskip('torch', reason='verify needs torch: pip install penguin_ros[export]')

GOLDEN = Path(__file__).parents[1] / 'data/golden'
ONE_CASE = {  # of each kind, one whose fields and arrays are all in use
    'preprocess': 10, 'keyframes': 2, 'tra': 69, 'prompt': 6, 'losses': 1, 'model_A': 2, 'model_B': 0,
}
# What a case's results do not depend on: words about it, how its input was drawn, limits and sizes that rounding absorbs.
UNSEEN = {
    'preprocess': {'seed', 'kind', 'width', 'min_tokens', 'max_tokens'}, 'keyframes': {'name', 'frames'},
    'tra': {'note', 'height', 'width', 'min_tokens', 'max_tokens'}, 'prompt': {'name'}, 'losses': {'what'},
    'model_A': {'what'}, 'model_B': {'what'},
}


def verified(root: Path, only: str = '') -> list[CaseResult]:
    return list(verify_folder(root, command._torch_runner(), only=only))


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """Copies one kind of cases, so that it can be changed."""
    def copy(kind: str) -> Path:
        if not (tmp_path / kind).exists():
            shutil.copytree(GOLDEN / kind, tmp_path / kind)
        return tmp_path
    return copy


def changed_values(value: Any) -> Iterator[Any]:
    """The value with one number, truth or text in it changed; of a list or mapping, each member in turn (the first few)."""
    if isinstance(value, dict):
        for name in list(value)[:4]:
            for changed in changed_values(value[name]):
                yield {**value, name: changed}
    elif isinstance(value, list) and value:
        for index in {0, len(value) - 1}:
            for changed in changed_values(value[index]):
                yield [*value[:index], changed, *value[index + 1:]]
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + 1
    elif isinstance(value, str):
        yield ('1' if value[:1] != '1' else '2') + value[1:]
    else:
        yield 1


def changed_array(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed.reshape(-1)[changed.size // 2] += 1
    return changed


def case_name(root: Path, kind: str) -> str:
    record = json.loads((root / kind / 'cases.json').read_text())[ONE_CASE[kind]]
    return f'{kind}/{Path(record["file"]).stem if "file" in record else ONE_CASE[kind]}'


def unnoticed(root: Path, kind: str) -> set[str]:
    """The fields and arrays of one case in which a changed number leaves the case passing."""
    name = case_name(root, kind)
    cases = root / kind / 'cases.json'
    original = cases.read_text()
    passing = set()
    for field, value in json.loads(original)[ONE_CASE[kind]].items():
        for changed in changed_values(value):
            records = json.loads(original)
            records[ONE_CASE[kind]][field] = changed
            cases.write_text(json.dumps(records))
            # A case whose file is another one has another name; then any failure of its kind counts.
            if not any(result.faults for result in verified(root, kind if field == 'file' else name)):
                passing.add(field)
    cases.write_text(original)
    record = json.loads(original)[ONE_CASE[kind]]
    path = root / kind / Path(record['file']).name if 'file' in record else None
    arrays = dict(np.load(path)) if path else {}
    for array in arrays:
        np.savez(path, **{**arrays, array: changed_array(arrays[array])})
        if not any(result.faults for result in verified(root, name)):
            passing.add(array)
    return passing


def test_every_case_passes_on_pytorch_and_every_file_is_the_published_one(capsys: pytest.CaptureFixture) -> None:
    assert main(['verify', str(GOLDEN), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report['passed'], report['failed'], report['skipped']) == (138, 0, 0)
    assert max(case['largest_error'] for case in report['cases']) < 1e-4
    for folder in GOLDEN.glob('*/cases.json'):
        found = known.digests(folder.parent, json.loads(folder.read_text()))
        assert found == known.PUBLISHED[folder.parent.name].split()


def test_every_model_case_passes_on_onnx_runtime(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install penguin_ros[onnx]')
    pytest.importorskip('onnx', reason='needs onnx: pip install penguin_ros[export]')
    assert main(['verify', str(GOLDEN), '--backend', 'onnx', '--only', 'model_']) == 0
    out = capsys.readouterr().out
    assert out.count('pass  ') == 8
    assert '8 of 8 cases pass, 0 fail' in out


@pytest.mark.parametrize('kind', ONE_CASE)
def test_one_changed_number_fails_and_names_its_case(copied: Callable[[str], Path], kind: str) -> None:
    assert unnoticed(copied(kind), kind) == set()


@pytest.mark.parametrize('kind', ONE_CASE)
def test_of_vectors_never_published_every_number_that_matters_is_noticed(
        copied: Callable[[str], Path], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, 'PUBLISHED', {})
    root = copied(kind)
    assert all(result.passed for result in verified(root, case_name(root, kind)))
    assert unnoticed(root, kind) <= UNSEEN[kind]


@pytest.mark.parametrize('model, every', [('model_A', 5), ('model_B', 1)])
def test_a_changed_number_in_a_weight_fails_the_models_cases(copied: Callable[[str], Path], model: str, every: int,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, 'PUBLISHED', {})
    root = copied(model)
    path, name = root / model / 'model.safetensors', case_name(root, model)
    weights = load_file(path)
    read = np.load(root / model / 'case_0.npz')['input_ids'].reshape(-1)[0]
    for tensor in list(weights)[::every]:
        values = weights[tensor]
        changed = values.copy()
        changed[(read if 'embed_tokens' in tensor else 0, *[0] * (values.ndim - 1))] += 0.5
        save_file({**weights, tensor: changed}, path)
        assert not verified(root, name)[0].passed, tensor


def test_a_changed_number_that_no_prompt_reads_fails_too(copied: Callable[[str], Path]) -> None:
    root = copied('model_B')
    path = root / 'model_B/model.safetensors'
    weights = load_file(path)
    weights['model.embed_tokens.weight'][250, 3] += 0.001
    save_file(weights, path)
    results = verified(root)
    assert [result.faults for result in results] == [('model.safetensors is not the published one',)] * 3


def test_a_changed_number_in_any_field_of_a_configuration_fails(copied: Callable[[str], Path]) -> None:
    root = copied('model_A')
    path = root / 'model_A/config.json'
    config = json.loads(path.read_text())
    changes = [{**config, name: changed} for name, value in config.items() for changed in changed_values(value)]
    changes += [{**config, 'vision_encoder_config': {**config['vision_encoder_config'], name: changed}}
                for name, value in config['vision_encoder_config'].items() for changed in changed_values(value)]
    for change in changes:
        path.write_text(json.dumps(change))
        assert verified(root, 'model_A/case_4')[0].faults, change


def test_a_flipped_byte_fails_its_case_alone(copied: Callable[[str], Path], capsys: pytest.CaptureFixture) -> None:
    root = copied('losses')
    path = root / 'losses/case_2.npz'
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert main(['verify', str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines[:4]] == ['pass', 'pass', 'FAIL', 'pass']
    assert 'losses/case_2 merge 2: ' in lines[2]


def test_a_cut_off_cases_file_fails_and_other_folders_are_still_verified(copied: Callable[[str], Path]) -> None:
    root = copied('prompt')
    copied('losses')
    path = root / 'prompt/cases.json'
    path.write_text(path.read_text()[:300])
    results = verified(root)
    assert [result.name for result in results if not result.passed] == ['prompt/cases.json']
    assert sum(result.passed for result in results) == 4


def test_a_folder_that_is_none_gives_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['verify', str(tmp_path)]) == 2
    assert 'laid out like tests/data/golden' in capsys.readouterr().err
    assert main(['verify', str(tmp_path / 'missing')]) == 2
    with pytest.raises(UnreadableFolderError):
        verified(tmp_path)


def test_a_backend_that_is_not_installed_is_named_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match=r'needs tensorrt.*choose another backend'):
        command._runner('tensorrt', [], Path())
    with pytest.raises(ConfigError, match='Leave --engine out'):
        command._runner('torch', [Path('x')], Path())


def test_a_built_engine_is_verified_by_what_it_gives(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install penguin_ros[onnx]')
    pytest.importorskip('onnx', reason='needs onnx: pip install penguin_ros[export]')
    recipe = tmp_path / 'a.yaml'
    recipe.write_text(f'checkpoint: {GOLDEN / "model_A"}\nmerge: 2\n')
    assert main(['build', str(recipe)]) == 0
    only_merge_2 = ['verify', str(GOLDEN), '--backend', 'onnx', '--engine', str(tmp_path / 'a'), '--only']
    assert main([*only_merge_2, 'model_A/case_3']) == 0
    capsys.readouterr()
    assert main([*only_merge_2, 'model_B/case_0']) == 1
    assert 'no engine named with --engine was built for model_B' in capsys.readouterr().out
