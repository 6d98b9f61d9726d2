"""The exam of the generator: inversion of held-out people, sampled heads, and the way from one to another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from data_catalog.config.settings import BaselinesSettings
from models import procedural
from models.camera import orbit_label
from models.pixels import signed, to_bytes, to_levels
from models.three_d.eg3d import Generator, LatentEncoder, Seen
from models.zoo import zoo
from tasks.baselines.inversion import Inverted, invert, start
from tasks.baselines.protocol import Portrait
from tasks.lab.pretraining.marks import Examined, Sheet, grade, mean_of
from tasks.lab.pretraining.networks.generator import latents
from tasks.lab.pretraining.pictures import SIZE_PX, VALIDATION_SEEDS, Pictures
from tasks.pictures.sheets import contact_sheet

INVERTED = 8  # people
STEPS = 300
SAMPLED, ACROSS = 64, 8
WAYS, FRAMES = 8, 9  # between two people
MIN_INVERTED_DB = 22.0
MAX_JUMP = 3.0  # largest change from a frame to the next, of the mean change of its way
YAW = 0.35  # rad, of the other view


def examine_generator(pictures: Pictures) -> Examined:
    generator, encoder = zoo.load("generator", "embedded")
    people = min(INVERTED, len(pictures.crops))
    found = np.array([_invert(generator, encoder, pictures, person) for person in range(people)])
    ways = [_way(generator, place) for place in range(WAYS)]
    jumps = np.array([_largest_jump(way) for way in ways])
    marks = [
        grade("encoded_db", "PSNR of the encoder alone, dB", people, mean_of(found[:, 0])),
        grade("inverted_db", f"PSNR after {STEPS} steps, dB", people, mean_of(found[:, 1]), bar=MIN_INVERTED_DB),
        grade("inverted_novel_db", "the same at yaw ±0.35, dB", people, mean_of(found[:, 2])),
        grade("jump", "interpolation: largest step, of the mean one", WAYS, mean_of(jumps), bar=MAX_JUMP, higher=False),
    ]
    heads = [_look(generator, place, yaw=YAW * (place % 3 - 1)) for place in range(SAMPLED)]
    rows = [heads[first : first + ACROSS] for first in range(0, SAMPLED, ACROSS)]
    return Examined(
        marks,
        [
            Sheet(f"{SAMPLED} people that were never met, by their parameters", [], contact_sheet(rows, 2)),
            Sheet("From one person to another, a row each", [], contact_sheet(ways, 2)),
        ],
    )


def _invert(
    generator: Generator, encoder: LatentEncoder, pictures: Pictures, person: int
) -> tuple[float, float, float]:
    """PSNR in dB of the encoder's head, then of the optimised one, at the portrait's camera and from both sides."""
    lpips, plain = zoo.load("lpips", "embedded"), procedural.portrait(VALIDATION_SEEDS + person)
    inverter = (generator, encoder)
    portrait = Portrait(pictures.crops[person, 0], pictures.crop_cameras[person])
    (encoded, _), inverted = start(inverter, portrait), invert(inverter, lpips, portrait, BaselinesSettings(), STEPS)
    sides = [
        _psnr(inverted, label, signed(to_levels(procedural.render(plain, label[0], SIZE_PX).rgb)[None]))
        for label in (orbit_label(-YAW, 0.0), orbit_label(YAW, 0.0))
    ]
    own = [_psnr(each, portrait.label, portrait.image) for each in (encoded, inverted)]
    return own[0], own[1], float(np.mean(sides))


@torch.no_grad()
def _psnr(found: Inverted, label: torch.Tensor, image: torch.Tensor) -> float:
    edited = found.edited()
    error = (edited.model.render(edited.triplane, label).image.clamp(-1, 1) - image) / 2
    return float(-10 * torch.log10(error.square().mean()))


@torch.no_grad()
def _look(generator: Generator, place: int, yaw: float) -> np.ndarray:
    ws = latents(generator, [procedural.portrait(VALIDATION_SEEDS + 1000 + place)])
    return to_bytes(Seen(generator, ws).render(generator.planes(ws), orbit_label(yaw, 0.0)).image)[0]


@torch.no_grad()
def _way(generator: Generator, place: int) -> list[np.ndarray]:
    """Frames from one person to another, along a straight line in w."""
    ends = latents(generator, [procedural.portrait(VALIDATION_SEEDS + 2000 + 2 * place + i) for i in range(2)])
    frames = []
    for share in np.linspace(0, 1, FRAMES):
        ws = torch.lerp(ends[:1], ends[1:], float(share))
        frames.append(to_bytes(Seen(generator, ws).render(generator.planes(ws), orbit_label(0.0, 0.0)).image)[0])
    return frames


def _largest_jump(way: list[np.ndarray]) -> float:
    steps = [float(np.abs(one.astype(int) - other).mean()) for one, other in pairwise(way)]
    return max(steps) / float(np.mean(steps))
