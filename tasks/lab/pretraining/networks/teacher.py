"""The embedded teacher: a portrait in any look to a triplane, learned from known depth and views.

First points near the known surface teach the field, which is cheap; then whole views teach the pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.three_d.live3d import EMBEDDED, Live3D
from models.three_d.rendering import sample_rays
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, save_half, to_signed
from tasks.lab.pretraining.pictures import STYLES_PER_PERSON, VIEWS_PER_STYLE, Pictures

BATCH = 8
POINT_PHASE = 0.05  # share of the training that sees points only
RAYS_PER_VIEW = 384
PATCH_RAYS = 16  # side of the patch of a view, in rays
SHELL = 0.04  # world units in front of and behind the surface that point supervision samples
# Of the picture: L1 alone leaves eyes and outlines, which are few and far off, for last.
L1_WEIGHT, L2_WEIGHT = 0.5, 2.0
DEPTH_WEIGHT, OPACITY_WEIGHT, EDGE_WEIGHT, RAW_WEIGHT = 1.0, 0.1, 0.5, 0.5
CHANGED_WEIGHT = 2.0  # extra weight, shared by the pixels that a look changes: ears count as much as a statue
SMALLEST_CHANGE = 0.03  # share of the picture below which a look's pixels gain no more weight
CHANGE = 8 / 255  # of a colour: less is no change


def build(weights: Path) -> nn.Module:
    return Live3D(EMBEDDED)


class _Views:
    """Inputs and targets of one batch: one look of each person, seen by the input camera and one other."""

    def __init__(self, pictures: Pictures, draw: Draw) -> None:
        people = batch_of(pictures, draw, BATCH)
        slot = draw.rng.integers(STYLES_PER_PERSON, size=BATCH)
        view = draw.rng.integers(VIEWS_PER_STYLE, size=BATCH)
        crops = pictures.crops[people, pictures.looks[people, slot]]
        self.portraits = to_signed(crops)
        self.images = torch.cat([self.portraits, to_signed(pictures.views[people, slot, view])])
        plain = [pictures.crops[people, 0], pictures.plain_views[people, view]]
        difference = (self.images - to_signed(np.concatenate(plain))).abs().amax(dim=1, keepdim=True)
        changed = (difference > 2 * CHANGE).float()
        share = changed.mean(dim=(1, 2, 3), keepdim=True).clamp_min(SMALLEST_CHANGE)
        self.weights = (1.0 + CHANGED_WEIGHT * changed / share) / (1.0 + CHANGED_WEIGHT)  # (2B, 1, 64, 64)
        depths = [pictures.crop_depths[people, slot], pictures.depths[people, slot, view]]
        self.depths = torch.from_numpy(np.concatenate(depths)).float()  # (2B, 64, 64)
        cameras = [pictures.crop_cameras[people], pictures.cameras[people, view]]
        self.cameras = torch.from_numpy(np.concatenate(cameras))


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    assert isinstance(network, Live3D)
    views = _Views(pictures, draw)
    triplane = network.encode(views.portraits).float()
    triplane = torch.cat([triplane, triplane])
    with torch.autocast("cpu", enabled=False):
        if draw.progress < POINT_PHASE:
            return _point_loss(network, triplane, views, draw.torch_rng)
        return _view_loss(network, triplane, views, draw.torch_rng)


def _point_loss(
    network: Live3D, triplane: Tensor, views: _Views, rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Colour at the surface; empty before it, full just behind it, empty where a ray meets nothing."""
    size = views.images.shape[-1]
    pixels = torch.randint(size * size, (len(triplane), RAYS_PER_VIEW), generator=rng)
    origins, directions = sample_rays(views.cameras, size, pixels)
    depth = views.depths.flatten(1).gather(1, pixels)
    hit = torch.isfinite(depth)
    free = 2.3 + torch.rand(depth.shape, generator=rng) * (torch.where(hit, depth - 0.02, torch.tensor(3.2)) - 2.3)
    near = torch.where(hit, depth + (torch.rand(depth.shape, generator=rng) * 2 - 1) * SHELL, free)
    surface = torch.where(hit, depth + 0.004, free)
    depths = torch.stack([surface, near, free], dim=-1)
    points = (origins[:, :, None] + depths[..., None] * directions[:, :, None]).flatten(1, 2)
    field = network.query(triplane, points)
    target = torch.stack([hit.float(), (hit & (near > depth)).float(), torch.zeros_like(depth)], dim=-1)
    optical = nn.functional.softplus(field.density.view(target.shape) - 1.0) * SHELL
    solid = (1.0 - torch.exp(-optical)).clamp(1e-5, 1 - 1e-5)
    occupancy = nn.functional.binary_cross_entropy(solid, target)
    colours = views.images.flatten(2).gather(2, pixels[:, None].expand(-1, 3, -1)).transpose(1, 2) / 2 + 0.5
    seen = field.features.view(*depths.shape, -1)[:, :, 0, :3]
    colour = ((seen - colours).abs() * hit[..., None]).mean()
    assert network.renderer.background is not None
    behind = network.renderer.background(triplane, pixels, size)[..., :3]
    backdrop = ((behind - colours).abs() * (~hit)[..., None]).mean()
    return colour + backdrop + 0.5 * occupancy, {
        "colour": colour,
        "backdrop": backdrop,
        "occupancy": occupancy,
    }


