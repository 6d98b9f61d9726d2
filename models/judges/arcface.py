"""Identity of real faces: ArcFace's IR-SE-50 (Deng et al. 2019), with the keys of `model_ir_se50.pth`.

The paper measures identity with it. `models.faces.recognition` cuts the faces that it reads; `models.judges.identity`
is its small relative of the embedded world.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_PX = 112  # side of the faces that the network was trained on
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels and blocks; each stage halves the size
EMBEDDING = 512


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means over the picture."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W).  Returns the same shape."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """Residual block of "improved residual" networks: norms first, the stride in the second convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, I, H, W).  Returns (B, O, H/stride, W/stride)."""
        return self.res_layer(x) + self.shortcut_layer(x)


class ArcFace(nn.Module):
    """Map aligned faces to unit vectors; the cosine of two measures whether they are the same person."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks: list[nn.Module] = []
        inputs = 64
        for channels, count in STAGES:
            blocks += [Bottleneck(inputs if i == 0 else channels, channels, 2 if i == 0 else 1) for i in range(count)]
            inputs = channels
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(inputs * (FACE_PX // 16) ** 2, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING),
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return a frozen network with the weights of `model_ir_se50.pth`."""
        network = cls()
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def forward(self, faces: Tensor) -> Tensor:
        """faces: (B, 3, 112, 112) in [-1, 1].  Returns (B, 512), unit length."""
        return F.normalize(self.output_layer(self.body(self.input_layer(faces))), dim=-1)
