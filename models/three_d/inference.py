"""ONNX graphs of the student's convolutions: onnxruntime edits one portrait in about half of PyTorch's time.

PyTorch spends much of a small picture on dispatch and on a slow memory layout of the weights. The graphs (encoder,
super-resolution) compute the same numbers, to about 1e-5 of their range. Rays stay in PyTorch, which samples the planes
faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models import onnx_graphs

if TYPE_CHECKING:
    from models.three_d.live3d import Render
    from models.three_d.student import PromptKind, Student

SMALL = 128  # px across the portrait; larger portraits are dominated by convolutions and gain nothing from a graph
TOKEN_LENGTH = 16  # tokens of the traced example; the graph accepts any number


class _Editing(nn.Module):
    """Portraits and projected prompt tokens to triplanes."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder = student.encoder

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        low, high = self.encoder.branches(images)
        return self.encoder.Final_encoder(self.encoder.Ref_encoder.mix(high, tokens), low)


class _Upsampling(nn.Module):
    """Rendered features to the image; the style is a constant of the graph."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.superresolution = student.renderer.superresolution
        self.style = student.renderer.const

    def forward(self, features: Tensor) -> Tensor:
        return self.superresolution(features[:, :3], features, self.style[0])


class CpuStudent(nn.Module):
    """A trained student for use on a CPU: `encode` and `render` of `models.three_d.student.Student`, without gradients.

    Building it takes about a second (the graphs are traced once), so it pays from some dozen portraits on.
    """

    def __init__(self, student: Student) -> None:
        """student: on the CPU, in float32; its weights are copied into the graph."""
        super().__init__()
        self.student = student.eval()
        self.config = student.config
        size, rays = student.config.live3d.encoder.image_size, student.config.live3d.renderer
        images = torch.zeros(2, 3, size, size)
        tokens = torch.zeros(2, TOKEN_LENGTH, student.config.query_size)
        features = torch.zeros(1, rays.features, rays.resolution, rays.resolution)
        free = {0: "batch"}
        asked = {"images": (images, free), "tokens": (tokens, {**free, 1: "length"})}
        self._encoder = onnx_graphs.session(_Editing(student), asked, "triplane")
        # One view at a time: the modulated convolutions' groups are a batch, which cannot be free.
        self._upsampler = onnx_graphs.session(_Upsampling(student), {"features": (features, {})}, "image")

    def read(self, prompts: Tensor, prompt_kind: PromptKind) -> Tensor:
        """Return the tokens (B, T, D) of prompts, as `Student.read` does."""
        return self.student.read(prompts, prompt_kind)

    def encode(self, images: Tensor, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1].  prompt_tokens: (B, T, D).  Returns a triplane (B, 3*C, h, w)."""
        with torch.no_grad():
            tokens = self.student.encoder.Ref_encoder.project[prompt_kind](prompt_tokens)
            tokens = tokens.expand(len(images), *tokens.shape[1:])
            (triplane,) = self._encoder.run(None, {"images": images.numpy(), "tokens": tokens.numpy()})
        return torch.from_numpy(triplane)

    def render(self, triplane: Tensor, cameras: Tensor) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25)."""
        with torch.no_grad():
            seen = self.student.renderer.see(triplane, cameras)
            views = [self._upsampler.run(None, {"features": each.numpy()})[0] for each in seen.features.split(1)]
        return seen._replace(image=torch.from_numpy(np.concatenate(views)))


def for_use(student: Student) -> Student | CpuStudent:
    """Return the fastest form of a trained student on its device; large pictures gain nothing from graphs."""
    on_cpu = student.renderer.const.device.type == "cpu"
    small = student.config.live3d.encoder.image_size <= SMALL
    return CpuStudent(student) if on_cpu and small else student.eval()
