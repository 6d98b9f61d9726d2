"""Volume rendering of triplanes: rays, features at points, and the two-pass renderer (EG3D, section 4)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.camera import split_label
from models.stylegan import FullyConnected

# Which two world coordinates index (column, row) of each plane. EG3D's third plane repeats the second with
# its axes swapped, so nothing sees y and z together; the public checkpoints rely on it.
EG3D_AXES = ((0, 1), (0, 2), (2, 0))
PROPER_AXES = ((0, 1), (0, 2), (2, 1))


@dataclass(frozen=True)
class RayOptions:
    """How rays are sampled; distances in world units along the unit ray."""

    coarse_samples: int = 48
    fine_samples: int = 48
    ray_start: float = 2.25
    ray_end: float = 3.3
    box_warp: float = 1.0  # side of the box that the planes cover
    proper_axes: bool = False  # Live3D's `lpff_projection`
    empty_below: float = 0.0  # without gradients, rays of less coarse opacity are not looked at again


class SamplingNoise(NamedTuple):
    """The random numbers of one rendering, uniform in [0, 1); R rays."""

    jitter: Tensor  # (B, R, coarse_samples): place of each coarse sample in its bin
    quantile: Tensor  # (B, R, fine_samples): where the coarse distribution is inverted


class RayRender(NamedTuple):
    """What R rays see."""

    features: Tensor  # (B, R, F) in about [0, 1]; the first three are rgb
    depth: Tensor  # (B, R) world units along the ray
    opacity: Tensor  # (B, R) in [0, 1]


def sample_rays(labels: Tensor, resolution: int, pixels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rays through pixel centres, index = row * resolution + column.

    labels: (B, 25).  pixels: (B, R) or (R,) ray indices, all of them when None.
    Returns origins and unit directions, (B, R, 3), world.
    """
    cam2world, intrinsic = split_label(labels)
    if pixels is None:
        pixels = torch.arange(resolution * resolution, device=labels.device)
    pixels = pixels.expand(len(labels), pixels.shape[-1])
    u = (pixels % resolution + 0.5) / resolution
    v = (torch.div(pixels, resolution, rounding_mode="floor") + 0.5) / resolution
    fx, fy = intrinsic[:, 0, 0, None], intrinsic[:, 1, 1, None]
    cx, cy, skew = intrinsic[:, 0, 2, None], intrinsic[:, 1, 2, None], intrinsic[:, 0, 1, None]
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    y = (v - cy) / fy
    in_camera = torch.stack([x, y, torch.ones_like(x), torch.ones_like(x)], dim=-1)
    # By way of the world point, as EG3D goes: importance sampling magnifies a different rounding a hundredfold.
    in_world = torch.bmm(cam2world, in_camera.permute(0, 2, 1)).permute(0, 2, 1)[..., :3]
    origins = cam2world[:, None, :3, 3].expand_as(in_world)
    return origins, F.normalize(in_world - origins, dim=-1)


