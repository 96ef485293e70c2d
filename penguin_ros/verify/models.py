"""Golden cases of whole models: encoder features, logits and greedy tokens. Knows no backend; the caller runs the case."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from penguin_ros.core.errors import EngineError
from penguin_ros.verify.findings import Findings, Record, read_arrays

RunCase = Callable[[Path, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Checkpoint folder and a case's inputs -> what a backend computes, by golden name."""

TOLERANCE = 1e-4                # of the largest magnitude of an array
_INPUTS = {'input_ids', 'pixel_values', 'grid_sizes', 'merge_sizes'}
_COMPUTED = re.compile(r'encoder_embed|encoder_hidden_\d+|encoder_final|encoder_merged|projector|inputs_embeds|logits'
                       r'|greedy_tokens|greedy_logits')
_SMALLEST_MARGIN = 0.02         # between the two best logits of every greedy step, as the golden vectors promise
_OUTPUTS = {'projector', 'logits', 'greedy_tokens', 'greedy_logits'}     # what any engine gives
_FIELDS = {'file', 'what', 'seq_len', 'arrays'}


def check_model(record: Record, folder: Path, run_case: RunCase, findings: Findings, *, tolerance: float = TOLERANCE,
                in_between: bool = True) -> None:
    """One prompt through one model, with everything ``in_between`` that the case holds; else with what the backend gives."""
    findings.known_fields(record, _FIELDS)
    arrays = read_arrays(folder / record['file'])
    findings.equal('arrays', record['arrays'], {name: list(array.shape) for name, array in arrays.items()})
    findings.equal('seq_len', record['seq_len'], int(arrays['input_ids'].size))
    expected = {name: array for name, array in arrays.items() if _COMPUTED.fullmatch(name)}
    for name in sorted(arrays.keys() - expected.keys() - _INPUTS - {'greedy_min_margin'}):
        findings.faults.append(f'{name} is not an array of these cases')

    best = np.sort(arrays['greedy_logits'].astype(np.float64), axis=1)[:, -2:]
    findings.close('greedy_min_margin', arrays['greedy_min_margin'], (best[:, 1] - best[:, 0]).min(), tolerance, relative=True)
    if not arrays['greedy_min_margin'] > _SMALLEST_MARGIN:
        findings.faults.append(f'greedy_min_margin is {arrays["greedy_min_margin"]}; it must be above {_SMALLEST_MARGIN}')

    made = run_case(folder, {name: arrays[name] for name in arrays.keys() & (_INPUTS | {'greedy_tokens'})})
    missing = {name for name in expected.keys() - made.keys() if in_between or name in _OUTPUTS}
    if missing:
        raise EngineError(f'the backend does not give {", ".join(sorted(missing))}. Name an engine with --engine, of which '
                          'only the outputs are compared.')
    for name in sorted(expected.keys() & made.keys()):
        if name == 'greedy_tokens':
            findings.equal(name, expected[name].tolist(), made[name].tolist())
        else:
            findings.close(name, expected[name], made[name], tolerance, relative=True)
