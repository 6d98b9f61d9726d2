"""Is a picture fit to be shown: the safety checker that is published beside Stable Diffusion, as a verdict alone.

In its pipeline it turns what it finds into a black frame, which a dataset would then be taught. Here it changes no
picture: its verdict is a score like others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.libraries import transformers

CHECKER, PROCESSOR = "safety_checker", "feature_extractor"  # folders of a pipeline


class SafetyChecker(nn.Module):
    """The checker with its picture preprocessing."""

    def __init__(self, checker: nn.Module, processor: Any) -> None:
        super().__init__()
        self.checker, self.processor = checker, processor

    @classmethod
    def load(cls, pipeline: str | Path, device: str = "cpu", revision: str | None = None) -> Self:
        """Of a pipeline in diffusers' layout, a folder or a hub id."""
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        checker = StableDiffusionSafetyChecker.from_pretrained(
            pipeline, subfolder=CHECKER, revision=revision, dtype=torch.float32
        )
        processor = transformers.CLIPImageProcessor.from_pretrained(pipeline, subfolder=PROCESSOR, revision=revision)
        return cls(checker.eval().requires_grad_(False), processor).to(device)

    @torch.no_grad()
    def unsafe(self, pictures: np.ndarray) -> list[bool]:
        """pictures: (B, H, W, 3) uint8.  Which of them should not be shown."""
        device = next(self.parameters()).device
        seen = self.processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt").to(device)
        # It blackens what it is given beside its input: one pixel each, which nobody looks at.
        _, found = self.checker(clip_input=seen.pixel_values, images=np.zeros((len(pictures), 1, 1, 3)))
        return [bool(each) for each in found]
