"""Five facial landmarks by heatmaps with a soft argmax (Sun et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.pixels import signed

POINTS = 5
INPUT_PX = 64


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.SiLU())


class LandmarkNet(nn.Module):
    """Photographs or crops to left eye, right eye, nose tip, left and right mouth corner ("left" = smaller x)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(_conv(3, 24, 2), _conv(24, 24))
        self.down2 = nn.Sequential(_conv(24, 48, 2), _conv(48, 48))
        self.down3 = nn.Sequential(_conv(48, 72, 2), _conv(72, 72), _conv(72, 72))
        self.up2 = nn.Sequential(_conv(72 + 48, 48), _conv(48, 48))
        self.up1 = nn.Sequential(_conv(48 + 24, 32), nn.Conv2d(32, POINTS, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, 3, 64, 64) in [-1, 1].

        Returns points (B, 5, 2) in [0, 1], x right, y down, and heat (B, 5, 32, 32).
        """
        fine = self.down1(images)
        middle = self.down2(fine)
        coarse = self.down3(middle)
        middle = self.up2(torch.cat([_double(coarse), middle], dim=1))
        logits = self.up1(torch.cat([_double(middle), fine], dim=1))
        heat = torch.softmax(logits.flatten(2), dim=-1).view(logits.shape)
        centres = (torch.arange(heat.shape[-1], device=heat.device) + 0.5) / heat.shape[-1]
        x, y = (heat.sum(2) * centres).sum(-1), (heat.sum(3) * centres).sum(-1)
        return torch.stack([x, y], dim=-1), heat

    @torch.no_grad()
    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """images: (B, H, W, 3) uint8.  Returns points (B, 5, 2) in [0, 1] and confidence (B,) in [0, 1].

        Confidence is the mass of the heat near its own mean, of the least certain point: low where there is no face.
        """
        pixels = signed(images, next(self.parameters()).device)
        if pixels.shape[-2:] != (INPUT_PX, INPUT_PX):
            size = (INPUT_PX, INPUT_PX)
            pixels = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        points, heat = self(pixels)
        centres = (torch.arange(heat.shape[-1], device=heat.device) + 0.5) / heat.shape[-1]
        near_x = (centres - points[..., 0, None]).abs() < 0.06
        near_y = (centres - points[..., 1, None]).abs() < 0.06
        mass = (heat * near_y[..., :, None] * near_x[..., None, :]).sum(dim=(2, 3))
        return points.cpu().numpy(), mass.amin(dim=1).cpu().numpy()


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
