"""The three reconstruction losses that tie a student encoder to a teacher. Knows nothing of models, data or optimisers.

Source: reference/penguin_vl.md 7.3, the published code (which differs from the paper in places named there). Student tokens
are taken after the spatial merge, passed through a learned linear layer to the teacher's width; the tokens of all pictures
of a batch come together, and the teacher's carry no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

AMPLITUDE_BETA = 0.001          # below this difference the smooth L1 is a parabola
EPOCHS = 3                      # the weight of the reconstruction falls linearly and reaches zero here


def direction_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the mean cosine between tokens [N, C]: where the features point."""
    return 1 - functional.cosine_similarity(student, teacher, dim=-1).mean()


def amplitude_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean smooth L1 between tokens [N, C]: how large the features are."""
    return functional.smooth_l1_loss(student, teacher, beta=AMPLITUDE_BETA)


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean smooth L1 between the cosines of all pairs of tokens [N, N], pairs from different pictures included."""
    def cosines(tokens: Tensor) -> Tensor:
        units = functional.normalize(tokens, dim=-1)
        return units @ units.T

    return functional.smooth_l1_loss(cosines(student), cosines(teacher), beta=AMPLITUDE_BETA)


def total_loss(language: Tensor, student: Tensor, teacher: Tensor, *, epoch: float, label_tokens: int = 1,
               relation: bool = True) -> Tensor:
    """The language loss with the reconstruction losses added, weighted as in the published stage 1.

    ``epoch`` is fractional. The weight (3 - epoch) / label_tokens turns negative after the third epoch in the published
    code; here it stays at zero. Without ``relation`` only amplitude and direction count.
    """
    teacher = teacher.detach()
    reconstruction = direction_loss(student, teacher) + amplitude_loss(student, teacher)
    if relation:
        reconstruction = reconstruction + relation_loss(student, teacher)
    return language + reconstruction * max(0.0, EPOCHS - epoch) / label_tokens


def adapted(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Student features [N, Cs] in the teacher's width: the learned linear layer, weight [Ct, Cs], bias [Ct]."""
    return torch.addmm(bias, features, weight.T)
