"""The warm-up of Penguin-VL: an encoder that learns to give a teacher's features. Knows nothing of data or schedules.

Source: reference/penguin_vl.md 7.3, stage 1. The student's merged features, before the projector, pass through a linear
layer that is dropped afterwards, and three losses tie them to a frozen encoder's features of the same pictures: amplitude,
direction and relation, added to the loss of the answers. As published their weight falls from 3 to 2 over the warm-up. The
published code divides it by the number of answered tokens once more, which leaves about a thousandth; this is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from penguin_ros.core.errors import ConfigError
from penguin_ros.model.checkpoint import load_encoder
from penguin_ros.model.precision import fast_math
from penguin_ros.training.losses import total_loss
from penguin_ros.training.network import MERGE, PATCH_PX, patches_of


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """For how many of a run's first steps the encoder follows which teacher."""

    teacher: Path               # a checkpoint folder: a whole Penguin-VL or an encoder alone
    steps: int
    relation: bool = True       # with the relation loss

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f'a warm-up of {self.steps} steps was asked for; it needs at least 1. '
                              'Give --warm-up-steps, or leave --teacher out.')


class Reconstruction:
    """A teacher and the student's way to its features."""

    def __init__(self, warm_up: WarmUp, *, student_width: int, device: torch.device) -> None:
        self.warm_up = warm_up
        self.teacher = load_encoder(warm_up.teacher, dtype=torch.float32, device=device).requires_grad_(False)
        if self.teacher.config.patch_px != PATCH_PX:
            raise ConfigError(
                f'the teacher in {warm_up.teacher} cuts patches of {self.teacher.config.patch_px} px, the student of '
                f'{PATCH_PX} px: their features are not of the same places. Choose another teacher.')
        self.adapter = nn.Linear(student_width, self.teacher.config.width).to(device)

    def added_to(self, loss: Tensor, images: Sequence[Tensor], features: Sequence[Tensor], *, step: int) -> Tensor:
        """``loss`` with the reconstruction's added, while the warm-up lasts.

        ``images`` uint8 [B, H, W, 3] and the student's merged ``features`` [B, tokens, width] come per slot of the batch.
        """
        if step >= self.warm_up.steps:
            return loss
        student = torch.cat([self.adapter(found.float()).flatten(0, 1) for found in features])
        teacher = torch.cat([self.features(pictures).flatten(0, 1) for pictures in images])
        return total_loss(loss, student, teacher, epoch=step / self.warm_up.steps, relation=self.warm_up.relation)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The teacher's merged features [B, tokens, its width], float32."""
        grid = (images.shape[1] // PATCH_PX, images.shape[2] // PATCH_PX)
        patches = patches_of(images.to(self.adapter.weight.device))
        with fast_math(patches.device):
            return self.teacher(patches, grid, MERGE).float()
