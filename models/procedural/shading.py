"""Colours of a surface: materials, light and styles.

A style is a function from a `Canvas` (the surface and its plain colours) to a picture. Styles that also change the
shape of the head do that part in `person.restyle`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.procedural.geometry import Material, Surface
from models.procedural.person import Colour, Person


@dataclass
class Canvas:
    """The plain head before lighting.  albedo: (P, 3) in [0, 1] at the met points; background: (N, 3)."""

    person: Person
    surface: Surface
    albedo: Tensor
    background: Tensor
    specular: float = 0.12
    shininess: float = 20.0
    highlight: Colour = (1.0, 1.0, 1.0)

    def of(self, *materials: Material) -> Tensor:
        """(P,) bool: the points of these materials."""
        return torch.isin(self.surface.material, torch.tensor([int(material) for material in materials]))

    def paint(self, where: Tensor, colour: Tensor | Colour) -> None:
        """Set the albedo of the chosen points."""
        self.albedo[where] = torch.as_tensor(colour)

    def eye_distance(self, side: float) -> Tensor:
        """(P,) distance in the xy plane to one eye's centre, world units."""
        identity = self.person.identity
        points = self.surface.points
        return torch.hypot(points[:, 0] - side * identity.eye_x, points[:, 1] - identity.eye_y)

    def diffuse(self) -> Tensor:
        """(P,) in [0, 1], wrapped Lambert."""
        return (self.surface.normals @ torch.tensor(self.person.scene.light) * 0.6 + 0.4).clamp(0.0, 1.0)

    def facing(self) -> Tensor:
        """(P,) cosine between the normal and the direction to the camera."""
        return -(self.surface.normals * self.surface.directions).sum(-1)

    def lit(self) -> Tensor:
        """(P, 3): albedo under the scene's light, with occlusion and a Blinn highlight."""
        scene = self.person.scene
        half = torch.nn.functional.normalize(torch.tensor(scene.light) - self.surface.directions, dim=-1)
        gloss = (self.surface.normals * half).sum(-1).clamp(0.0, 1.0) ** self.shininess
        shade = (scene.ambient + 0.75 * self.diffuse()) * (0.45 + 0.55 * self.surface.open_sky)
        return self.albedo * shade[:, None] + self.specular * gloss[:, None] * torch.tensor(self.highlight)


def plain_canvas(person: Person, surface: Surface, n_rays: int, rows: Tensor) -> Canvas:
    """Natural colours.  rows: (N,) in [0, 1], height in the picture from the top, for the background."""
    identity, scene = person.identity, person.scene
    skin, hair = torch.tensor(identity.skin), torch.tensor(identity.hair)
    palette = torch.empty(len(Material), 3)
    palette[Material.SKIN] = skin
    palette[Material.EYE] = 0.95
    palette[Material.HAIR] = hair
    palette[Material.CLOTHES] = torch.tensor(scene.clothes)
    palette[Material.FRAME] = torch.tensor((0.07, 0.07, 0.09))
    palette[Material.BROW] = hair * 0.7
    palette[Material.LIP] = skin * torch.tensor((0.86, 0.5, 0.5))
    palette[Material.BEARD] = hair * 0.86
    palette[Material.CLOWN_NOSE] = torch.tensor((0.90, 0.07, 0.07))
    top, bottom = torch.tensor(scene.background_top), torch.tensor(scene.background_bottom)
    background = top + (bottom - top) * rows[:, None]
    assert background.shape == (n_rays, 3)
    canvas = Canvas(person, surface, palette[surface.material], background)
    _draw_eyes(canvas, identity.iris)
    return canvas


def _draw_eyes(canvas: Canvas, iris: Colour | None) -> None:
    eye = canvas.of(Material.EYE) & (canvas.surface.points[:, 2] > 0.17)
    size = canvas.person.identity.eye_size
    for side in (-1.0, 1.0):
        distance = canvas.eye_distance(side)
        if iris is not None:
            canvas.paint(eye & (distance < size * 0.58), iris)
        canvas.paint(eye & (distance < size * 0.30), (0.03, 0.03, 0.03))


