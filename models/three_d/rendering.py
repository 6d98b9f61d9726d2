"""Volume rendering of triplanes: rays, features at points, and the two-pass renderer (EG3D, section 4)."""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.camera import split_label
from models.three_d.recompute import again
from models.three_d.stylegan import FullyConnected

# Which two world coordinates index (column, row) of each plane. EG3D's third plane repeats the second with
# its axes swapped, so nothing sees y and z together; the public checkpoints rely on it.
EG3D_AXES = ((0, 1), (0, 2), (2, 0))
PROPER_AXES = ((0, 1), (0, 2), (2, 1))
PROPOSAL_STRIDE = 2  # of `VolumeRenderer.look`: the first pass has one ray for this many rows and columns
# Samples of all rays that are rendered together: a processor's cache holds as many; a GPU is busy with as many, and the
# gradients of a part's planes, which are as large for few rays as for many, are written less often.
SAMPLES_AT_ONCE = {"cpu": 2**17}
SAMPLES_AT_ONCE_ON_GPU = 2**21
WEIGHS_NOTHING = 1e-4  # share of a ray's colour; a dozen such samples change it by less than 8 bits show
POINTS_AT_ONCE = 2**16  # points sampled together; more would not fit a processor's cache


@dataclass(frozen=True)
class RayOptions:
    """Sampling of rays; distances in world units along the unit ray."""

    coarse_samples: int = 48
    fine_samples: int = 48
    ray_start: float = 2.25
    ray_end: float = 3.3
    box_warp: float = 1.0  # side of the box that the planes cover
    proper_axes: bool = False  # Live3D's `lpff_projection`
    empty_below: float = 0.0  # above 0, images are rendered by `VolumeRenderer.look`; rays of less opacity are empty


class SamplingNoise(NamedTuple):
    """The random numbers of one rendering, uniform in [0, 1); R rays."""

    jitter: Tensor  # (B, R, coarse_samples): place of each coarse sample in its bin
    quantile: Tensor  # (B, R, fine_samples): where the coarse distribution is inverted


class RayRender(NamedTuple):
    """Rendered rays; R of them."""

    features: Tensor  # (B, R, F) in about [0, 1]; the first three are rgb
    depth: Tensor  # (B, R) world units along the ray
    opacity: Tensor  # (B, R) in [0, 1]


def samples_at_once(tensor: Tensor) -> int:
    """Return the samples that are rendered together on a tensor's device."""
    return SAMPLES_AT_ONCE.get(tensor.device.type, SAMPLES_AT_ONCE_ON_GPU)