def _view_loss(
    network: Live3D, triplane: Tensor, views: _Views, rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 and L2 of a patch of each view; L1 of its gradients, of the raw rendering, of depth; opacity against the mask.

    A patch costs a quarter of the view; the upsampler is convolutional and does not mind.
    """
    resolution = network.config.renderer.resolution
    size = len(triplane)
    row, column = torch.randint(resolution - PATCH_RAYS + 1, (2, size), generator=rng)
    inner = torch.arange(PATCH_RAYS)
    rows, columns = row[:, None] + inner, column[:, None] + inner
    pixels = (rows[:, :, None] * resolution + columns[:, None]).flatten(1)
    rays = network.render_rays(triplane, views.cameras, pixels, rng)
    shape = (size, -1, PATCH_RAYS, PATCH_RAYS)
    features = (rays.features * 2 - 1).transpose(1, 2).reshape(shape)
    style = network.renderer.const.expand(-1, 3, -1)
    _, output = network.renderer.superresolution.get_submodule("block0")(features, features[:, :3], style, "none", None)
    finite = torch.isfinite(views.depths)[:, None].float()
    depths = torch.where(finite > 0, views.depths[:, None], torch.zeros(()))
    known = torch.cat([views.images, finite, depths, views.weights], dim=1)
    target = _patches(known, 2 * row, 2 * column, 2 * PATCH_RAYS)
    coarse = nn.functional.avg_pool2d(target, 2)
    picture, weight = target[:, :3], target[:, 5:]
    difference = (output - picture).abs()
    image = ((L1_WEIGHT * difference + L2_WEIGHT * difference.square()) * weight).mean()
    across = (output.diff(dim=-1) - picture.diff(dim=-1)).abs() * weight[..., 1:]
    down = (output.diff(dim=-2) - picture.diff(dim=-2)).abs() * weight[..., 1:, :]
    edges = across.mean() + down.mean()
    raw = ((features[:, :3] - coarse[:, :3]).abs() * coarse[:, 5:]).mean()
    inside = (coarse[:, 3:4] == 1).float()
    depth = ((rays.depth.view(shape) - coarse[:, 4:5]).abs() * inside).sum() / inside.sum().clamp_min(1)
    opacity = nn.functional.binary_cross_entropy(rays.opacity.view(shape).clamp(1e-4, 1 - 1e-4), coarse[:, 3:4])
    value = image + EDGE_WEIGHT * edges + RAW_WEIGHT * raw + DEPTH_WEIGHT * depth + OPACITY_WEIGHT * opacity
    return value, {"image": image, "raw": raw, "depth": depth, "opacity": opacity}


def _patches(images: Tensor, row: Tensor, column: Tensor, size: int) -> Tensor:
    """(B, C, size, size): one window of each image (B, C, H, W), corners (B,)."""
    inner = torch.arange(size)
    batch = torch.arange(len(images))[:, None, None]
    return images[batch, :, (row[:, None] + inner)[:, :, None], (column[:, None] + inner)[:, None]].permute(0, 3, 1, 2)


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, Live3D)
    target = folder / "teacher"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(network.config.to_dict(), indent=1))
    save_half(network, target / "teacher.safetensors")


RECIPE = Recipe(
    "teacher", steps=15000, lr=4e-3, build=build, loss=loss, save=save, bfloat16=True, ema=0.995,
    optimizer="muon",
)  # fmt: skip
