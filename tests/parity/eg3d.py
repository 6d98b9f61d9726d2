"""EG3D's generator (Chan et al. 2022): from noise and a camera to a triplane and its picture."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.camera import LABEL_SIZE
from models.three_d.rendering import RayOptions, TriplaneDecoder, VolumeRenderer, sample_rays
from models.three_d.stylegan import FullyConnected, NoiseMode, SynthesisBlock
from models.three_d.superresolution import SuperResolution

LATENT_SIZE = 512
CONV_CLAMP = 256.0  # bound of the super-resolution's activations, in fp32 too: it was trained in half precision


class Mapping(nn.Module):
    """Noise and the conditioning camera to style vectors; `w_avg` is their running mean."""

    w_avg: Tensor

    def __init__(self, styles: int, layers: int = 2) -> None:
        super().__init__()
        self.styles, self.layers = styles, layers
        self.embed = FullyConnected(LABEL_SIZE, LATENT_SIZE)
        for i in range(layers):
            inputs = 2 * LATENT_SIZE if i == 0 else LATENT_SIZE
            layer = FullyConnected(inputs, LATENT_SIZE, leaky=True, lr_multiplier=0.01)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(LATENT_SIZE))

    def forward(self, noise: Tensor, label: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """noise: (B, 512).  label: (B, 25).  psi pulls the first `cutoff` styles (all when None) to the mean.

        Returns (B, styles, 512).
        """
        condition = normalise_second_moment(self.embed(label))
        w = torch.cat([normalise_second_moment(noise), condition], dim=1)
        for i in range(self.layers):
            w = self.get_submodule(f"fc{i}")(w)
        ws = w[:, None].repeat(1, self.styles, 1)
        if psi != 1.0:
            ws[:, :cutoff] = torch.lerp(self.w_avg, ws[:, :cutoff], psi)
        return ws


class Synthesis(nn.Module):
    """StyleGAN2 blocks b4..b256 whose skip image is the triplane."""

    def __init__(self, resolution: int = 256, image_channels: int = 96) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        inputs = 0
        for size in self.resolutions:
            outputs = min(32768 // size, 512)
            block = SynthesisBlock(inputs, outputs, LATENT_SIZE, size, image_channels)
            self.add_module(f"b{size}", block)
            inputs = outputs

    @property
    def styles(self) -> int:
        """Style vectors in use: one a convolution, and one for the last image."""
        return 2 * len(self.resolutions)

    def forward(
        self, ws: Tensor, noise_mode: NoiseMode = "random", generator: torch.Generator | None = None
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """ws: (B, styles, 512). Returns hidden features and skip image (B, 96, r, r) after each resolution r."""
        x: Tensor | None = None
        image: Tensor | None = None
        seen: dict[int, tuple[Tensor, Tensor]] = {}
        first = 0
        for size in self.resolutions:
            block = self.get_submodule(f"b{size}")
            assert isinstance(block, SynthesisBlock)
            # The image layer's style is the next block's first as well.
            chosen = ws[:, first : first + block.layers + 1]
            x, image = block(x, image, chosen, noise_mode, generator)
            seen[size] = (x, image)
            first += block.layers
        return seen


class Backbone(nn.Module):
    """Mapping and synthesis under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.synthesis = Synthesis()
        self.mapping = Mapping(self.synthesis.styles)


class Generated(NamedTuple):
    """Rendered view; ranges as in `models.three_d.live3d.Render`."""

    image: Tensor  # (B, 3, 512, 512)
    image_raw: Tensor  # (B, 3, 128, 128)
    depth: Tensor  # (B, 1, 128, 128)
    opacity: Tensor  # (B, 1, 128, 128)
    features: Tensor  # (B, 32, 128, 128)


class Generator(nn.Module):
    """The published ffhqrebalanced512-128 generator; key names are the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.decoder = TriplaneDecoder(channels=32, hidden=64, features=32)
        self.superresolution = SuperResolution(32, (256, 128), 128, LATENT_SIZE, CONV_CLAMP)
        self.volume = VolumeRenderer(RayOptions())

    def planes(self, ws: Tensor, noise_mode: NoiseMode, generator: torch.Generator | None = None) -> Tensor:
        """ws: (B, 14, 512).  Returns a triplane (B, 96, 256, 256)."""
        return self.backbone.synthesis(ws, noise_mode, generator)[256][1]

    def render(self, triplane: Tensor, ws: Tensor, label: Tensor, resolution: int = 128) -> Generated:
        """triplane: (B, 96, 256, 256).  ws: (B, 14, 512).  label: (B, 25)."""
        origins, directions = sample_rays(label, resolution)
        rays = self.volume(triplane, self.decoder, origins, directions)
        shape = (len(triplane), -1, resolution, resolution)
        features = (rays.features * 2 - 1).transpose(1, 2).reshape(shape)
        image = self.superresolution(features[:, :3], features, ws[:, -1])
        return Generated(image, features[:, :3], rays.depth.view(shape), rays.opacity.view(shape), features)


def normalise_second_moment(x: Tensor) -> Tensor:
    """x: (B, D), scaled to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
