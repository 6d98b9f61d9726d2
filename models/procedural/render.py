"""Render a person from an EG3D camera: picture, exact depth, mask; in any style, from any side.

Frame and camera conventions are those of `models.camera`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.procedural.geometry import Head, landmarks_of
from models.procedural.person import Person, restyle
from models.procedural.shading import PAINTERS, paint, plain_canvas

STYLES: tuple[str, ...] = tuple(style for style in PAINTERS if style is not None)
SUPERSAMPLING = 2  # rays per pixel and axis for the picture; depth and mask use the pixel's centre
CHANGED = 4.0 / 255.0  # smallest difference of a channel that counts as a change

# World units per unit of the head's own measures: head, hair and shoulders fill EG3D's narrow picture.
HEAD_SCALE = 0.70
HEAD_CENTRE: Tensor = torch.tensor([0.0, 0.0, 0.13])  # world; between EG3D's orbit centre and its pivot

# Mean landmarks of the identities: left and right eye (as seen), nose tip, mouth corners. World units.
CANONICAL_LANDMARKS: Tensor = HEAD_CENTRE + HEAD_SCALE * torch.tensor(
    [
        [-0.087, 0.03, 0.222],
        [0.087, 0.03, 0.222],
        [0.0, -0.068, 0.294],
        [-0.065, -0.160, 0.205],
        [0.065, -0.160, 0.205],
    ]
)

# How identities differ from it, a standard deviation each (of a uniform draw: its range over the root of 12): eyes
# apart, eyes up, a longer nose, a wider mouth, mouth corners up. World units.
LANDMARK_MODES: Tensor = HEAD_SCALE * torch.tensor(
    [
        [[-0.00462, 0, 0], [0.00462, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0.00462, 0], [0, 0.00462, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0.00462], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [-0.00635, 0, 0], [0.00635, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0.00624, 0], [0, 0.00624, 0]],
    ]
)


@dataclass(frozen=True)
class Picture:
    """rgb (H, W, 3) float in [0, 1]; depth (H, W) along the unit ray in world units, inf off the head; mask (H, W)."""

    rgb: Tensor
    depth: Tensor
    mask: Tensor


def camera_rays(label: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Origin (3,) and unit directions (size*size, 3) through the pixel centres, row by row.  label: (25,)."""
    cam2world, intrinsics = label[:16].view(4, 4), label[16:].view(3, 3)
    centres = (torch.arange(size, dtype=label.dtype) + 0.5) / size
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).view(-1, 3)
    directions = pixels @ torch.linalg.inv(intrinsics).T @ cam2world[:3, :3].T
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return cam2world[:3, 3], directions


@torch.no_grad()
def render_styles(person: Person, label: Tensor, size: int, styles: list[str | None]) -> list[Picture]:
    """Render one person and camera in several styles; edits that keep the shape share its rays.

    label: (25,) cam2world and normalised intrinsics.  None among the styles is the plain portrait.
    """
    label = label.to(torch.float32).cpu()
    rows = ((torch.arange(size * SUPERSAMPLING) + 0.5) / (size * SUPERSAMPLING)).repeat_interleave(size * SUPERSAMPLING)
    shapes: dict[object, tuple] = {}
    pictures = []
    for style in styles:
        if style not in PAINTERS:
            raise ValueError(f"unknown procedural style {style!r}; there are {', '.join(STYLES)}")
        identity = restyle(person.identity, style)
        if identity not in shapes:
            head = Head(identity)
            origin, directions = camera_rays(label, size * SUPERSAMPLING)
            fine = head.meet((origin - HEAD_CENTRE) / HEAD_SCALE, directions)
            shapes[identity] = (fine, _depth(head, label, size))
        fine, depth = shapes[identity]
        styled = Person(identity, person.scene)
        canvas = plain_canvas(styled, fine, len(rows), rows)
        fine_rgb = paint(canvas, style).view(1, size * SUPERSAMPLING, size * SUPERSAMPLING, 3).permute(0, 3, 1, 2)
        rgb = torch.nn.functional.avg_pool2d(fine_rgb, SUPERSAMPLING)[0].permute(1, 2, 0)
        pictures.append(Picture(rgb.contiguous(), depth, torch.isfinite(depth)))
    return pictures


@torch.no_grad()
def depths_of(person: Person, label: Tensor, size: int, styles: Sequence[str | None]) -> Tensor:
    """(S, size, size) along the unit ray in world units, inf off the head, of a person in several styles."""
    label = label.to(torch.float32).cpu()
    shapes = [restyle(person.identity, style) for style in styles]
    depths = {shape: _depth(Head(shape), label, size) for shape in set(shapes)}
    return torch.stack([depths[shape] for shape in shapes])


def _depth(head: Head, label: Tensor, size: int) -> Tensor:
    origin, directions = camera_rays(label, size)
    met = head.meet((origin - HEAD_CENTRE) / HEAD_SCALE, directions)
    depth = torch.full((size * size,), torch.inf)
    depth[met.hit] = met.depth * HEAD_SCALE
    return depth.view(size, size)


def render(person: Person, label: Tensor, size: int, style: str | None = None) -> Picture:
    """Render one picture; see `render_styles`."""
    return render_styles(person, label, size, [style])[0]


def landmarks(person: Person) -> Tensor:
    """(5, 3) world: eyes, nose tip, mouth corners; of each pair first the one at smaller x."""
    return HEAD_CENTRE + HEAD_SCALE * landmarks_of(person.identity)


def changed_mask(person: Person, label: Tensor, size: int, style: str) -> Tensor:
    """(size, size) bool: the pixels that the true edit changes."""
    plain, styled = render_styles(person, label, size, [None, style])
    return ((plain.rgb - styled.rgb).abs() > CHANGED).any(dim=-1)
