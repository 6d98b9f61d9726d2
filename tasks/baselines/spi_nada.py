"""SPI + StyleGAN-NADA: the portrait in EG3D with a symmetry prior, then the generator moved along CLIP's direction."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from models.camera import orbit_label
from models.three_d.eg3d import Generator
from tasks.baselines.inversion import Inverted, invert_symmetric
from tasks.baselines.measuring import Method, declare, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt, optimise
from tasks.baselines.styleclip import SIDE_YAW, look_features, side_camera

SOURCE = "a photo of a person"  # the domain of the generator, in words
TRUNCATION = 0.7  # of the heads that are drawn beside the portrait
NO_CHANGE = 1e-7  # the first step has none; its gradient points along the wanted direction

METHOD = Method(
    "spi-nada",
    "SPI + StyleGAN-NADA",
    True,
    ("generator",),
    (
        "spi_invert_steps",
        "invert_rate",
        "spi_steps",
        "tune_rate",
        "lpips_weight",
        "nada_steps",
        "nada_rate",
        "nada_batch",
    ),
)


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text or picture: the change of each view points where the prompt lies from its source."""
    own = settings.baselines
    found = invert_symmetric(networks, portrait, own)
    plain, moved = found.generator, copy.deepcopy(found.generator)
    before = found.edited()
    wanted = direction(networks, before, portrait, prompt)

    def loss(step: int) -> Tensor:
        ws, cameras = draw_heads(found, portrait, step, own.nada_batch)
        with torch.no_grad():
            start = look_features(networks.clip, plain.render(plain.planes(ws), ws, cameras).image)
        seen = moved.render(moved.planes(ws), ws, cameras).image
        change = look_features(networks.clip, seen) - start
        return (1 - (change * wanted).sum(dim=-1) / (change.norm(dim=-1) + NO_CHANGE)).mean()

    optimise(adaptable(moved), loss, own.nada_steps, own.nada_rate, "StyleGAN-NADA")
    moved.requires_grad_(False)
    return Inverted(moved, found.ws).edited(before)


def draw_heads(found: Inverted, portrait: Portrait, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Draw the latents (count, styles, W) and cameras (count, 25) of a step: the portrait's, and other heads'."""
    draw = torch.Generator().manual_seed(portrait.seed * 100_003 + step)
    noise = torch.randn(count - 1, found.generator.config.noise_size, generator=draw).to(found.ws)
    front = orbit_label(0.0, 0.0).to(found.ws).expand(count - 1, -1)
    others = found.generator.backbone.mapping(noise, front, TRUNCATION)
    yaws = (2 * torch.rand(count - 1, generator=draw) - 1) * SIDE_YAW
    cameras = [side_camera(step, portrait.seed, portrait.label)]
    cameras += [orbit_label(float(yaw), 0.0).view(1, -1).to(portrait.label) for yaw in yaws]
    return torch.cat([found.ws, others]), torch.cat(cameras)


def direction(networks: Networks, before: Edited, portrait: Portrait, prompt: Prompt) -> Tensor:
    """CLIP's unit direction (1, D) from source to prompt: of two texts, or of two pictures (Gal et al., section 4)."""
    wanted = prompt.features(networks.clip)
    with torch.no_grad():
        if prompt.text is not None:
            source = networks.clip.embed_texts([SOURCE])
        else:
            source = look_features(networks.clip, before.model.render(before.triplane, portrait.label).image)
        return F.normalize(wanted - source, dim=-1)


def adaptable(generator: Generator) -> list[Tensor]:
    """Weights that the method trains: the synthesis without its layers to the image, as published."""
    named = generator.backbone.synthesis.named_parameters()
    return [parameter.requires_grad_() for name, parameter in named if ".torgb." not in name]
