"""Identities, and the scenes that change from one picture of a person to the next.

An `Identity` holds what stays the same on every picture of a person (bones, skin, hair, glasses, beard). A `Scene`
holds what a second photograph may change (background, clothes, light). The scene varies, so that an identity network
cannot learn to recognise a shirt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]

HAIR_STYLES = ("short", "long", "bob", "bun", "bald", "afro", "mohawk")
HAIR_STYLE_ODDS = (0.28, 0.22, 0.16, 0.12, 0.10, 0.07, 0.05)
SKIN_TONES: tuple[Colour, ...] = (
    (0.97, 0.82, 0.71),
    (0.93, 0.72, 0.56),
    (0.80, 0.58, 0.42),
    (0.62, 0.42, 0.29),
    (0.43, 0.28, 0.19),
    (0.99, 0.87, 0.79),
)
HAIR_COLOURS: tuple[Colour, ...] = (
    (0.10, 0.08, 0.06),
    (0.29, 0.17, 0.09),
    (0.55, 0.36, 0.17),
    (0.87, 0.72, 0.39),
    (0.56, 0.56, 0.57),
    (0.19, 0.11, 0.21),
)
IRIS_COLOURS: tuple[Colour, ...] = (
    (0.20, 0.45, 0.75),
    (0.30, 0.19, 0.10),
    (0.24, 0.50, 0.30),
    (0.38, 0.38, 0.44),
)


@dataclass(frozen=True)
class Identity:
    """Identity of a person. Lengths in the head's own units (it fits the box [-0.5, 0.5]^3), colours in [0, 1]."""

    skull: tuple[float, float, float]  # half axes x, y, z
    jaw_width: float
    jaw_height: float
    chin_drop: float
    cheek: float
    nose_width: float
    nose_height: float
    nose_length: float
    eye_size: float
    eye_x: float
    eye_y: float
    brow_thickness: float
    brow_angle: float
    mouth_width: float
    lip_thickness: float
    smile: float
    ear: float
    neck: float
    skin: Colour
    hair: Colour
    iris: Colour
    hair_style: str
    glasses: bool
    beard: bool
    pointed_ears: bool = False
    clown_nose: bool = False


@dataclass(frozen=True)
class Scene:
    """Properties that vary between pictures of one person. Colours in [0, 1]; `light` is a unit vector, world frame."""

    background_top: Colour
    background_bottom: Colour
    clothes: Colour
    light: tuple[float, float, float]
    ambient: float


@dataclass(frozen=True)
class Person:
    """Person in a scene: everything in a picture but the camera."""

    identity: Identity
    scene: Scene


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in np.clip(values, 0.0, 1.0))
    return red, green, blue


def sample_identity(seed: int) -> Identity:
    """Draw an identity; the same seed always gives the same person."""
    rng = np.random.default_rng([seed, 1])

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    return Identity(
        skull=(between(0.198, 0.235), between(0.225, 0.258), between(0.225, 0.258)),
        jaw_width=between(0.135, 0.185),
        jaw_height=between(0.172, 0.210),
        chin_drop=between(-0.02, 0.03),
        cheek=between(0.052, 0.084),
        nose_width=between(0.030, 0.048),
        nose_height=between(0.058, 0.086),
        nose_length=between(0.064, 0.080),
        eye_size=between(0.038, 0.051),
        eye_x=between(0.079, 0.095),
        eye_y=between(0.022, 0.038),
        brow_thickness=between(0.008, 0.017),
        brow_angle=between(-0.3, 0.3),
        mouth_width=between(0.054, 0.076),
        lip_thickness=between(0.014, 0.025),
        smile=between(-0.010, 0.026),
        ear=between(0.045, 0.068),
        neck=between(0.088, 0.118),
        skin=_colour(np.array(SKIN_TONES[rng.integers(len(SKIN_TONES))]) * between(0.93, 1.04)),
        hair=_colour(np.array(HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))]) * between(0.85, 1.15)),
        iris=IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))],
        hair_style=str(rng.choice(HAIR_STYLES, p=HAIR_STYLE_ODDS)),
        glasses=bool(rng.random() < 0.25),
        beard=bool(rng.random() < 0.22),
    )


def sample_scene(seed: int) -> Scene:
    """Draw background, clothes and light, independent of any identity."""
    rng = np.random.default_rng([seed, 2])
    tint = rng.uniform(0.35, 0.95, 3)
    base = 0.55 * tint + 0.45 * tint.mean()
    light = np.array([rng.uniform(-0.65, 0.65), rng.uniform(0.2, 0.85), 1.0])
    light /= np.linalg.norm(light)
    return Scene(
        background_top=_colour(base * rng.uniform(0.95, 1.12)),
        background_bottom=_colour(base * rng.uniform(0.72, 0.95)),
        clothes=_colour(rng.uniform(0.08, 0.95, 3)),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.30, 0.45)),
    )


def portrait(seed: int, scene_seed: int | None = None) -> Person:
    """The person of `seed`, in the scene of `scene_seed` (by default the scene of the same seed)."""
    return Person(sample_identity(seed), sample_scene(seed if scene_seed is None else scene_seed))


def restyle(identity: Identity, style: str | None) -> Identity:
    """Apply the part of a style that changes the shape of the head; the shader applies its colours."""
    if style == "elf-ears":
        return replace(identity, pointed_ears=True)
    if style == "clown":
        return replace(identity, hair_style="afro", clown_nose=True)
    if style in ("afro", "bald"):
        return replace(identity, hair_style=style)
    return identity
