"""Live3D: the two-branch encoder and EG3D's renderer, from one portrait to any view (Trevithick et al. 2023).

One set of classes serves both worlds: PAPER_LT and PAPER_NORMAL load the public checkpoints, EMBEDDED is the
same network at 64x64 with about a million parameters.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.three_d.encoder import EncoderConfig, Live3DEncoder
from models.three_d.recompute import in_parts
from models.three_d.rendering import (
    RayOptions,
    RayRender,
    SamplingNoise,
    TriplaneDecoder,
    VolumeRenderer,
    sample_planes,
    sample_rays,
)
from models.three_d.stylegan import LEAKY_GAIN, LEAKY_SLOPE, FullyConnected
from models.three_d.superresolution import SuperResolution


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the renderer; the defaults are EG3D's at FFHQ 512."""

    rays: RayOptions = field(default_factory=RayOptions)
    resolution: int = 128  # rays across the image
    plane_channels: int = 32
    features: int = 32
    decoder_hidden: int = 64
    density_gain: float = 1.0
    style_size: int = 512
    sr_channels: tuple[int, ...] = (256, 128)
    background: bool = False  # see `Background`

    @property
    def image_size(self) -> int:
        """Width of the final image, in pixels."""
        return self.resolution * 2 ** len(self.sr_channels)


@dataclass(frozen=True)
class Live3DConfig:
    """Configuration of both halves; plain values, stored as JSON beside the weights."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Live3DConfig":
        """Invert `to_dict`, also after a round trip through JSON."""
        renderer = dict(values["renderer"])
        renderer["rays"] = RayOptions(**renderer["rays"])
        return cls(EncoderConfig(**_tuples(values["encoder"])), RendererConfig(**_tuples(renderer)))


PAPER_LT = Live3DConfig()
PAPER_NORMAL = Live3DConfig(
    EncoderConfig(
        layout="normal",
        low_blocks=5,
        f_channels=(128, 128, 96),
        high_channels=(64, 96, 96, 96, 96),
        high_strides=(2, 1, 1, 1, 1),
        merge_channels=(256, 128),
        output_channels=(256, 128, 128, 96),
    )
)
EMBEDDED = Live3DConfig(
    EncoderConfig(
        image_size=64,
        normalised_pixel_index=True,
        stem_channels=24,
        stem_pool=False,
        trunk_channels=(24, 48),
        trunk_blocks=(1, 2),
        low_channels=48,
        dilations=(2, 4, 6),
        dropout=0.0,
        token_size=128,
        patch_kernel=3,
        f_channels=(32, 32),
        high_channels=(32, 32, 32),
        high_strides=(2, 1, 1),
        merge_channels=(48,),
        output_channels=(48, 24, 24, 36),
    ),
    RendererConfig(
        rays=RayOptions(coarse_samples=10, fine_samples=8, proper_axes=True, empty_below=0.01),
        resolution=32,
        plane_channels=12,
        features=16,
        decoder_hidden=32,
        density_gain=8.0,
        style_size=32,
        sr_channels=(32,),
        background=True,
    ),
)


class Render(NamedTuple):
    """Rendered view of each sample; h is the ray resolution, H the image's."""

    image: Tensor  # (B, 3, H, H) in about [-1, 1]
    image_raw: Tensor  # (B, 3, h, h) in about [-1, 1], before super-resolution
    depth: Tensor  # (B, 1, h, h) world units along the ray; means nothing where opacity is near 0
    opacity: Tensor  # (B, 1, h, h) in [0, 1]
    features: Tensor  # (B, F, h, h) in about [-1, 1]; the first three are image_raw


class FieldValues(NamedTuple):
    """The field at points, for supervision without rays."""

    features: Tensor  # (B, N, F) in about [0, 1]; the first three are rgb
    density: Tensor  # (B, N, 1) raw: the opacity per unit length is softplus(density - 1)


class Background(nn.Module):
    """Backdrop behind the box: decoded from the triplane's mean and the pixel's place in the image.

    A box of one world unit cannot carry a backdrop behind the head, and EG3D paints black there. The planes'
    mean is the one thing every view of a triplane shares, so the backdrop is edited with the triplane and
    needs no other input.
    """

    def __init__(self, triplane_channels: int, hidden: int, features: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [FullyConnected(triplane_channels + 2, hidden, leaky=True), FullyConnected(hidden, features)]
        )

    def forward(self, triplane: Tensor, pixels: Tensor, resolution: int) -> Tensor:
        """triplane: (B, 3*C, H, W).  pixels: (B, R) ray indices. Returns features (B, R, F) in about [0, 1]."""
        column = (pixels % resolution + 0.5) / resolution
        row = (torch.div(pixels, resolution, rounding_mode="floor") + 0.5) / resolution
        place = 2 * torch.stack([column, row], dim=-1) - 1
        # The first layer in two parts: all pixels share the one of the mean, all images the one of the place.
        weight, bias = cast(FullyConnected, self.net[0]).scaled()
        mean = F.linear(triplane.mean(dim=(2, 3)), weight[:, :-2], bias)
        hidden = F.leaky_relu(mean[:, None] + F.linear(place, weight[:, -2:]), LEAKY_SLOPE) * LEAKY_GAIN
        return torch.sigmoid(self.net[1](hidden)) * 1.002 - 0.001


