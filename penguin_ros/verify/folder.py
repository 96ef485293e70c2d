"""A folder of golden vectors, case by case. Knows where cases lie, not what they mean (the modules beside this one)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from penguin_ros.core.errors import PenguinError
from penguin_ros.verify import known
from penguin_ros.verify.clips import check_budget, check_keyframes
from penguin_ros.verify.findings import CaseResult, Findings, Record
from penguin_ros.verify.losses import check_losses
from penguin_ros.verify.models import TOLERANCE, RunCase, check_model
from penguin_ros.verify.pictures import check_picture
from penguin_ros.verify.words import check_prompt

_CHECKS: dict[str, Callable[[Record, Path, Findings], None]] = {
    'preprocess': check_picture, 'keyframes': check_keyframes, 'tra': check_budget, 'prompt': check_prompt,
    'losses': check_losses,
}
_ABOUT = ('what', 'name', 'note')       # fields that say in words what a case is


class UnreadableFolderError(PenguinError):
    """A folder is not one of golden vectors."""


def verify_folder(root: Path, run_case: RunCase, *, only: str = '', tolerance: float = TOLERANCE,
                  in_between: bool = True) -> Iterator[CaseResult]:
    """Every case of a folder laid out like tests/data/golden whose name contains ``only``, one after another.

    Whatever goes wrong in a case is that case's fault and ends nothing else. Raises UnreadableFolderError where there is no
    such folder, or no case in it.
    """
    folders = sorted(place for place in root.glob('*') if _is_golden(place))
    if not folders:
        raise UnreadableFolderError(
            f'{root} holds no golden vectors (folders model_*, {", ".join(_CHECKS)} with a cases.json). '
            'Name a folder laid out like tests/data/golden.')
    def check_model_case(record: Record, folder: Path, findings: Findings) -> None:
        check_model(record, folder, run_case, findings, tolerance=tolerance, in_between=in_between)

    for folder in folders:
        yield from _verify_kind(root, folder, check_model_case, only)


def _is_golden(folder: Path) -> bool:
    return folder.is_dir() and (folder.name.startswith('model_') or folder.name in _CHECKS)


def _verify_kind(root: Path, folder: Path, check_model_case: Callable[[Record, Path, Findings], None],
                 only: str) -> Iterator[CaseResult]:
    try:
        records = json.loads((folder / 'cases.json').read_text())
        names = [_case_name(folder, index, record) for index, record in enumerate(records)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        yield CaseResult(f'{folder.name}/cases.json', faults=(f'cannot be read: {error}',))
        return
    of_model = folder.name.startswith('model_')

    @cache
    def unpublished() -> dict[int, str]:
        """What differs from the published vectors: by index of its record, or below zero where all cases share it."""
        shared = 2 if of_model else 0
        return {index - shared: ('config.json', 'model.safetensors')[index] if index < shared else 'a number'
                for index in known.changed(folder.name, known.digests(folder, records))}

    def check(index: int, record: Record, findings: Findings) -> None:
        if of_model:
            check_model_case(record, folder, findings)
        else:
            findings.equal('id', record['id'], index)
            _CHECKS[folder.name](record, root, findings)

    for index, (name, record) in enumerate(zip(names, records)):
        if only not in name:
            continue
        if folder.name == 'losses' and importlib.util.find_spec('torch') is None:
            yield CaseResult(name, skipped='needs torch: pip install penguin_ros[train]')
            continue
        findings = Findings()
        try:
            check(index, record, findings)
        except Exception as error:  # a wrong number can break a computation in any way; it is the case that is wrong
            findings.faults.append(str(error) if isinstance(error, PenguinError) else f'cannot be computed: {error!r}')
        if not findings.faults:  # nothing computed shows a change; it may still be there
            findings.faults += [f'{what} is not the published one' for place, what in unpublished().items()
                                if place < 0 or place == index]
        yield CaseResult(name, findings.largest_error, tuple(findings.faults))


def _case_name(folder: Path, index: int, record: dict[str, Any]) -> str:
    """`model_A/case_0 one image, merge 1`: where it is and what it is."""
    place = Path(record['file']).stem if 'file' in record else str(index)
    about = next((str(record[name]) for name in _ABOUT if record.get(name)), '')
    if 'kind' in record:
        about = f'{record.get("width")}x{record.get("height")} {record["kind"]}'
    return f'{folder.name}/{place} {about}'.rstrip()
