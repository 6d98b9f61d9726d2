"""EG3D's generator (Chan et al. 2022), from a latent to a triplane and its views; and an encoder into its latents.

PAPER loads the published ffhqrebalanced512-128 by its keys. EMBEDDED is the same network with a million parameters.
"""

import dataclasses
import math
from collections.abc import Mapping as Mappable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.camera import LABEL_SIZE
from models.three_d.live3d import EMBEDDED as EMBEDDED_TEACHER
from models.three_d.live3d import Background, Render, RendererConfig
from models.three_d.rendering import RayOptions, TriplaneDecoder, VolumeRenderer, sample_rays
from models.three_d.stylegan import FullyConnected, NoiseMode, SynthesisBlock
from models.three_d.superresolution import SuperResolution

CONV_CLAMP = 256.0  # bound of the super-resolution's activations, in fp32 too: it was trained in half precision


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the generator; the defaults are EG3D's at FFHQ 512. `style_size` of the renderer is that of w."""

    renderer: RendererConfig = field(default_factory=RendererConfig)
    noise_size: int = 512  # of z
    plane_size: int = 256
    channel_base: int = 32768  # channels of a block: this over its resolution, at most `channel_max`
    channel_max: int = 512
    mapping_rate: float = 0.01  # learning rate multiplier of the mapping

    @property
    def w_size(self) -> int:
        return self.renderer.style_size

    @property
    def styles(self) -> int:
        """Style vectors of w+: one a convolution, and one for the last image."""
        return 2 * int(math.log2(self.plane_size)) - 2

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mappable[str, Any]) -> "GeneratorConfig":
        """Invert `to_dict`, also after a round trip through JSON."""
        renderer = dict(values["renderer"])
        renderer |= {"rays": RayOptions(**renderer["rays"]), "sr_channels": tuple(renderer["sr_channels"])}
        return cls(**{**values, "renderer": RendererConfig(**renderer)})


PAPER = GeneratorConfig()
EMBEDDED = GeneratorConfig(
    dataclasses.replace(EMBEDDED_TEACHER.renderer, style_size=64),
    noise_size=51, plane_size=64, channel_base=2304, channel_max=112, mapping_rate=1.0,
)  # fmt: skip


