"""Prompts for a student: read by E_p's own encoders where it has them, else by the frozen CLIP and MAE."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.three_d.mae import normalise

if TYPE_CHECKING:
    from models.judges.clip import Clip
    from models.three_d.inference import CpuStudent
    from models.three_d.mae import Mae
    from models.three_d.student import PromptKind, Student


class PromptReader:
    """Turns prompts into the tensors that `Student.read` takes.

    own: kinds that the student's own encoders read. Those are prepared only; the others become tokens here.
    """

    def __init__(self, clip: Clip, mae: Mae, own: Collection[PromptKind] = ()) -> None:
        self.clip, self.mae, self.own = clip, mae, own

    def text(self, texts: Sequence[str]) -> Tensor:
        """(B, 2, T) int64 ids and masks, or tokens (B, T, D)."""
        return self.clip.prompt_ids(texts) if "text" in self.own else self.clip.text_tokens(texts).float()

    def image(self, pictures: np.ndarray) -> Tensor:
        """(B, 3, S, S), or tokens (B, T, D), of pictures (B, H, W, 3) uint8."""
        if "image" not in self.own:
            return self.mae.tokens(pictures).float()
        return normalise(torch.as_tensor(pictures), self.mae.encoder.config.image_size)


def text_tokens(student: Student | CpuStudent, clip: Clip, texts: Sequence[str]) -> Tensor:
    """The tokens (B, T, D) by which a student reads sentences."""
    if "text" not in student.config.own_encoders:
        return clip.text_tokens(texts)
    with torch.no_grad():
        return student.read(clip.prompt_ids(texts).to(_device(student)), "text")


def image_tokens(student: Student | CpuStudent, mae: Mae | None, pictures: np.ndarray) -> Tensor:
    """The tokens (B, T, D) by which a student reads pictures (B, H, W, 3) uint8."""
    own = student.config.mae
    if own is None:
        assert mae is not None, "a student without an MAE of its own needs the frozen one"
        return mae.tokens(pictures)
    with torch.no_grad():
        return student.read(normalise(torch.as_tensor(pictures, device=_device(student)), own.image_size), "image")


def _device(student: Student | CpuStudent) -> torch.device:
    return next(student.parameters()).device
