"""PTI + StyleCLIP: the portrait in EG3D, its generator tuned to it, then the latent moved by CLIP."""

from __future__ import annotations

import torch
from torch import Tensor

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from models.three_d.eg3d import Seen
from models.three_d.live3d import Render
from tasks.baselines.inversion import Inverted, invert_and_tune
from tasks.baselines.measuring import Method, declare, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt
from tasks.baselines.styleclip import follow

METHOD = Method(
    "pti-styleclip",
    "PTI + StyleCLIP",
    True,
    ("generator",),
    ("invert_", "pti_", "tune_", "lpips_", "styleclip_"),
)


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text or picture; every latent of w+ moves, the tuned generator stays."""
    own = settings.baselines
    found = invert_and_tune(networks, portrait, own)
    generator = found.generator

    def render(change: Tensor, camera: Tensor) -> Render:
        ws = found.ws + change
        return Seen(generator, ws).render(generator.planes(ws), camera)

    change = torch.zeros_like(found.ws, requires_grad=True)
    follow(networks, portrait, prompt, own, change, render, own.styleclip_rate)
    return Inverted(generator, found.ws + change.detach()).edited(found.edited())