class Mapping(nn.Module):
    """Noise and the conditioning camera to style vectors; `w_avg` is their running mean."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig, layers: int = 2) -> None:
        super().__init__()
        self.styles, self.layers = config.styles, layers
        self.embed = FullyConnected(LABEL_SIZE, config.w_size)
        for i in range(layers):
            inputs = config.noise_size + config.w_size if i == 0 else config.w_size
            layer = FullyConnected(inputs, config.w_size, leaky=True, lr_multiplier=config.mapping_rate)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(config.w_size))

    def forward(self, noise: Tensor, label: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """noise: (B, Z).  label: (B, 25).  psi pulls the first `cutoff` styles (all when None) to the mean.

        Returns (B, styles, W).
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
    """StyleGAN2 blocks b4, b8, ... whose skip image is the triplane."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(config.plane_size)) + 1)]
        inputs = 0
        for size in self.resolutions:
            outputs = min(config.channel_base // size, config.channel_max)
            block = SynthesisBlock(inputs, outputs, config.w_size, size, 3 * config.renderer.plane_channels)
            self.add_module(f"b{size}", block)
            inputs = outputs

    def forward(
        self, ws: Tensor, noise_mode: NoiseMode = "random", generator: torch.Generator | None = None
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """ws: (B, styles, W). Returns hidden features and skip image (B, 3*C, r, r) after each resolution r."""
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

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.synthesis = Synthesis(config)
        self.mapping = Mapping(config)


class Generator(nn.Module):
    """The generator; key names are the published checkpoint's."""

    def __init__(self, config: GeneratorConfig = PAPER) -> None:
        super().__init__()
        self.config = config
        own = config.renderer
        self.backbone = Backbone(config)
        self.decoder = TriplaneDecoder(own.plane_channels, own.decoder_hidden, own.features, own.density_gain)
        self.superresolution = SuperResolution(own.features, own.sr_channels, own.resolution, config.w_size, CONV_CLAMP)
        if own.background:
            self.background = Background(3 * own.plane_channels, own.decoder_hidden, own.features)
        self.volume = VolumeRenderer(own.rays)

    def planes(self, ws: Tensor, noise_mode: NoiseMode = "const", generator: torch.Generator | None = None) -> Tensor:
        """ws: (B, styles, W).  Returns a triplane (B, 3*C, h, w)."""
        seen: dict[int, tuple[Tensor, Tensor]] = self.backbone.synthesis(ws, noise_mode, generator)
        return seen[self.config.plane_size][1]

    def render(
        self, triplane: Tensor, ws: Tensor, cameras: Tensor, resolution: int | None = None, pixels: Tensor | None = None
    ) -> Render:
        """triplane: (B, 3*C, h, w).  ws: (B or 1, styles, W).  cameras: (B, 25).

        pixels: (B, s * s) rays of a square patch, row * resolution + column; all of them when None.
        """
        size = resolution or self.config.renderer.resolution
        every = torch.arange(size * size, device=triplane.device) if pixels is None else pixels
        origins, directions = sample_rays(cameras, size, every)
        rays = self.volume(triplane, self.decoder, origins, directions)
        if self.config.renderer.background:
            behind = self.background(triplane, every.expand(len(triplane), -1), size)
            rays = rays._replace(features=rays.features + (1 - rays.opacity[..., None]) * behind)
        side = math.isqrt(every.shape[-1])
        shape = (len(triplane), -1, side, side)
        features = (rays.features * 2 - 1).transpose(1, 2).reshape(shape)
        raw = features[:, :3]
        image = self._enlarge(features, raw, ws[:, -1], whole=pixels is None)
        return Render(image, raw, rays.depth.view(shape), rays.opacity.view(shape), features)

    def _enlarge(self, features: Tensor, raw: Tensor, w: Tensor, whole: bool) -> Tensor:
        if whole:
            return self.superresolution(raw, features, w)
        ws = w[:, None].expand(-1, 3, -1)  # a patch keeps its size, which a whole image may not
        image = raw
        for name in self.superresolution.names:
            features, image = self.superresolution.get_submodule(name)(features, image, ws)
        return image


class Seen(NamedTuple):
    """Generator with the latent of one head: the model of its triplane, in the form of teacher and student."""

    generator: Generator
    ws: Tensor  # (1, styles, W)

    def render(self, triplane: Tensor, cameras: Tensor) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25)."""
        return self.generator.render(triplane, self.ws.expand(len(triplane), -1, -1), cameras)


class LatentEncoder(nn.Module):
    """Portrait to w+: one w for all layers, and what each layer adds to it (e4e, Tov et al. 2021)."""

    def __init__(
        self, config: GeneratorConfig, channels: tuple[int, ...] = (24, 48, 80, 96), hidden: int = 192
    ) -> None:
        super().__init__()
        self.styles, self.w_size = config.styles, config.w_size
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in channels:
            layers += [nn.Conv2d(inputs, outputs, 3, 2, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
            inputs = outputs
        self.net = nn.Sequential(*layers)
        self.hidden = nn.Linear(inputs * (config.renderer.image_size // 2 ** len(channels)) ** 2, hidden)
        self.base, self.offsets = nn.Linear(hidden, self.w_size), nn.Linear(hidden, self.styles * self.w_size)
        nn.init.zeros_(self.offsets.weight)

    def forward(self, portraits: Tensor, w_avg: Tensor) -> Tensor:
        """portraits: (B, 3, H, W) in [-1, 1].  w_avg: (W,).  Returns (B, styles, W)."""
        hidden = F.silu(self.hidden(self.net(portraits).flatten(1)))
        offsets = self.offsets(hidden).unflatten(1, (self.styles, self.w_size))
        return w_avg + self.base(hidden)[:, None] + offsets


Inverter = tuple[Generator, LatentEncoder | None]  # the public generator has no encoder


def normalise_second_moment(x: Tensor) -> Tensor:
    """x: (B, D), scaled to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