def sample_planes(triplane: Tensor, points: Tensor, options: RayOptions) -> Tensor:
    """Mean over the three planes of their bilinear features at points; zero outside a plane.

    triplane: (B, 3*C, H, W), plane p owns channels p*C..p*C+C-1.  points: (B, N, 3), world.
    Returns (B, N, C).  No gradient reaches the points: computing it would double the cost of training.
    """
    batch, channels, height, width = triplane.shape
    with torch.no_grad():
        axes = PROPER_AXES if options.proper_axes else EG3D_AXES
        places = (points * (2.0 / options.box_warp)).unbind(-1)
        grid = torch.stack([torch.stack([places[column], places[row]], dim=-1) for column, row in axes], dim=1)
    planes = triplane.reshape(3 * batch, channels // 3, height, width)
    sampled = F.grid_sample(planes, grid.flatten(0, 1)[:, None], align_corners=False)
    return sampled.view(batch, 3, channels // 3, -1).mean(dim=1).transpose(1, 2)


class TriplaneDecoder(nn.Module):
    """Density and colour features from a point's mean plane features (EG3D's OSG decoder).

    `density_gain` scales the raw density; above 1 a surface can become sharp within a short training.
    """

    def __init__(self, channels: int, hidden: int, features: int, density_gain: float = 1.0) -> None:
        super().__init__()
        self.density_gain = density_gain
        to_outputs = FullyConnected(hidden, 1 + features)
        self.net = nn.Sequential(FullyConnected(channels, hidden), nn.Softplus(), to_outputs)
        with torch.no_grad():  # Softplus is positive: uncentred, a scene starts as all fog or all nothing
            to_outputs.weight[0] -= to_outputs.weight[0].mean()

    def forward(self, plane_features: Tensor) -> tuple[Tensor, Tensor]:
        """plane_features: (B, N, C). Returns features (B, N, F) in about [0, 1] and raw density (B, N, 1)."""
        return self.split(self.net(plane_features))

    def split(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """decoded: (..., 1 + F), the network's output.  Returns features (..., F) and raw density (..., 1)."""
        return torch.sigmoid(decoded[..., 1:]) * 1.002 - 0.001, self.density(decoded)

    def density(self, decoded: Tensor) -> Tensor:
        """decoded: (..., 1 + F).  Returns raw density (..., 1)."""
        return decoded[..., :1] * self.density_gain


class VolumeRenderer(nn.Module):
    """Two-pass renderer: evenly spaced samples, then as many where the first ones found matter (EG3D, Mip-NeRF)."""

    def __init__(self, options: RayOptions) -> None:
        super().__init__()
        self.options = options

    def noise(self, batch: int, rays: int, generator: torch.Generator) -> SamplingNoise:
        """Fresh random numbers for one rendering, on the generator's device."""
        shape, device = (batch, rays), generator.device
        jitter = torch.rand(*shape, self.options.coarse_samples, generator=generator, device=device)
        return SamplingNoise(jitter, torch.rand(*shape, self.options.fine_samples, generator=generator, device=device))

    def forward(
        self,
        triplane: Tensor,
        decoder: TriplaneDecoder,
        origins: Tensor,
        directions: Tensor,
        noise: SamplingNoise | None = None,
    ) -> RayRender:
        """triplane: (B, 3*C, H, W).  origins, directions: (B, R, 3), world. Without noise, bin midpoints are used."""
        if self.options.empty_below > 0 and noise is None and not torch.is_grad_enabled():
            parts = zip(triplane.split(1), origins.split(1), directions.split(1), strict=True)
            seen = [self._skip_empty(planes, decoder, start, way) for planes, start, way in parts]
            return RayRender(*(torch.cat(values) for values in zip(*seen, strict=True)))
        depths = self._coarse_depths(origins, None if noise is None else noise.jitter)
        decoded = self._decode(triplane, decoder, origins, directions, depths)
        if self.options.fine_samples:
            with torch.no_grad():
                weights, _ = _march(depths, decoder.density(decoded)[..., 0])
                fine = self._fine_depths(depths, weights, None if noise is None else noise.quantile)
            more = self._decode(triplane, decoder, origins, directions, fine)
            depths, decoded = torch.cat([depths, fine], dim=-1), torch.cat([decoded, more], dim=-2)
        features, density = decoder.split(decoded)
        return _composite(depths, features, density[..., 0])

    def _skip_empty(self, triplane: Tensor, decoder: TriplaneDecoder, origins: Tensor, directions: Tensor) -> RayRender:
        """One image.  Half the rays of a portrait pass the head: those see neither fine samples nor colours."""
        depths = self._coarse_depths(origins, None)
        decoded = self._decode(triplane, decoder, origins, directions, depths)
        weights, middles = _march(depths, decoder.density(decoded)[..., 0])
        opacity = weights.sum(-1)
        depth = (weights * middles).sum(-1) / opacity.clamp_min(1e-12)
        features = origins.new_zeros(*opacity.shape, decoded.shape[-1] - 1)
        hit = (opacity[0] >= self.options.empty_below).nonzero()[:, 0]
        if len(hit):
            depths, decoded, weights = depths[:, hit], decoded[:, hit], weights[:, hit]
            fine = self._fine_depths(depths, weights, None)
            more = self._decode(triplane, decoder, origins[:, hit], directions[:, hit], fine)
            values, density = decoder.split(torch.cat([decoded, more], dim=-2))
            seen = _composite(torch.cat([depths, fine], dim=-1), values, density[..., 0])
            features[:, hit], depth[:, hit], opacity[:, hit] = seen
        return RayRender(features, depth, opacity)

    def _coarse_depths(self, origins: Tensor, jitter: Tensor | None) -> Tensor:
        """(B, R, S): linspace plus a share of one step; the last sample may pass `ray_end`, as in EG3D."""
        options = self.options
        count = options.coarse_samples
        grid = torch.linspace(options.ray_start, options.ray_end, count, device=origins.device, dtype=origins.dtype)
        step = (options.ray_end - options.ray_start) / (count - 1)
        grid = grid.expand(*origins.shape[:2], count)
        return grid + (0.5 * step if jitter is None else jitter.to(grid) * step)

    def _decode(
        self, triplane: Tensor, decoder: TriplaneDecoder, origins: Tensor, directions: Tensor, depths: Tensor
    ) -> Tensor:
        """The decoder's output (B, R, S, 1 + F) at depths (B, R, S)."""
        points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
        sampled = sample_planes(triplane, points.flatten(1, 2), self.options)
        return decoder.net(sampled).view(*depths.shape, -1)

    def _fine_depths(self, depths: Tensor, weights: Tensor, quantile: Tensor | None) -> Tensor:
        """Invert the smoothed distribution of the coarse weights.

        depths: (B, R, S) ascending.  weights: (B, R, S-1).  quantile: (B, R, K) in [0, 1).  Returns (B, R,
        K).
        """
        smooth = F.max_pool1d(weights, 2, stride=1, padding=1)
        smooth = F.avg_pool1d(smooth, 2, stride=1)[..., 1:-1] + 0.01
        # One bin edge fewer than a NeRF has: EG3D never uses the last midpoint, and its weights are tuned to that.
        edges = 0.5 * (depths[..., :-1] + depths[..., 1:])
        pdf = smooth + 1e-5
        cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), dim=-1)
        cdf = F.pad(cdf, (1, 0))
        if quantile is None:
            count = self.options.fine_samples
            quantile = torch.linspace(0.0, 1.0, count, device=depths.device, dtype=depths.dtype)
            quantile = quantile.expand(*depths.shape[:2], count)
        quantile = quantile.to(cdf).contiguous()
        above = torch.searchsorted(cdf, quantile, right=True)
        below = (above - 1).clamp_min(0)
        above = above.clamp_max(cdf.shape[-1] - 1)
        cdf_below, edge_below = cdf.gather(-1, below), edges.gather(-1, below)
        width = cdf.gather(-1, above) - cdf_below
        width = torch.where(width < 1e-5, torch.ones_like(width), width)
        return edge_below + (quantile - cdf_below) / width * (edges.gather(-1, above) - edge_below)


def _march(depths: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, R, S-1) and middles (B, R, S-1) of the intervals between ascending samples (B, R, S)."""
    delta = depths[..., 1:] - depths[..., :-1]
    sigma = F.softplus(0.5 * (density[..., :-1] + density[..., 1:]) - 1.0)
    alpha = 1.0 - torch.exp(-sigma * delta)
    passed = torch.cumprod(1.0 - alpha + 1e-10, dim=-1)
    transmittance = F.pad(passed[..., :-1], (1, 0), value=1.0)
    return alpha * transmittance, 0.5 * (depths[..., :-1] + depths[..., 1:])


def _composite(depths: Tensor, features: Tensor, density: Tensor) -> RayRender:
    """Blend samples in any order; depths, density (B, R, S), features (B, R, S, F)."""
    ordered, order = torch.sort(depths, dim=-1)
    weights, middles = _march(ordered, density.gather(-1, order))
    # An interval's colour is the mean of its ends, so each sample weighs half of its two intervals. Moving
    # these weights back to the samples' own order saves sorting the features.
    per_sample = 0.5 * (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0)))
    per_sample = torch.zeros_like(per_sample).scatter(-1, order, per_sample)
    blended = (per_sample[..., None, :] @ features).squeeze(-2)
    opacity = weights.sum(-1)
    hit = opacity > 0
    depth = (weights * middles).sum(-1) / torch.where(hit, opacity, torch.ones_like(opacity))
    depth = torch.where(hit, depth, torch.full_like(depth, float("inf")))
    low, high = ordered[..., 0].amin().detach(), ordered[..., -1].amax().detach()
    return RayRender(blended, torch.minimum(torch.maximum(depth, low), high), opacity)
