"""Forward pass of a training step: a batch, and the student's triplanes and views of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from models.precision import Precision, autocast
from models.three_d.live3d import Render
from models.three_d.losses import ViewTarget
from models.three_d.patches import render_patches
from models.three_d.rendering import SamplingNoise
from models.three_d.student import Features, PromptKind

if TYPE_CHECKING:
    from models.three_d.student import Student


class PromptGroup(NamedTuple):
    """The samples of a batch that have one kind of prompt."""

    kind: PromptKind
    places: Tensor  # (G,) int64, in the batch
    prompts: Tensor  # as `Student.read` takes them: tokens (G, T, D), or what E_p's own encoders read


class Batch(NamedTuple):
    """Input and targets of one step; B samples, V views each."""

    features: Features
    prompts: list[PromptGroup]
    cameras: Tensor  # (V + 1, B, 25): the portrait's first
    triplane: Tensor  # (B, 3*C, h, w)
    counts: Tensor  # (B, 1 or 3*C, h, w), about 1 in the mean: how much each value of the triplane counts
    targets: list[ViewTarget]  # V + 1, the portrait's first; none where only triplanes are compared


class Lesson(nn.Module):
    """Forward pass of the student in one call, so that a distributed wrapper sees it."""

    def __init__(self, student: Student, patch_rays: int, precision: Precision) -> None:
        super().__init__()
        self.student, self.patch_rays, self.precision = student, patch_rays, precision

    def forward(
        self, batch: Batch, corners: Tensor | None = None, noise: SamplingNoise | None = None
    ) -> tuple[Tensor, list[Render]]:
        """corners: (V, B, 2) of the patches to render.  Returns the triplane (B, 3*C, h, w) and V renders."""
        low, high = (part.contiguous(memory_format=torch.channels_last) for part in batch.features)
        with autocast(self.precision, low.device.type):
            asked = [self._ask(high[group.places], group) for group in batch.prompts]
            order = torch.cat([group.places for group in batch.prompts]).argsort()
            triplane = self.student.lift(torch.cat(asked)[order], low)
        triplane = triplane.contiguous().float()
        if corners is None or noise is None:
            return triplane, []
        count, size = batch.cameras.shape[:2]
        planes, cameras = triplane.repeat(count, 1, 1, 1), batch.cameras.flatten(0, 1)
        seen = render_patches(self.student, planes, cameras, corners.flatten(0, 1), self.patch_rays, noise)
        return triplane, [Render(*(part[i * size : (i + 1) * size] for part in seen)) for i in range(count)]

    def _ask(self, high: Tensor, group: PromptGroup) -> Tensor:
        """E_p on the samples of one kind of prompt.  high: (G, I, h, w)."""
        return self.student.attend(high, self.student.read(group.prompts, group.kind), group.kind)