class TriplaneRenderer(nn.Module):
    """Volume renderer and super-resolution; the style is one learned vector, as in Live3D and 3DPE."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        self.const = nn.Parameter(torch.randn(1, 1, config.style_size))
        self.decoder = TriplaneDecoder(
            config.plane_channels, config.decoder_hidden, config.features, config.density_gain
        )
        self.superresolution = SuperResolution(
            config.features, config.sr_channels, config.resolution, config.style_size
        )
        self.background = (
            Background(3 * config.plane_channels, config.decoder_hidden, config.features) if config.background else None
        )
        self.volume = VolumeRenderer(config.rays)

    def forward(
        self,
        triplane: Tensor,
        cameras: Tensor,
        noise: SamplingNoise | None = None,
        resolution: int | None = None,
    ) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25). resolution: rays across, the configured number when None."""
        seen = self.see(triplane, cameras, noise, resolution)
        upsample, pixels = partial(self.superresolution, w=self.const[0]), self.config.image_size**2
        return seen._replace(image=in_parts(upsample, seen.image_raw, seen.features, pixels=pixels))

    def see(
        self, triplane: Tensor, cameras: Tensor, noise: SamplingNoise | None = None, resolution: int | None = None
    ) -> Render:
        """Render without super-resolution: `image` is the raw image."""
        size = resolution or self.config.resolution
        pixels = torch.arange(size * size, device=triplane.device)
        # Images without gradients take the faster renderer; it needs empty space to skip.
        if self.config.rays.empty_below > 0 and noise is None and not torch.is_grad_enabled():
            rays = self.volume.look(triplane, self.decoder, cameras, size)
            rays = self._before_background(rays, triplane, pixels, size)
        else:
            rays = self.render_rays(triplane, cameras, pixels, noise, size)
        # Rays to images, features from [0, 1] to [-1, 1].
        shape = (len(triplane), -1, size, size)
        features = (rays.features * 2 - 1).transpose(1, 2).reshape(shape)
        image_raw = features[:, :3]
        return Render(image_raw, image_raw, rays.depth.view(shape), rays.opacity.view(shape), features)

    def render_rays(
        self,
        triplane: Tensor,
        cameras: Tensor,
        pixels: Tensor,
        noise: SamplingNoise | None = None,
        resolution: int | None = None,
    ) -> RayRender:
        """Render chosen rays only.  pixels: (R,) or (B, R), row * resolution + column."""
        size = resolution or self.config.resolution
        pixels = pixels.expand(len(triplane), pixels.shape[-1])
        origins, directions = sample_rays(cameras, size, pixels)
        rays = self.volume(triplane, self.decoder, origins, directions, noise)
        return self._before_background(rays, triplane, pixels, size)

    def _before_background(self, rays: RayRender, triplane: Tensor, pixels: Tensor, resolution: int) -> RayRender:
        if self.background is None:
            return rays
        behind = self.background(triplane, pixels.expand(len(triplane), -1), resolution)
        return rays._replace(features=rays.features + (1 - rays.opacity[..., None]) * behind)


class TriplaneModel(nn.Module):
    """Base of teacher and student: a renderer, and the queries of a triplane."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.renderer = TriplaneRenderer(config)

    def render(self, triplane: Tensor, cameras: Tensor, generator: torch.Generator | None = None) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25).

        With a generator the samples on the rays are random, as in training; without, a sample's view is the
        same in every batch.
        """
        rays = self.renderer.config.resolution**2
        return self.renderer(triplane, cameras, self._noise(triplane, rays, generator))

    def render_rays(
        self, triplane: Tensor, cameras: Tensor, pixels: Tensor, generator: torch.Generator | None = None
    ) -> RayRender:
        """Render chosen rays.  pixels: (R,) or (B, R), row * resolution + column.  Features in about [0, 1]."""
        noise = self._noise(triplane, pixels.shape[-1], generator)
        return self.renderer.render_rays(triplane, cameras, pixels, noise)

    def query(self, triplane: Tensor, points: Tensor) -> FieldValues:
        """The field at points (B, N, 3), world."""
        sampled = sample_planes(triplane, points, self.renderer.config.rays)
        return FieldValues(*self.renderer.decoder(sampled))

    def _noise(self, triplane: Tensor, rays: int, generator: torch.Generator | None) -> SamplingNoise | None:
        return None if generator is None else self.renderer.volume.noise(len(triplane), rays, generator)


class Live3D(TriplaneModel):
    """The teacher: encoder and renderer."""

    def __init__(self, config: Live3DConfig) -> None:
        super().__init__(config.renderer)
        self.config = config
        self.encoder = Live3DEncoder(config.encoder)

    def encode(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1].  Returns a triplane (B, 3*C, h, w)."""
        return self.encoder(images)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists back into tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
