"""StyleCLIP's latent optimisation (Patashnik et al. 2021, section 4), for a latent or a triplane."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from data_catalog.config.settings import BaselinesSettings
from models.camera import orbit_label
from models.judges.clip import Clip
from models.three_d.live3d import Render
from tasks.baselines.protocol import Networks, Portrait, Prompt, optimise, step_draw

SIDE_YAW = 0.35  # rad, each side; every other step looks from there, so that no edit is a picture for one camera


def look_features(clip: Clip, image: Tensor) -> Tensor:
    """CLIP's unit vectors (B, D) of pictures (B, 3, H, W) in [-1, 1], with gradients."""
    return clip.image_features((image.clamp(-1, 1) + 1) / 2)


def side_camera(step: int, seed: int, label: Tensor) -> Tensor:
    """The portrait's camera at even steps, one beside the front at odd ones; (1, 25)."""
    if step % 2 == 0:
        return label
    turn = 2 * torch.rand(1, generator=step_draw(seed, step)) - 1
    return orbit_label(turn * SIDE_YAW, 0.0).to(label)


def follow(
    networks: Networks,
    portrait: Portrait,
    prompt: Prompt,
    own: BaselinesSettings,
    change: Tensor,
    render: Callable[[Tensor, Tensor], Render],
    rate: float,
) -> list[float]:
    """Optimise a change, zero at first, by the distance to the prompt in CLIP; returns the losses.

    A leash holds the change, and an identity term the person.  render: of a change, from a camera (1, 25).
    """
    wanted, label, judge = prompt.features(networks.clip), portrait.label, networks.identity
    face = judge.find(portrait.picture[None], portrait.camera[None])[0]
    with torch.no_grad():
        person = judge.network(judge.cut(portrait.image, face))

    def loss(step: int) -> Tensor:
        seen = render(change, side_camera(step, portrait.seed, label)).image
        value = 1 - (look_features(networks.clip, seen) * wanted).sum()
        value = value + own.styleclip_leash * change.square().sum()
        if step % 2 == 0:
            same = (judge.network(judge.cut(seen, face)) * person).sum()
            value = value + own.styleclip_identity * (1 - same)
        return value

    return optimise([change], loss, own.styleclip_steps, rate, "StyleCLIP", ramp=True)
