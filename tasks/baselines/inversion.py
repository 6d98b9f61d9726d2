"""Inversion of a portrait into EG3D: a latent, then the generator tuned around it (PTI), with a symmetry prior (SPI).

PTI: Roich et al. 2022. SPI: Yin et al. 2023. Where the generator has an encoder to w+ (e4e, Tov et al. 2021), the
latent starts there and is optimised in w+; else it starts at the mean and is one w, as PTI's is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_catalog.config.settings import BaselinesSettings
from models.camera import mirror_label, orbit_label, split_label
from models.judges.perceptual import Perceptual
from models.three_d.eg3d import Generator, Inverter, Seen
from models.three_d.live3d import Render
from models.three_d.rendering import sample_rays
from tasks.baselines.protocol import Edited, Networks, Portrait, optimise

MIRROR_WEIGHT = 0.5  # of the mirrored view while the latent is found
WARP_WEIGHT, MIRROR_WARP_WEIGHT, DEPTH_WEIGHT = 0.1, 0.05, 1.0  # SPI's, while the generator is tuned
WARP_YAW = 0.5  # rad, each side, of SPI's pseudo views
DEPTH_TOLERANCE = 0.03  # world units; a point that lies deeper than the surface is hidden


@dataclass(frozen=True)
class Inverted:
    """Generator, its own for the portrait where it was tuned, and the latent (1, styles, W)."""

    generator: Generator
    ws: Tensor

    def edited(self, unedited: Edited | None = None) -> Edited:
        with torch.no_grad():
            return Edited(Seen(self.generator, self.ws), self.generator.planes(self.ws), unedited)


def start(inverter: Inverter, portrait: Portrait) -> Inverted:
    """Start from the latent of the encoder, or from the mean one."""
    generator, encoder = inverter
    w_avg = generator.backbone.mapping.w_avg
    if encoder is None:
        return Inverted(generator, w_avg.expand(1, generator.config.styles, -1))
    with torch.no_grad():
        return Inverted(generator, encoder(portrait.image, w_avg))


def invert(
    inverter: Inverter,
    lpips: Perceptual,
    portrait: Portrait,
    own: BaselinesSettings,
    steps: int,
    mirrored: bool = False,
) -> Inverted:
    """Optimise the latent until the portrait's view is the portrait; `mirrored`: its mirror image counts as well."""
    found = start(inverter, portrait)
    latent = (found.ws[:, :1] if inverter[1] is None else found.ws).clone().requires_grad_()
    image, label, generator = portrait.image, portrait.label, found.generator

    def loss(step: int) -> Tensor:
        ws = latent.expand(-1, generator.config.styles, -1)
        triplane = generator.planes(ws)
        value = distance(lpips, own.lpips_weight, generator.render(triplane, ws, label).image, image)
        if mirrored:
            seen = generator.render(triplane, ws, mirror_label(label))
            value = value + MIRROR_WEIGHT * _mirror_distance(lpips, own, portrait, generator, triplane, ws, seen)
        return value

    optimise([latent], loss, steps, own.invert_rate, "inversion", ramp=True)
    return Inverted(generator, latent.detach().expand(-1, generator.config.styles, -1))


def tune(lpips: Perceptual, portrait: Portrait, own: BaselinesSettings, pivot: Inverted) -> Inverted:
    """PTI: tune a copy of the generator until the pivot's view is the portrait."""
    generator = copy.deepcopy(pivot.generator)
    image, label = portrait.image, portrait.label

    def loss(step: int) -> Tensor:
        triplane = generator.planes(pivot.ws)
        return distance(lpips, own.lpips_weight, generator.render(triplane, pivot.ws, label).image, image)

    _tuning(generator, loss, own.pti_steps, own.tune_rate, "pivotal tuning")
    return Inverted(generator, pivot.ws)