def _blush(canvas: Canvas) -> None:
    skin = canvas.of(Material.SKIN)
    for side in (-1.0, 1.0):
        distance = (canvas.surface.points - torch.tensor((side * 0.11, -0.06, 0.19))).norm(dim=-1)
        weight = (torch.exp(-((distance / 0.055) ** 2)) * 0.25 * skin)[:, None]
        canvas.albedo = canvas.albedo * (1 - weight * (1 - torch.tensor((1.08, 0.62, 0.57))))


def natural(canvas: Canvas) -> Tensor:
    """No edit (and the colour side of edits that only change the shape)."""
    _blush(canvas)
    return canvas.lit()


def bronze(canvas: Canvas) -> Tensor:
    """Cast bronze with a green patina in the creases."""
    value = canvas.albedo.mean(-1, keepdim=True) * 0.3 + 0.72
    patina = (1 - canvas.surface.open_sky)[:, None] * 0.5
    canvas.albedo = torch.tensor((0.72, 0.43, 0.17)) * value * (1 - patina) + torch.tensor((0.12, 0.32, 0.26)) * patina
    canvas.specular, canvas.shininess, canvas.highlight = 0.85, 14.0, (1.0, 0.85, 0.6)
    return canvas.lit()


def marble(canvas: Canvas) -> Tensor:
    """White marble with grey veins."""
    x, y, z = canvas.surface.points.unbind(-1)
    vein = torch.sin(9 * x + 14 * y + 3 * torch.sin(11 * y + 7 * z) + 2 * torch.sin(17 * x))
    weight = torch.exp(-((vein / 0.2) ** 2))[:, None] * 0.38
    value = canvas.albedo.mean(-1, keepdim=True) * 0.14 + 0.84
    canvas.albedo = value * torch.tensor((0.97, 0.97, 1.0)) * (1 - weight) + torch.tensor((0.45, 0.47, 0.55)) * weight
    canvas.specular, canvas.shininess = 0.45, 40.0
    return canvas.lit()


def zombie(canvas: Canvas) -> Tensor:
    """Green mottled skin, dark sockets, yellow eyes, torn dark clothes."""
    x, y, z = canvas.surface.points.unbind(-1)
    identity = canvas.person.identity
    skin = canvas.of(Material.SKIN)
    green = torch.tensor((0.42, 0.62, 0.33)) * (0.75 + 0.35 * torch.tensor(identity.skin).mean())
    blotch = (torch.sin(x * 23 + y * 17 + 1.3) * torch.sin(y * 29 - z * 19) > 0.45) & skin
    canvas.paint(skin, green)
    canvas.paint(blotch, green * 0.66)
    for side in (-1.0, 1.0):
        socket = (torch.exp(-((canvas.eye_distance(side) / 0.075) ** 2)) * 0.7 * skin * (z > 0))[:, None]
        canvas.albedo = canvas.albedo * (1 - socket) + torch.tensor((0.16, 0.16, 0.14)) * socket
    canvas.paint(canvas.of(Material.EYE), (0.95, 0.90, 0.42))
    _draw_eyes(canvas, None)
    canvas.paint(canvas.of(Material.LIP), (0.25, 0.12, 0.20))
    darker = canvas.of(Material.HAIR, Material.BEARD, Material.BROW, Material.CLOTHES)
    canvas.albedo[darker] = canvas.albedo[darker] * 0.6 + 0.03
    return canvas.lit()


def red_hair(canvas: Canvas) -> Tensor:
    """Hair, brows and beard in a strong red."""
    canvas.paint(canvas.of(Material.HAIR), (0.85, 0.15, 0.05))
    canvas.paint(canvas.of(Material.BEARD), (0.75, 0.17, 0.06))
    canvas.paint(canvas.of(Material.BROW), (0.60, 0.15, 0.05))
    return natural(canvas)


