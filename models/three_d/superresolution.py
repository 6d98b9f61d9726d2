"""The 2D upsampler after volume rendering (EG3D's SuperresolutionHybrid): StyleGAN2 blocks on one shared style."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.three_d.stylegan import NoiseMode, SynthesisBlock


class SuperResolution(nn.Module):
    """Blocks `block0`, ..., one for each entry of `channels`. Each doubles the rendered features and the raw image."""

    def __init__(
        self,
        features: int,
        channels: Sequence[int],
        resolution: int,
        w_size: int = 512,
        conv_clamp: float | None = None,
    ) -> None:
        """features: channels of the rendering.  resolution: its width, to which other inputs are resized."""
        super().__init__()
        self.resolution = resolution
        self.names = [f"block{i}" for i in range(len(channels))]
        inputs = features
        for i, (name, outputs) in enumerate(zip(self.names, channels, strict=True)):
            block = SynthesisBlock(inputs, outputs, w_size, resolution * 2 ** (i + 1), 3, conv_clamp)
            self.add_module(name, block)
            inputs = outputs

    def forward(
        self,
        image: Tensor,
        features: Tensor,
        w: Tensor,
        noise_mode: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """image: (B, 3, h, h) in about [-1, 1].  features: (B, F, h, h).  w: (B or 1, w_size). Returns (B, 3, H, H)."""
        if features.shape[-1] != self.resolution:
            features, image = self._resize(features), self._resize(image)
        ws = w[:, None].expand(-1, 3, -1)
        for name in self.names:
            features, image = self.get_submodule(name)(features, image, ws, noise_mode, generator)
        return image

    def _resize(self, x: Tensor) -> Tensor:
        size = (self.resolution, self.resolution)
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
