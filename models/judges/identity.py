"""ArcFace-style identity network (Deng et al. 2019): one unit vector a face."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.pixels import signed

EMBEDDING = 64
INPUT_PX = 64  # side of a portrait as the stage align cuts it


class _Block(nn.Module):
    """Pre-activation residual block; halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(nn.functional.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(nn.functional.silu(self.norm2(hidden)))


class IdentityNet(nn.Module):
    """Faces (B, 3, 64, 64) in [-1, 1] to unit vectors (B, 64); other sizes are resized.

    It learned from portraits as the stage align cuts them, from the front and from the sides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(_Block(24, 48), _Block(48, 80), _Block(80, 112))
        self.norm = nn.GroupNorm(8, 112)
        self.head = nn.Linear(112 * 16, EMBEDDING)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 64), unit length; the cosine of two measures whether they are the same person."""
        if images.shape[-2:] != (INPUT_PX, INPUT_PX):
            size = (INPUT_PX, INPUT_PX)
            images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        hidden = nn.functional.silu(self.norm(self.blocks(self.stem(images))))
        return nn.functional.normalize(self.head(hidden.flatten(1)), dim=-1)

    @torch.no_grad()
    def embed(self, images: np.ndarray) -> Tensor:
        """(B, 64) unit vectors of aligned portraits (B, H, W, 3) uint8."""
        return self(signed(images, self.head.weight.device))
