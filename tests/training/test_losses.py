"""The reconstruction losses against golden/losses, and what each of them does and does not see."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch: pip install penguin_ros[train]')

from penguin_ros.training.losses import (  # noqa: E402
    adapted,
    amplitude_loss,
    direction_loss,
    relation_loss,
    total_loss,
)

FOLDER = Path(__file__).parents[1] / 'data/golden'
CASES = json.loads((FOLDER / 'losses/cases.json').read_text())
TOKENS = torch.tensor(np.random.default_rng(0).normal(size=(6, 4)), dtype=torch.float32)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case['what'])
def test_losses_equal_the_golden_numbers(case: dict) -> None:
    arrays = {name: torch.tensor(array) for name, array in np.load(FOLDER / case['file']).items()}
    student = adapted(arrays['student_features'], arrays['distill_weight'], arrays['distill_bias'])
    teacher = arrays['teacher_features']
    teacher_loss = direction_loss(student, teacher) + amplitude_loss(student, teacher)
    assert float(teacher_loss) == pytest.approx(case['teacher_loss'], abs=1e-4)
    assert float(relation_loss(student, teacher)) == pytest.approx(case['relation_loss'], abs=1e-4)
    total = total_loss(torch.tensor(case['lm_loss']), student, teacher, epoch=case['epoch'],
                       label_tokens=case['num_items_in_batch'] or 1)
    assert float(total) == pytest.approx(case['total_loss'], abs=1e-4)


def test_each_loss_sees_its_own_kind_of_difference() -> None:
    larger, turned = 2 * TOKENS, TOKENS.flip(-1)
    assert float(direction_loss(larger, TOKENS)) == pytest.approx(0, abs=1e-6)
    assert float(amplitude_loss(larger, TOKENS)) > 0.1
    assert float(relation_loss(larger, TOKENS)) == pytest.approx(0, abs=1e-6)
    assert float(direction_loss(turned, TOKENS)) > 0.1
    assert float(relation_loss(turned, TOKENS)) == pytest.approx(0, abs=1e-6)


def test_the_teacher_gets_no_gradient_and_the_weight_ends_at_zero() -> None:
    student, teacher = TOKENS.clone().requires_grad_(), TOKENS.flip(0).clone().requires_grad_()
    total_loss(torch.tensor(1.0), student, teacher, epoch=0.5).backward()
    assert teacher.grad is None
    assert float(student.grad.abs().sum()) > 0
    assert float(total_loss(torch.tensor(1.0), student, teacher, epoch=3.5)) == 1.0
