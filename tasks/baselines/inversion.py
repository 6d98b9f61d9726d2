"""Inversion of a portrait into EG3D: a latent, then the generator tuned around it (PTI), with a symmetry prior (SPI).

PTI: Roich et al. 2022, without its locality term, which SPI leaves out on EG3D. SPI: Yin et al. 2023, with LPIPS in the
place of its contextual loss. Here L2 counts beside LPIPS from the first step on, and no noise map is optimised. Where
the generator has an encoder to w+ (e4e, Tov et al. 2021), the latent starts there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_catalog.config.settings import BaselinesSettings
from models.camera import mirror_label, orbit_angles, orbit_label, project, split_label
from models.judges.perceptual import Perceptual
from models.three_d.eg3d import Generator, Inverter, Seen
from models.three_d.live3d import Render
from models.three_d.rendering import sample_rays
from tasks.baselines.protocol import Edited, Networks, Portrait, optimise, step_draw

LATENTS = 600  # whose mean the search without an encoder starts from
NOISE, NOISE_UNTIL = 0.05, 0.75  # of that search: share of their deviation at first, and the part of the steps with any
FRONT_YAW = 0.2  # rad; a portrait nearer to the front has no mirrored view in SPI
BELL_YAW, BELL = 0.29, 2.7  # of the weight of that view
WARP_WEIGHT, MIRROR_WARP_WEIGHT, DEPTH_WEIGHT = 0.1, 0.05, 1.0  # SPI's, while the generator is tuned
# Ranges of SPI's pseudo views, rad: around the portrait's camera and the mirrored one, and around the front.
NEAR_YAW, NEAR_PITCH, WIDE_YAW, WIDE_PITCH = 0.2, 0.1, 0.7, 0.2
DEPTH_TOLERANCE = 0.05  # world units between two depths of one point; farther apart, one of them hides it


@dataclass(frozen=True)
class Inverted:
    """Generator, its own for the portrait where it was tuned, and the latent (1, styles, W)."""

    generator: Generator
    ws: Tensor

    def edited(self, unedited: Edited | None = None) -> Edited:
        with torch.no_grad():
            return Edited(Seen(self.generator, self.ws), self.generator.planes(self.ws), unedited)


def start(inverter: Inverter, portrait: Portrait) -> tuple[Inverted, float]:
    """Start from the latent of the encoder, else from the mean of the generator's at the portrait's camera.

    The number is the deviation of the latents, 0 with an encoder: there is no search to do.
    """
    generator, encoder = inverter
    mapping = generator.backbone.mapping
    with torch.no_grad():
        if encoder is not None:
            return Inverted(generator, encoder(portrait.image, mapping.w_avg)), 0.0
        label = portrait.label.expand(LATENTS, -1)
        noise = torch.randn(LATENTS, generator.config.noise_size, generator=step_draw(portrait.seed, 0))
        latents = mapping(noise.to(label), label)[:, 0]
        mean = latents.mean(dim=0)
        deviation = float((latents - mean).square().sum(dim=1).mean().sqrt())
    return Inverted(generator, mean.expand(1, generator.config.styles, -1)), deviation


def invert(
    inverter: Inverter,
    lpips: Perceptual,
    portrait: Portrait,
    own: BaselinesSettings,
    steps: int,
    mirrored: bool = False,
) -> Inverted:
    """Optimise the latent until the portrait's view is the portrait; `mirrored`: its mirror image counts as well.

    Without an encoder PTI's is one w for all layers, and SPI's, which is mirrored, has one for each.
    """
    found, deviation = start(inverter, portrait)
    latent = (found.ws if inverter[1] is not None or mirrored else found.ws[:, :1]).clone().requires_grad_()
    image, label, generator = portrait.image, portrait.label, found.generator
    other = mirror_weight(label) if mirrored else 0.0
    draw = step_draw(portrait.seed, 1)

    def loss(step: int) -> Tensor:
        searching = NOISE * deviation * max(0.0, 1.0 - step / steps / NOISE_UNTIL) ** 2
        moved = latent + searching * torch.randn(latent.shape, generator=draw).to(latent)
        ws = moved.expand(-1, generator.config.styles, -1)
        triplane = generator.planes(ws)
        value = distance(lpips, own.lpips_weight, generator.render(triplane, ws, label).image, image)
        if other > 0.0:
            seen = generator.render(triplane, ws, mirror_label(label)).image
            value = value + other * distance(lpips, own.lpips_weight, seen, image.flip(-1))
        return value

    optimise([latent], loss, steps, own.invert_rate, "inversion", ramp=True)
    return Inverted(generator, latent.detach().expand(-1, generator.config.styles, -1))


def mirror_weight(label: Tensor) -> float:
    """SPI's weight of the mirrored view: none from the front, where it shows nothing new; near 1/2 from the side.

    label: (1, 25).
    """
    yaw = abs(float(orbit_angles(label)[0]))
    bell = math.exp(-0.5 * (yaw / BELL_YAW) ** 2) / (BELL_YAW * math.sqrt(2 * math.pi))
    return 0.0 if yaw < FRONT_YAW else (1 - bell / BELL) / 2


def tune(lpips: Perceptual, portrait: Portrait, own: BaselinesSettings, pivot: Inverted) -> Inverted:
    """PTI: tune a copy of the generator until the pivot's view is the portrait."""
    generator = copy.deepcopy(pivot.generator)
    image, label = portrait.image, portrait.label

    def loss(step: int) -> Tensor | None:
        seen = generator.render(generator.planes(pivot.ws), pivot.ws, label).image
        return _unless_near(lpips, own, seen, image, own.pti_enough)

    _tuning(generator, loss, own.pti_steps, own.tune_rate, "pivotal tuning")
    return Inverted(generator, pivot.ws)


