"""SPI + StyleGAN-NADA: the portrait in EG3D with a symmetry prior, then the generator moved along CLIP's direction.

StyleGAN-NADA: Gal et al. 2022. With EG3D SPI trains all convolutions, without the choice of layers by step.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from models.camera import orbit_label
from models.three_d.eg3d import Generator
from tasks.baselines.inversion import Inverted, invert_and_tune
from tasks.baselines.measuring import Method, declare, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt, optimise, step_draw
from tasks.baselines.styleclip import SIDE_YAW, look_features, side_camera

SOURCE = "a photo of a person"  # the domain of the generator, in words
SOURCE_HEADS = 16  # whose pictures stand for that domain where a picture is the prompt
TRUNCATION = 0.7  # of the heads that are drawn beside the portrait
# Shorter changes count by their length, longer ones by their direction alone. The first step has none, and the gradient
# of its direction has no bound: Adam would remember it for longer than the method lasts. The published generators draw
# noise for each picture, so that no change is as short.
LEAST_CHANGE = 0.05
# As published, StyleGAN2's settings of an optimiser with path regularisation at every fourth step, which is not used.
SHARE = 4 / 5
BETAS = (0.0, 0.99**SHARE)

METHOD = Method(
    "spi-nada",
    "SPI + StyleGAN-NADA",
    True,
    ("generator",),
    ("spi_", "invert_rate", "tune_", "lpips_", "nada_"),
)


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text or picture: the change of each view points where the prompt lies from its source."""
    own = settings.baselines
    found = invert_and_tune(networks, portrait, own, symmetric=True)
    plain, moved = found.generator, copy.deepcopy(found.generator)
    before = found.edited()
    wanted = direction(networks, found, portrait, prompt)

    def loss(step: int) -> Tensor:
        ws, cameras = draw_heads(found, portrait, step, own.nada_batch)
        with torch.no_grad():
            start = look_features(networks.clip, plain.render(plain.planes(ws), ws, cameras).image)
        seen = moved.render(moved.planes(ws), ws, cameras).image
        change = look_features(networks.clip, seen) - start
        return (1 - (change * wanted).sum(dim=-1) / change.norm(dim=-1).clamp_min(LEAST_CHANGE)).mean()

    optimise(adaptable(moved), loss, own.nada_steps, own.nada_rate * SHARE, "StyleGAN-NADA", betas=BETAS)
    moved.requires_grad_(False)
    return Inverted(moved, found.ws).edited(before)


def draw_heads(found: Inverted, portrait: Portrait, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Draw the latents (count, styles, W) and cameras (count, 25) of a step: the portrait's, and other heads'."""
    draw = step_draw(portrait.seed, step)
    noise = torch.randn(count - 1, found.generator.config.noise_size, generator=draw).to(found.ws)
    front = orbit_label(0.0, 0.0).to(found.ws).expand(count - 1, -1)
    others = found.generator.backbone.mapping(noise, front, TRUNCATION)
    turns = 2 * torch.rand(count - 1, generator=draw) - 1
    beside = orbit_label(turns * SIDE_YAW, 0.0).to(portrait.label)
    own = side_camera(step, portrait.seed, portrait.label)
    return torch.cat([found.ws, others]), torch.cat([own, beside])


def direction(networks: Networks, found: Inverted, portrait: Portrait, prompt: Prompt) -> Tensor:
    """CLIP's unit direction (1, D) from source to prompt: of two texts, or from the domain's pictures to a picture."""
    wanted = prompt.features(networks.clip)
    with torch.no_grad():
        if prompt.text is not None:
            source = networks.clip.embed_texts([SOURCE])
        else:
            ws, cameras = draw_heads(found, portrait, 0, SOURCE_HEADS + 1)
            others = found.generator.render(found.generator.planes(ws[1:]), ws[1:], cameras[1:])
            source = look_features(networks.clip, others.image).mean(dim=0, keepdim=True)
        return F.normalize(wanted - source, dim=-1)


def adaptable(generator: Generator) -> list[Tensor]:
    """Weights that the method trains: the synthesis without its layers to the image, as published."""
    named = generator.backbone.synthesis.named_parameters()
    return [parameter.requires_grad_() for name, parameter in named if ".torgb." not in name]