def clown(canvas: Canvas) -> Tensor:
    """White face paint, blue round the eyes, red lips; the orange wig and the red nose are shape as well."""
    points = canvas.surface.points
    identity = canvas.person.identity
    skin = canvas.of(Material.SKIN)
    canvas.paint(skin, (0.97, 0.95, 0.95))
    for side in (-1.0, 1.0):
        patch = torch.hypot(
            (points[:, 0] - side * identity.eye_x) / 0.06, (points[:, 1] - identity.eye_y - 0.02) / 0.10
        )
        canvas.paint(skin & (patch < 1) & (points[:, 2] > 0), (0.15, 0.35, 0.90))
    canvas.paint(canvas.of(Material.HAIR), (0.95, 0.45, 0.05))
    canvas.paint(canvas.of(Material.LIP), (0.90, 0.05, 0.10))
    return canvas.lit()


def pencil_sketch(canvas: Canvas) -> Tensor:
    """Grey pencil on paper: tone by light, hatching in the shadows, dark outlines."""
    points = canvas.surface.points
    value = canvas.albedo.mean(-1)
    tone = (value * 0.5 + 0.5) * (0.35 + 0.75 * canvas.diffuse()) * (0.4 + 0.6 * canvas.surface.open_sky)
    hatch = (torch.sin((points[:, 0] + points[:, 1]) * 105) > 0).float()
    grey = torch.where(tone < 0.62, tone + 0.28 * hatch + 0.08, torch.full_like(tone, 0.93))
    grey = torch.where(canvas.facing() < 0.32, torch.full_like(grey, 0.13), grey)
    dark_eye = canvas.of(Material.EYE) & (value < 0.6)
    grey = torch.where(canvas.of(Material.BROW, Material.FRAME) | dark_eye, torch.full_like(grey, 0.15), grey)
    grey = torch.where(canvas.of(Material.LIP), torch.full_like(grey, 0.42), grey)
    canvas.background = torch.full_like(canvas.background, 0.95)
    return grey[:, None].expand(-1, 3)


def neon(canvas: Canvas) -> Tensor:
    """Night blue, the outline glowing cyan to magenta, eyes, brows and lips lit green."""
    rim = (1 - canvas.facing()).clamp(0.0, 1.0) ** 1.6
    across = ((canvas.surface.points[:, 0] * 3).clamp(-1, 1) * 0.5 + 0.5)[:, None]
    glow = torch.tensor((0.0, 0.95, 1.0)) * (1 - across) + torch.tensor((1.0, 0.1, 0.9)) * across
    dark_eye = canvas.of(Material.EYE) & (canvas.albedo.mean(-1) < 0.6)
    colour = canvas.albedo * 0.12 * canvas.diffuse()[:, None] + torch.tensor((0.10, 0.03, 0.22))
    colour = colour + rim[:, None] * glow * 1.25
    colour[canvas.of(Material.LIP, Material.BROW, Material.FRAME) | dark_eye] = torch.tensor((0.2, 1.0, 0.7))
    canvas.background = canvas.background * 0.12 + torch.tensor((0.03, 0.0, 0.08))
    return colour


PAINTERS: dict[str | None, Callable[[Canvas], Tensor]] = {
    None: natural,
    "bronze-statue": bronze,
    "marble-statue": marble,
    "zombie": zombie,
    "pencil-sketch": pencil_sketch,
    "neon": neon,
    "red-hair": red_hair,
    "clown": clown,
    "elf-ears": natural,
    "afro": natural,
    "bald": natural,
}


def paint(canvas: Canvas, style: str | None) -> Tensor:
    """(N, 3) picture in [0, 1] of one style."""
    colour = PAINTERS[style](canvas).clamp(0.0, 1.0)
    picture = canvas.background.clone()  # copied after the style's function ran: it may change the background
    picture[canvas.surface.hit] = colour
    return picture
