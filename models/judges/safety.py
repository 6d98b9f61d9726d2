"""Verdict whether a picture may be shown: the safety checker published beside Stable Diffusion.

Its pipeline replaces an unsafe picture by a black frame, and a dataset would teach that frame. Here it changes no
picture: the verdict is a score like the others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.libraries import transformers

CHECKER, PROCESSOR = "safety_checker", "feature_extractor"  # folders of a pipeline


class SafetyChecker(nn.Module):
    """The checker with its picture preprocessing."""

    def __init__(self, pipeline: str | Path, device: str = "cpu", revision: str | None = None) -> None:
        """Load the checker of a pipeline in diffusers' layout, a folder or a hub id."""
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        super().__init__()
        checker = StableDiffusionSafetyChecker.from_pretrained(
            pipeline, subfolder=CHECKER, revision=revision, dtype=torch.float32
        )
        self.checker = checker.eval().requires_grad_(False).to(device)
        kept = {"subfolder": PROCESSOR, "revision": revision}
        self.processor = transformers.CLIPImageProcessor.from_pretrained(pipeline, **kept)

    @torch.no_grad()
    def unsafe(self, pictures: np.ndarray) -> list[bool]:
        """Return whether each picture is unsafe.  pictures: (B, H, W, 3) uint8."""
        device = next(self.parameters()).device
        seen = self.processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt").to(device)
        # The checker blackens its second argument in place: it gets one dummy pixel a picture.
        _, found = self.checker(clip_input=seen.pixel_values, images=np.zeros((len(pictures), 1, 1, 3)))
        return [bool(each) for each in found]