def sample_rays(labels: Tensor, resolution: int, pixels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rays through pixel centres, index = row * resolution + column.

    labels: (B, 25).  pixels: (B, R) or (R,) ray indices, all of them when None.
    Returns origins and unit directions, (B, R, 3), world.
    """
    # Invert the intrinsics at the pixel centres, with skew.
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
    # Through the world point, as in EG3D: importance sampling magnifies a different rounding a hundredfold.
    in_world = torch.bmm(cam2world, in_camera.permute(0, 2, 1)).permute(0, 2, 1)[..., :3]
    origins = cam2world[:, None, :3, 3].expand_as(in_world)
    return origins, F.normalize(in_world - origins, dim=-1)


def sample_planes(triplane: Tensor, points: Tensor, options: RayOptions) -> Tensor:
    """Mean over the three planes of their bilinear features at points; zero outside a plane.

    triplane: (B, 3*C, H, W), plane p owns channels p*C..p*C+C-1.  points: (B, N, 3), world.
    Returns (B, N, C).  No gradient reaches the points: computing it would double the cost of training.
    """
    batch, channels, height, width = triplane.shape
    if triplane.device.type == "cpu":
        return cast(Tensor, _PlaneSamples.apply(triplane, points, options))
    with torch.no_grad():
        axes = PROPER_AXES if options.proper_axes else EG3D_AXES
        places = (points * (2.0 / options.box_warp)).unbind(-1)
        grid = torch.stack([torch.stack([places[column], places[row]], dim=-1) for column, row in axes], dim=1)
    planes = triplane.reshape(3 * batch, channels // 3, height, width)
    sampled = F.grid_sample(planes, grid.flatten(0, 1)[:, None], align_corners=False)
    return sampled.view(batch, 3, channels // 3, -1).mean(dim=1).transpose(1, 2)


class _PlaneSamples(torch.autograd.Function):
    """Implement `sample_planes` for a CPU in half the time: the features of a place are contiguous in memory.

    Each point is a weighted sum of twelve rows, four corners on each of three planes. Only the points are kept for the
    backward pass.
    """

    @staticmethod
    def forward(ctx: Any, triplane: Tensor, points: Tensor, options: RayOptions) -> Tensor:
        """triplane: (B, 3*C, H, W).  points: (B, N, 3).  Returns (B, N, C)."""
        ctx.save_for_backward(points)
        ctx.shape, ctx.options = triplane.shape, options
        # One row of channels a pixel: (B, 3 * H * W, C).
        rows = triplane.unflatten(1, (3, -1)).movedim(2, -1).flatten(1, 3).contiguous()
        together = max(1, POINTS_AT_ONCE // points.shape[1])
        sampled = []
        # Sum the rows around each point, a cache's worth of points at a time.
        for tables, own in zip(rows.split(together), points.split(together), strict=True):
            corners, shares = _corners(own, triplane.shape, options)
            corners += torch.arange(len(tables), dtype=torch.int32)[:, None] * tables.shape[1]
            bags, weights = (part.flatten(1).T.contiguous() for part in (corners, shares.to(tables)))
            sampled.append(F.embedding_bag(bags, tables.flatten(0, 1), per_sample_weights=weights, mode="sum"))
        return torch.cat(sampled).view(*points.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """gradients: one (B, N, C)."""
        (points,), (batch, channels, height, width) = ctx.saved_tensors, ctx.shape
        rows = gradients[0].new_zeros(batch, 3 * height * width, channels // 3)
        together = max(1, POINTS_AT_ONCE // points.shape[1])
        # Scatter each point's gradient back to its twelve rows.
        for first in range(0, batch, together):
            chosen = slice(first, first + together)
            corners, shares = _corners(points[chosen], ctx.shape, ctx.options)
            own = zip(rows[chosen], gradients[0][chosen], corners.long().unbind(1), shares.unbind(1), strict=True)
            for table, gradient, places, parts in own:
                for place, part in zip(places, parts, strict=True):
                    table.index_add_(0, place, gradient * part[:, None])
        planes = rows.unflatten(1, (3, height, width)).movedim(-1, 2)
        return planes.reshape(batch, channels, height, width), None, None


def _corners(points: Tensor, shape: torch.Size, options: RayOptions) -> tuple[Tensor, Tensor]:
    """Return the rows around each point, (12, B, N) int32, and their weights (12, B, N).

    Rows are numbered row by row and plane by plane. Weights are a third of the bilinear ones, zero outside.
    points: (B, N, 3), world.
    """
    height, width = shape[2:]
    places = (points * (2.0 / options.box_warp)).movedim(-1, 0)
    across, down = zip(*(PROPER_AXES if options.proper_axes else EG3D_AXES), strict=True)
    x, share_x = _sides(places[list(across)], width)
    y, share_y = _sides(places[list(down)], height)
    plane = torch.arange(3, dtype=torch.int32).view(3, 1, 1, 1, 1) * (height * width)
    corners = (y[:, :, None] * width + x[:, None]).int() + plane  # (3, 2, 2, B, N): plane, row, column
    shares = share_x[:, None] * share_y[:, :, None] / 3
    return corners.flatten(0, 2), shares.flatten(0, 2)


def _sides(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the two pixels beside each place, and their bilinear weights, both (3, 2, B, N).

    places: (3, B, N) in [-1, 1] along an edge of `size` pixels. Weights outside the edge are zero.
    """
    along = (places + 1) * (size / 2) - 0.5
    first = along.floor()
    pixels, share = torch.stack([first, first + 1], dim=1), along - first
    inside = (pixels >= 0) & (pixels < size)
    return pixels.clamp(0, size - 1), torch.stack([1 - share, share], dim=1) * inside


class TriplaneDecoder(nn.Module):
    """Density and colour features from a point's mean plane features (EG3D's OSG decoder).

    `density_gain` scales the raw density; above 1 a surface can become sharp within a short training.
    """

    def __init__(self, channels: int, hidden: int, features: int, density_gain: float = 1.0) -> None:
        super().__init__()
        self.density_gain, self.features = density_gain, features
        to_outputs = FullyConnected(hidden, 1 + features)
        self.net = nn.Sequential(FullyConnected(channels, hidden), nn.Softplus(), to_outputs)
        with torch.no_grad():  # Softplus is positive: uncentred, a scene would start as all fog or all empty
            to_outputs.weight[0] -= to_outputs.weight[0].mean()

    def forward(self, plane_features: Tensor) -> tuple[Tensor, Tensor]:
        """plane_features: (B, N, C). Returns features (B, N, F) in about [0, 1] and raw density (B, N, 1)."""
        return self.split(self.net(plane_features))

    def split(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """decoded: (..., 1 + F), the network's output.  Returns features (..., F) and raw density (..., 1)."""
        return _bounded(decoded[..., 1:]), decoded[..., :1] * self.density_gain

    def hidden(self, plane_features: Tensor) -> Tensor:
        """plane_features: (..., C).  Returns (..., hidden), from which density and features follow apart."""
        return cast(Tensor, self.net[:2](plane_features))

    def density(self, hidden: Tensor) -> Tensor:
        """hidden: (..., hidden).  Returns raw density (...)."""
        weight, bias = cast(FullyConnected, self.net[2]).scaled()
        return F.linear(hidden, weight[:1], bias[:1])[..., 0] * self.density_gain

    def features_of(self, hidden: Tensor) -> Tensor:
        """hidden: (..., hidden).  Returns features (..., F) in about [0, 1]."""
        weight, bias = cast(FullyConnected, self.net[2]).scaled()
        return _bounded(F.linear(hidden, weight[1:], bias[1:]))


def _bounded(raw: Tensor) -> Tensor:
    return torch.sigmoid(raw) * 1.002 - 0.001


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
        views, rays = self._together(origins)
        if (views, rays) == tuple(origins.shape[:2]):
            return self._render(triplane, decoder, origins, directions, noise)
        # Many samples are rendered in parts, which a backward pass computes again: memory stays bounded.
        rendered = []
        for first in range(0, len(origins), views):
            few = slice(first, first + views)
            planes, seen = triplane[few], []
            for start in range(0, origins.shape[1], rays):
                some = few, slice(start, start + rays)
                own = None if noise is None else SamplingNoise(*(part[some] for part in noise))
                given = (planes, decoder, origins[some], directions[some], own)
                seen.append(again(self._render, *given) if torch.is_grad_enabled() else self._render(*given))
            rendered.append(RayRender(*(torch.cat(values, dim=1) for values in zip(*seen, strict=True))))
        return RayRender(*(torch.cat(values) for values in zip(*rendered, strict=True)))

    def _together(self, origins: Tensor) -> tuple[int, int]:
        """Return the numbers of views and of rays of each that are rendered together.  origins: (B, R, 3)."""
        count, rays = origins.shape[:2]
        most = samples_at_once(origins) // (self.options.coarse_samples + self.options.fine_samples)
        return (min(count, most // rays), rays) if most >= rays else (1, max(1, most))

    def _render(
        self, triplane: Tensor, decoder: TriplaneDecoder, origins: Tensor, directions: Tensor,
        noise: SamplingNoise | None,
    ) -> RayRender:  # fmt: skip
        """Render rays together, in one piece."""
        # First pass: evenly spaced samples.
        depths = self._coarse_depths(origins, None if noise is None else noise.jitter)
        decoded = self._decode(triplane, decoder, origins, directions, depths)
        # Second pass: as many samples again, where the first ones found matter.
        if self.options.fine_samples:
            with torch.no_grad():
                weights, _ = _march(depths, decoder.split(decoded)[1][..., 0])
                fine = self._fine_depths(depths, weights, None if noise is None else noise.quantile)
            more = self._decode(triplane, decoder, origins, directions, fine)
            depths, decoded = torch.cat([depths, fine], dim=-1), torch.cat([decoded, more], dim=-2)
        # Blend all samples, front to back.
        features, density = decoder.split(decoded)
        return _composite(depths, features, density[..., 0])

    def look(self, triplane: Tensor, decoder: TriplaneDecoder, cameras: Tensor, resolution: int) -> RayRender:
        """Render whole images in half the time of `forward`, at its quality.  cameras: (B, 25).  No gradients.

        The first pass renders a quarter of the rays. Its weights are interpolated to all rays and place their samples.
        Half the rays of a portrait miss the head; those take no samples.
        """
        size = resolution // PROPOSAL_STRIDE
        with torch.no_grad():
            # Propose: weights along a quarter of the rays.
            origins, directions = sample_rays(cameras, size)
            depths = self._coarse_depths(origins, None)
            density = decoder.density(decoder.hidden(self._sample(triplane, origins, directions, depths)))
            weights = _march(depths, density)[0].transpose(1, 2).unflatten(-1, (size, size))
            # Interpolate the proposal to all rays.
            weights = F.interpolate(weights, size=(resolution, resolution), mode="bilinear", align_corners=False)
            origins, directions = sample_rays(cameras, resolution)
            weights = weights.flatten(2).transpose(1, 2)
            # Sample each ray where its proposal found matter.
            seen = [
                self._look_again(triplane[i : i + 1], decoder, origins[i], directions[i], weights[i], depths[0, 0])
                for i in range(len(triplane))
            ]
        return RayRender(*(torch.stack(values) for values in zip(*seen, strict=True)))

    def _look_again(
        self, triplane: Tensor, decoder: TriplaneDecoder, origins: Tensor, directions: Tensor, weights: Tensor,
        depths: Tensor,
    ) -> RayRender:  # fmt: skip
        """Render one image of R rays.  weights: (R, S-1), proposed between the depths (S,)."""
        opacity = weights.sum(-1)
        depth = weights @ (0.5 * (depths[1:] + depths[:-1])) / opacity.clamp_min(1e-12)
        features = origins.new_zeros(len(opacity), decoder.features)
        hit = (opacity >= self.options.empty_below).nonzero()[:, 0]
        opacity = torch.zeros_like(opacity)
        if len(hit):
            # Sample the fine depths of rays that hit something, density first.
            fine = self._fine_depths(depths.expand(1, len(hit), -1), weights[None, hit], None)
            hidden = decoder.hidden(self._sample(triplane, origins[None, hit], directions[None, hit], fine))
            shares, depth[hit], opacity[hit] = _shares(fine, decoder.density(hidden))
            # Decode colours only for samples that count.
            ray, sample = (shares[0] > WEIGHS_NOTHING).nonzero().unbind(-1)
            coloured = decoder.features_of(hidden[0, ray, sample]) * shares[0, ray, sample, None]
            features.index_add_(0, hit[ray], coloured)
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
        """Decode at depths (B, R, S), in parts that fit a cache. Returns (B, R, S, 1 + F)."""
        rays = max(1, samples_at_once(depths) * depths.shape[1] // depths.numel())
        parts = zip(origins.split(rays, 1), directions.split(rays, 1), depths.split(rays, 1), strict=True)
        decoded = [decoder.net(self._sample(triplane, *part)) for part in parts]
        return decoded[0] if len(decoded) == 1 else torch.cat(decoded, dim=1)

    def _sample(self, triplane: Tensor, origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
        """Plane features (B, R, S, C) at depths (B, R, S)."""
        points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
        return sample_planes(triplane, points.flatten(1, 2), self.options).unflatten(1, depths.shape[1:])

    def _fine_depths(self, depths: Tensor, weights: Tensor, quantile: Tensor | None) -> Tensor:
        """Invert the smoothed distribution of the coarse weights.

        depths: (B, R, S) ascending.  weights: (B, R, S-1).  quantile: (B, R, K) in [0, 1).  Returns (B, R,
        K).
        """
        smooth = F.max_pool1d(weights, 2, stride=1, padding=1)
        smooth = F.avg_pool1d(smooth, 2, stride=1)[..., 1:-1] + 0.01
        # One bin edge fewer than NeRF's: EG3D never uses the last midpoint, and its weights are tuned to that.
        edges = 0.5 * (depths[..., :-1] + depths[..., 1:])
        # Cumulative distribution along the ray.
        pdf = smooth + 1e-5
        cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), dim=-1)
        cdf = F.pad(cdf, (1, 0))
        if quantile is None:
            count = self.options.fine_samples
            quantile = torch.linspace(0.0, 1.0, count, device=depths.device, dtype=depths.dtype)
            quantile = quantile.expand(*depths.shape[:2], count)
        quantile = quantile.to(cdf).contiguous()
        # Find each quantile's bin, and interpolate linearly inside it.
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
    shares, depth, opacity = _shares(ordered, density.gather(-1, order))
    shares = torch.zeros_like(shares).scatter(-1, order, shares)  # cheaper than sorting the features
    return RayRender((shares[..., None, :] @ features).squeeze(-2), depth, opacity)


def _shares(depths: Tensor, density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the share of each sample in its ray's colour, with the rays' depth and opacity.

    depths: (B, R, S) ascending.  density: (B, R, S) raw.
    Returns shares (B, R, S), depth (B, R) and opacity (B, R).
    """
    weights, middles = _march(depths, density)
    # An interval's colour is the mean of its ends, so each sample weighs half of its two intervals.
    shares = 0.5 * (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0)))
    opacity = weights.sum(-1)
    hit = opacity > 0
    depth = (weights * middles).sum(-1) / torch.where(hit, opacity, torch.ones_like(opacity))
    depth = torch.where(hit, depth, torch.full_like(depth, float("inf")))
    low, high = depths[..., 0].amin().detach(), depths[..., -1].amax().detach()
    return shares, torch.minimum(torch.maximum(depth, low), high), opacity
