"""Golden cases of the reconstruction losses. Needs torch. Fields: tests/data/golden."""

from __future__ import annotations

from pathlib import Path

from penguin_ros.verify.findings import Findings, Record, read_arrays

_TOLERANCE = 1e-4
_FIELDS = {'id', 'what', 'file', 'epoch', 'num_items_in_batch', 'lm_loss', 'teacher_loss', 'relation_loss', 'total_loss',
           'num_tokens'}


def check_losses(record: Record, root: Path, findings: Findings) -> None:
    """The losses of one batch of tokens."""
    import torch

    from penguin_ros.training.losses import adapted, amplitude_loss, direction_loss, relation_loss, total_loss

    findings.known_fields(record, _FIELDS)
    arrays = {name: torch.tensor(array) for name, array in read_arrays(root / record['file']).items()}
    student = adapted(arrays['student_features'], arrays['distill_weight'], arrays['distill_bias'])
    teacher = arrays['teacher_features']
    findings.equal('num_tokens', record['num_tokens'], len(teacher))
    findings.close('teacher_loss', record['teacher_loss'],
                   float(direction_loss(student, teacher) + amplitude_loss(student, teacher)), _TOLERANCE)
    findings.close('relation_loss', record['relation_loss'], float(relation_loss(student, teacher)), _TOLERANCE)
    label_tokens = 1 if record['num_items_in_batch'] is None else record['num_items_in_batch']
    findings.close('total_loss', record['total_loss'], float(total_loss(
        torch.tensor(record['lm_loss']), student, teacher, epoch=record['epoch'], label_tokens=label_tokens)), _TOLERANCE)