def tune_symmetric(lpips: Perceptual, portrait: Portrait, own: BaselinesSettings, pivot: Inverted) -> Inverted:
    """SPI: tune with pseudo views: portrait and mirror image warped by the pivot's depth, which is kept."""
    generator = copy.deepcopy(pivot.generator)
    image, label, ws = portrait.image, portrait.label, pivot.ws
    flipped, other = image.flip(-1), mirror_label(label)
    with torch.no_grad():
        before = pivot.generator.planes(ws)
        direct, mirror = (pivot.generator.render(before, ws, each) for each in (label, other))
    draw = torch.Generator().manual_seed(portrait.seed)
    yaws = (2 * torch.rand(max(1, own.spi_steps), generator=draw) - 1) * WARP_YAW

    def loss(step: int) -> Tensor:
        triplane = generator.planes(ws)
        value = distance(lpips, own.lpips_weight, generator.render(triplane, ws, label).image, image)
        side = orbit_label(float(yaws[step]), 0.0).to(label)
        seen = generator.render(triplane, ws, side)
        with torch.no_grad():
            still = pivot.generator.render(before, ws, side)
            warped, visible = warp(image, label, direct, still, side)
            mirrored, behind = warp(flipped, other, mirror, still, side)
            behind = behind * (1 - visible)  # the mirror image fills what the portrait hides
        raw = F.interpolate(seen.image, seen.image_raw.shape[-2:], mode="area")
        value = value + WARP_WEIGHT * ((raw - warped).square() * visible).mean()
        value = value + MIRROR_WARP_WEIGHT * ((raw - mirrored).square() * behind).mean()
        return value + DEPTH_WEIGHT * ((seen.depth - still.depth).abs() * (still.opacity > 0.5)).mean()

    _tuning(generator, loss, own.spi_steps, own.tune_rate, "symmetric tuning")
    return Inverted(generator, ws)


def invert_and_tune(networks: Networks, portrait: Portrait, own: BaselinesSettings) -> Inverted:
    """PTI of a portrait, once for all its prompts."""

    def make() -> Inverted:
        assert networks.inverter is not None
        pivot = invert(networks.inverter, networks.lpips, portrait, own, own.invert_steps)
        return tune(networks.lpips, portrait, own, pivot)

    return portrait.once("pti", make)


def invert_symmetric(networks: Networks, portrait: Portrait, own: BaselinesSettings) -> Inverted:
    """SPI of a portrait, once for all its prompts."""

    def make() -> Inverted:
        assert networks.inverter is not None
        pivot = invert(networks.inverter, networks.lpips, portrait, own, own.spi_invert_steps, mirrored=True)
        return tune_symmetric(networks.lpips, portrait, own, pivot)

    return portrait.once("spi", make)


def distance(lpips: Perceptual, weight: float, seen: Tensor, wanted: Tensor) -> Tensor:
    """PTI's reconstruction loss, LPIPS and L2.  weight: of LPIPS.  seen, wanted: (B, 3, H, W) in [-1, 1]."""
    return weight * lpips(seen, wanted).mean() + (seen - wanted).square().mean()


def warp(image: Tensor, label: Tensor, source: Render, target: Render, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Move a picture's colours to another camera by the depth seen from there.

    image: (1, 3, H, W), from the camera `label` (1, 25), which saw `source`.  target: seen from `camera` (1, 25).
    Returns colours (1, 3, h, h), and (1, 1, h, h): 1 where the source saw that point, else 0.
    """
    size = target.depth.shape[-1]
    origins, directions = sample_rays(camera, size)
    points = origins + target.depth.flatten(2).transpose(1, 2) * directions
    cam2world, intrinsics = split_label(label)
    offset = points - cam2world[:, None, :3, 3]
    local = offset @ cam2world[:, :3, :3]
    flat = local @ intrinsics.to(local).transpose(1, 2)
    places = (flat[..., :2] / flat[..., 2:].clamp_min(1e-6) * 2 - 1).view(1, size, size, 2)
    colours = F.grid_sample(image, places, align_corners=False)
    depth = F.grid_sample(source.depth, places, align_corners=False)
    reached = offset.norm(dim=-1).view(1, 1, size, size)
    inside = (places.abs() <= 1).all(dim=-1)[:, None] & (target.opacity > 0.5)
    return colours, (inside & (reached < depth + DEPTH_TOLERANCE)).float()


def _mirror_distance(
    lpips: Perceptual,
    own: BaselinesSettings,
    portrait: Portrait,
    generator: Generator,
    triplane: Tensor,
    ws: Tensor,
    seen: Render,
) -> Tensor:
    """Measure the distance to the mirror image from its camera, less where portrait and mirror image disagree."""
    image, label = portrait.image, portrait.label
    flipped = image.flip(-1)
    with torch.no_grad():
        direct = generator.render(triplane, ws, label)
        warped, visible = warp(image, label, direct, seen, mirror_label(label))
        small = F.interpolate(flipped, warped.shape[-2:], mode="area")
        conflict = visible * (warped - small).abs().mean(dim=1, keepdim=True).clamp(0, 1)
        weight = F.interpolate(1 - conflict, image.shape[-2:], mode="nearest")
    return distance(lpips, own.lpips_weight, seen.image * weight, flipped * weight)


def _tuning(generator: Generator, loss: Callable[[int], Tensor], steps: int, rate: float, what: str) -> None:
    """Tune all but the mapping."""
    learning = [p.requires_grad_() for name, p in generator.named_parameters() if ".mapping." not in name]
    optimise(learning, loss, steps, rate, what)
    generator.requires_grad_(False)
