"""The embedded EG3D generator and its encoder to w+: plain heads, seen from four cameras each.

An adversary would take days of two cores. Here z holds the parameters of a procedural person, so each z has true views
to be compared with; the encoder learns through the generator, from portraits alone. Decoder, upsampler and backdrop
start as the teacher's, and the first steps compare triplanes, which renders nothing.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from models.camera import orbit_label
from models.procedural.person import HAIR_STYLES, Person, portrait
from models.three_d.eg3d import EMBEDDED, Generator, LatentEncoder
from models.three_d.live3d import EMBEDDED as TEACHER
from models.three_d.live3d import Live3D
from models.three_d.stylegan import FullyConnected, SynthesisBlock
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, save_half, to_signed
from tasks.lab.pretraining.networks.teacher import EDGE_WEIGHT, L1_WEIGHT, L2_WEIGHT, RAW_WEIGHT
from tasks.lab.pretraining.pictures import TRAINING_SEEDS, VIEWS_PER_STYLE, Pictures

BATCH = 4
TRIPLANE_PHASE = 0.1  # share of the training that compares triplanes only
PATCH_RAYS = 16  # side of the patch of a view, in rays
LATENT_WEIGHT = 0.02  # of the distance between an encoded latent and that of the person's z (e4e's leash)
STANDARD_PEOPLE = 2000  # whose parameters tell mean and deviation
STANDARD_PORTRAITS = 16  # whose triplanes by the teacher tell theirs


class Pair(nn.Module):
    """Generator, its encoder, and the teacher that both start from; the teacher is not saved."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.generator, self.encoder = Generator(EMBEDDED), LatentEncoder(EMBEDDED)
        teacher = Live3D(TEACHER)
        state = load_file(weights / "teacher" / "teacher.safetensors")
        teacher.load_state_dict({key: value.float() for key, value in state.items()})
        self.teacher = teacher.requires_grad_(False).eval()
        self._start_as(teacher)

    def train(self, mode: bool = True) -> Pair:
        super().train(mode)
        self.teacher.eval()
        return self

    def _start_as(self, teacher: Live3D) -> None:
        """Take over the teacher's renderer. Its upsampler has one style: layers give it for any w, to begin with."""
        own, renderer = self.generator, teacher.renderer
        own.decoder.load_state_dict(renderer.decoder.state_dict())
        assert renderer.background is not None
        own.background.load_state_dict(renderer.background.state_dict())
        style = renderer.const[0]
        for name in own.superresolution.names:
            mine = cast(SynthesisBlock, own.superresolution.get_submodule(name))
            given = cast(SynthesisBlock, renderer.superresolution.get_submodule(name))
            state = given.state_dict()
            for layer in ("conv0", "conv1", "torgb"):
                affine = cast(FullyConnected, given.get_submodule(layer).affine)
                state[f"{layer}.affine.weight"] = torch.zeros(len(affine.weight), EMBEDDED.w_size)
                state[f"{layer}.affine.bias"] = affine(style)[0].detach()
            mine.load_state_dict(state)

    def encode(self, portraits: Tensor) -> Tensor:
        """The w+ (B, styles, W) of portraits (B, 3, H, W) in [-1, 1]."""
        return self.encoder(portraits, self.generator.backbone.mapping.w_avg)


def latents(generator: Generator, people: list[Person]) -> Tensor:
    """The w+ (B, styles, W) of people, by their parameters."""
    noise = torch.from_numpy(np.stack([noise_of(person) for person in people]))
    ws: Tensor = generator.backbone.mapping(noise, orbit_label(0.0, 0.0).expand(len(noise), -1))
    return ws


def noise_of(person: Person) -> np.ndarray:
    """The z (51,) of a person: all parameters, the continuous ones at mean 0 and deviation 1."""
    mean, deviation = _standard()
    numbers, marks = _parameters(person)
    return np.concatenate([(numbers - mean) / deviation, marks]).astype(np.float32)