def tune_symmetric(lpips: Perceptual, portrait: Portrait, own: BaselinesSettings, pivot: Inverted) -> Inverted:
    """SPI: tune with pseudo views: portrait and mirror image warped by the pivot's depth, which is kept."""
    generator = copy.deepcopy(pivot.generator)
    image, label, ws = portrait.image, portrait.label, pivot.ws
    flipped, other = image.flip(-1), mirror_label(label)
    mirrors = mirror_weight(label) > 0.0
    with torch.no_grad():
        before = pivot.generator.planes(ws)
        direct, mirror = (pivot.generator.render(before, ws, each) for each in (label, other))

    def loss(step: int) -> Tensor | None:
        triplane = generator.planes(ws)
        value = _unless_near(lpips, own, generator.render(triplane, ws, label).image, image, own.spi_enough)
        if value is None:
            return None
        side = pseudo_camera(label, step, portrait.seed)
        seen = generator.render(triplane, ws, side)
        with torch.no_grad():
            still = pivot.generator.render(before, ws, side)
            warped, visible = warp(image, label, direct, still, side)
            mirrored, behind = warp(flipped, other, mirror, still, side)
            behind = behind * (1 - visible) * mirrors  # the mirror image fills what the portrait hides
            mirrored = mirrored * behind
        for weight, wanted, mask in ((WARP_WEIGHT, warped, visible), (MIRROR_WARP_WEIGHT, mirrored, behind)):
            value = value + weight * own.lpips_weight * lpips(seen.image * mask, wanted).mean()
        return value + DEPTH_WEIGHT * ((seen.depth - still.depth).square() * (still.opacity > 0.5)).mean()

    _tuning(generator, loss, own.spi_steps, own.tune_rate, "symmetric tuning")
    return Inverted(generator, ws)


def pseudo_camera(label: Tensor, step: int, seed: int) -> Tensor:
    """Draw the camera (1, 25) of a pseudo view: around the portrait's, the mirrored one, and the front, in turn."""
    turn, nod = 2 * torch.rand(2, generator=step_draw(seed, step)) - 1
    if step % 3 == 2:
        return orbit_label(turn * WIDE_YAW, nod * WIDE_PITCH).to(label)
    yaw, pitch = (angle.cpu() for angle in orbit_angles(label if step % 3 == 0 else mirror_label(label)))
    return orbit_label(yaw + turn * NEAR_YAW, pitch + nod * NEAR_PITCH).to(label)


def invert_and_tune(
    networks: Networks, portrait: Portrait, own: BaselinesSettings, symmetric: bool = False
) -> Inverted:
    """PTI of a portrait, or SPI, once for all its prompts."""

    def make() -> Inverted:
        assert networks.inverter is not None
        steps = own.spi_invert_steps if symmetric else own.invert_steps
        pivot = invert(networks.inverter, networks.lpips, portrait, own, steps, mirrored=symmetric)
        return (tune_symmetric if symmetric else tune)(networks.lpips, portrait, own, pivot)

    return portrait.once("spi" if symmetric else "pti", make)


def distance(lpips: Perceptual, weight: float, seen: Tensor, wanted: Tensor) -> Tensor:
    """PTI's reconstruction loss, LPIPS and L2.  weight: of LPIPS.  seen, wanted: (B, 3, H, W) in [-1, 1]."""
    return weight * lpips(seen, wanted).mean() + (seen - wanted).square().mean()


def warp(image: Tensor, label: Tensor, source: Render, target: Render, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Move a picture's colours to another camera by the depth seen from there.

    image: (1, 3, H, W), from the camera `label` (1, 25), which saw `source`.  target: seen from `camera` (1, 25).
    Returns colours (1, 3, H, W), and (1, 1, H, W): 1 where the source saw that point, else 0, as are the colours.
    """
    size = image.shape[-1]
    far, opacity = (F.interpolate(each, (size, size), mode="bilinear") for each in (target.depth, target.opacity))
    origins, directions = sample_rays(camera, size)
    points = origins + far.flatten(2).transpose(1, 2) * directions
    places = (project(points, label) * 2 - 1).view(1, size, size, 2)
    colours = F.grid_sample(image, places, align_corners=False)
    depth = F.grid_sample(source.depth, places, align_corners=False)
    reached = (points - split_label(label)[0][:, None, :3, 3]).norm(dim=-1).view(1, 1, size, size)
    inside = (places.abs() <= 1).all(dim=-1)[:, None] & (opacity > 0.5)
    visible = inside & ((reached - depth).abs() < DEPTH_TOLERANCE)
    return torch.where(visible, colours, 0.0), visible.float()


def _unless_near(
    lpips: Perceptual, own: BaselinesSettings, seen: Tensor, wanted: Tensor, enough: float
) -> Tensor | None:
    """PTI's reconstruction loss, or None where LPIPS says that the pictures are near enough."""
    near = lpips(seen, wanted).mean()
    return None if float(near.detach()) <= enough else own.lpips_weight * near + (seen - wanted).square().mean()


def _tuning(generator: Generator, loss: Callable[[int], Tensor | None], steps: int, rate: float, what: str) -> None:
    """Tune all but the mapping."""
    learning = [p.requires_grad_() for name, p in generator.named_parameters() if ".mapping." not in name]
    optimise(learning, loss, steps, rate, what)
    generator.requires_grad_(False)
