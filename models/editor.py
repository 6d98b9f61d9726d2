"""The 2D teacher: InstructPix2Pix (Brooks et al. 2023), one picture and one instruction to an edited picture.

The embedded editor and `timbrooks/instruct-pix2pix` are the same diffusers pipeline. Each sample draws its noise from a
generator of its own, so a sample does not depend on the batch it was made in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from models.libraries import diffusers


class Editor(nn.Module):
    """An InstructPix2Pix pipeline."""

    def __init__(self, pipeline: diffusers.StableDiffusionInstructPix2PixPipeline) -> None:
        super().__init__()
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.unet = pipeline.unet  # registered, so that the module's device and parameters are the pipeline's

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", revision: str | None = None) -> Self:
        """Load a pipeline in diffusers' layout; half precision on a GPU, single on a CPU."""
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        pipeline = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(
            folder, dtype=dtype, revision=revision, safety_checker=None, requires_safety_checker=False
        )
        return cls(pipeline.to(device))

    @torch.no_grad()
    def edit(
        self,
        portraits: np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        image_guidance_scale: float,
    ) -> np.ndarray:
        """portraits: (B, H, W, 3) uint8, a prompt and a seed each.  Returns (B, H, W, 3) uint8.

        guidance_scale pulls towards the instruction, image_guidance_scale towards the portrait (s_T and s_I, Eq. 3).
        """
        if not len(portraits) == len(prompts) == len(seeds):
            raise ValueError(f"{len(portraits)} portraits, {len(prompts)} prompts and {len(seeds)} seeds do not match")
        images = torch.from_numpy(np.ascontiguousarray(portraits)).permute(0, 3, 1, 2).float() / 255.0
        output = self.pipeline(
            prompt=list(prompts),
            image=images,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds],
            output_type="np",
        )
        return (np.clip(output.images, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
