"""Live3D + StyleCLIP: the teacher's triplane of the portrait, moved by CLIP through the renderer."""

from __future__ import annotations

import torch
from torch import Tensor

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from models.three_d.live3d import Render
from tasks.baselines.measuring import Method, declare, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt
from tasks.baselines.styleclip import follow

LATENT_VALUES = 7168  # of EG3D's w+, for which StyleCLIP's weight of the leash is; a triplane has a thousand times more


METHOD = Method(
    "live3d-styleclip",
    "Live3D + StyleCLIP",
    True,
    (),
    ("styleclip_steps", "live3d_rate", "styleclip_leash", "styleclip_identity"),
)


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text or picture. A step of a plane's value is a share of the deviation of its channel."""
    own, teacher = settings.baselines, networks.teacher
    with torch.no_grad():
        triplane = teacher.encode(portrait.image)
        scale = triplane.std(dim=(2, 3), keepdim=True)
    share = (LATENT_VALUES / triplane.numel()) ** 0.5  # the leash of a change counts as that of a latent's

    def render(change: Tensor, camera: Tensor) -> Render:
        return teacher.render(triplane + change / share * scale, camera)

    change = torch.zeros_like(triplane, requires_grad=True)
    follow(networks, portrait, prompt, own, change, render, own.live3d_rate * share)
    edited = triplane + change.detach() / share * scale
    return Edited(teacher, edited, Edited(teacher, triplane))