def _parameters(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Continuous parameters, and those that are there (1) or not (-1)."""
    numbers: list[float] = []
    identity = person.identity
    for value in (*astuple(identity), *astuple(person.scene)):
        if isinstance(value, tuple):
            numbers += value
        elif isinstance(value, float):
            numbers.append(value)
    marks = [identity.hair_style == style for style in HAIR_STYLES]
    return np.array(numbers), 2.0 * np.array([*marks, identity.glasses, identity.beard]) - 1.0


@cache
def _standard() -> tuple[np.ndarray, np.ndarray]:
    people = np.stack([_parameters(portrait(TRAINING_SEEDS + i))[0] for i in range(STANDARD_PEOPLE)])
    return people.mean(axis=0), people.std(axis=0)


def build(weights: Path) -> nn.Module:
    return Pair(weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def prepare(network: nn.Module, pictures: Pictures) -> None:
    """Set the scale of new planes to the teacher's, and w_avg, from which the encoder counts, to the mean latent."""
    assert isinstance(network, Pair)
    if network.generator.backbone.mapping.w_avg.any():
        return  # a training that goes on
    _average(network)
    with torch.no_grad():
        taught = network.teacher.encode(to_signed(pictures.crops[:STANDARD_PORTRAITS, 0]))
        own = network.generator.planes(
            latents(network.generator, [portrait(TRAINING_SEEDS + i) for i in range(len(taught))])
        )
        synthesis = network.generator.backbone.synthesis
        for size in synthesis.resolutions:
            layer = cast(SynthesisBlock, synthesis.get_submodule(f"b{size}")).torgb
            layer.weight.mul_((taught.std(dim=(0, 2, 3)) / own.std(dim=(0, 2, 3)))[:, None, None, None])
        layer.bias.add_(taught.mean(dim=(0, 2, 3)))


@torch.no_grad()
def _average(network: Pair) -> None:
    people = [portrait(TRAINING_SEEDS + i) for i in range(STANDARD_PEOPLE)]
    network.generator.backbone.mapping.w_avg.copy_(latents(network.generator, people)[:, 0].mean(dim=0))


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    """Compare the heads of z and those of the encoder with one view each, of a few people."""
    assert isinstance(network, Pair)
    people = batch_of(pictures, draw, BATCH)
    portraits = to_signed(pictures.crops[people, 0])
    by_noise = latents(network.generator, [portrait(TRAINING_SEEDS + int(person)) for person in people])
    encoded = network.encode(portraits)
    ws = torch.cat([by_noise, encoded])
    leash = (encoded - by_noise.detach()).square().mean()
    triplane = network.generator.planes(ws, "none")
    if draw.progress < TRIPLANE_PHASE:
        with torch.no_grad():
            target = network.teacher.encode(portraits)
        difference = (triplane - torch.cat([target, target])).abs().mean()
        return difference + LATENT_WEIGHT * leash, {"triplane": difference, "leash": leash}
    # The two heads of a person are seen by the portrait's camera and by another one, in turn.
    view = draw.rng.integers(VIEWS_PER_STYLE, size=BATCH)
    images = torch.stack([portraits, to_signed(pictures.plain_views[people, view])])
    cameras = torch.from_numpy(np.stack([pictures.crop_cameras[people], pictures.cameras[people, view]]))
    order = torch.from_numpy(draw.rng.integers(2, size=BATCH))
    place = torch.cat([order, 1 - order]), torch.arange(BATCH).repeat(2)
    value, parts = _view_loss(network.generator, triplane, ws, images[place], cameras[place], draw.torch_rng)
    return value + LATENT_WEIGHT * leash, {**parts, "leash": leash}


def _view_loss(
    generator: Generator, triplane: Tensor, ws: Tensor, images: Tensor, cameras: Tensor, rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 and L2 of a patch of each view, L1 of its gradients and of the raw rendering."""
    resolution = generator.config.renderer.resolution
    row, column = torch.randint(resolution - PATCH_RAYS + 1, (2, len(ws)), generator=rng)
    inner = torch.arange(PATCH_RAYS)
    pixels = ((row[:, None] + inner)[:, :, None] * resolution + (column[:, None] + inner)[:, None]).flatten(1)
    seen = generator.render(triplane, ws, cameras, pixels=pixels)
    twice = torch.arange(2 * PATCH_RAYS)
    rows, columns = 2 * row[:, None] + twice, 2 * column[:, None] + twice
    picture = images[torch.arange(len(images))[:, None, None], :, rows[:, :, None], columns[:, None]]
    picture = picture.permute(0, 3, 1, 2)
    difference = seen.image - picture
    image = L1_WEIGHT * difference.abs().mean() + L2_WEIGHT * difference.square().mean()
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    raw = (seen.image_raw - F.avg_pool2d(picture, 2)).abs().mean()
    half = len(ws) // 2
    shown = {"image": image, "by_noise": difference[:half].abs().mean(), "encoded": difference[half:].abs().mean()}
    return image + EDGE_WEIGHT * edges + RAW_WEIGHT * raw, shown


def finish(network: nn.Module, pictures: Pictures) -> None:
    """Count the encoder from the mean latent that the mapping has in the end."""
    assert isinstance(network, Pair)
    mapping = network.generator.backbone.mapping
    before = mapping.w_avg.clone()
    _average(network)
    with torch.no_grad():
        network.encoder.base.bias.add_(before - mapping.w_avg)


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, Pair)
    target = folder / "generator"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(network.generator.config.to_dict(), indent=1))
    save_half(network.generator, target / "generator.safetensors")
    save_half(network.encoder, target / "encoder.safetensors")


RECIPE = Recipe(
    "generator", steps=16000, lr=3e-3, build=build, loss=loss, save=save, prepare=prepare,
    finish=finish, ema=0.995, weight_decay=0.0,
)  # fmt: skip
