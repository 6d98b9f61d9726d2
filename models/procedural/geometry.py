"""The shape of a head: ellipsoids, some with an ellipsoid cut out, met by rays in closed form.

Every ray-ellipsoid meeting is the root of a quadratic, so depth is exact and has no pinholes. Creases between
parts of one material are hidden by blending their normals, not by changing the surface.

Lengths here are in the head's own units; `render.HEAD_SCALE` takes them to world units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from models.procedural.person import Identity

Vector = tuple[float, float, float]
NORMAL_BLEND = 0.014  # units over which normals of one material mix
OCCLUSION_REACH = 0.06  # units above the surface at which occlusion is probed


class Material(IntEnum):
    """Material of a part; the shader colours by it."""

    SKIN = 0
    EYE = 1
    HAIR = 2
    CLOTHES = 3
    FRAME = 4
    BROW = 5
    LIP = 6
    BEARD = 7
    CLOWN_NOSE = 8


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes; `roll` about z then `tilt` about x, radians."""

    centre: Vector
    axes: Vector
    roll: float = 0.0
    tilt: float = 0.0

    def unit_map(self) -> Tensor:
        """(3, 3) matrix that maps (point - centre) into the unit ball."""
        cz, sz = math.cos(self.roll), math.sin(self.roll)
        cx, sx = math.cos(self.tilt), math.sin(self.tilt)
        about_z = torch.tensor([[cz, sz, 0.0], [-sz, cz, 0.0], [0.0, 0.0, 1.0]])
        about_x = torch.tensor([[1.0, 0.0, 0.0], [0.0, cx, sx], [0.0, -sx, cx]])
        return (about_x @ about_z) / torch.tensor(self.axes)[:, None]


@dataclass(frozen=True)
class Part:
    """Ellipsoid of a material, less an optional second one."""

    material: Material
    shape: Ellipsoid
    cut: Ellipsoid | None = None


FACE_OPENING = Ellipsoid((0.0, -0.06, 0.25), (0.172, 0.245, 0.30))  # hair leaves the face free


def landmarks_of(identity: Identity) -> Tensor:
    """(5, 3): the eye at smaller x, the other eye, nose tip, mouth corners (smaller x first)."""
    nose_z = 0.222 + identity.nose_length
    mouth_x, mouth_y = identity.mouth_width, -0.165 + identity.smile * 0.6
    return torch.tensor(
        [
            [-identity.eye_x, identity.eye_y, 0.222],
            [identity.eye_x, identity.eye_y, 0.222],
            [0.0, -0.068, nose_z],
            [-mouth_x, mouth_y, 0.205],
            [mouth_x, mouth_y, 0.205],
        ]
    )


def _skin(person: Identity) -> list[Part]:
    width, height, depth = person.skull
    jaw_y = -0.11 - person.chin_drop * 0.5
    parts = [
        Part(Material.SKIN, Ellipsoid((0.0, 0.07, -0.03), (width, height, depth))),
        Part(Material.SKIN, Ellipsoid((0.0, jaw_y, 0.04), (person.jaw_width, person.jaw_height, 0.165))),
        Part(Material.SKIN, Ellipsoid((0.0, jaw_y - 0.13 - person.chin_drop, 0.12), (0.06, 0.05, 0.055))),
        Part(Material.SKIN, Ellipsoid((0.0, 0.07, 0.15), (0.13, 0.04, 0.065))),  # brow ridge
        Part(
            Material.SKIN,
            Ellipsoid((0.0, -0.03, 0.205), (person.nose_width * 0.62, person.nose_height, 0.052), tilt=-0.4),
        ),
        Part(Material.SKIN, Ellipsoid((0.0, -0.068, 0.222), (person.nose_width, 0.030, person.nose_length))),
        Part(Material.SKIN, Ellipsoid((0.0, -0.33, -0.05), (person.neck, 0.2, 0.10))),
    ]
    for side in (-1.0, 1.0):
        cheek = Ellipsoid((side * 0.10, -0.05, 0.115), (person.cheek,) * 3)
        parts.append(Part(Material.SKIN, cheek))
        ear = Ellipsoid((side * (width - 0.004), -0.005, -0.03), (0.028, person.ear, person.ear * 0.7), -side * 0.15)
        parts.append(Part(Material.SKIN, ear))
        if person.pointed_ears:
            tip = Ellipsoid((side * (width + 0.066), 0.075, -0.02), (0.036, 0.152, 0.05), -side * 0.72)
            parts.append(Part(Material.SKIN, tip))
    return parts


def _features(person: Identity) -> list[Part]:
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        eye = Ellipsoid((side * person.eye_x, person.eye_y, 0.182), (person.eye_size, person.eye_size * 0.85, 0.045))
        parts.append(Part(Material.EYE, eye))
        brow = Ellipsoid(
            (side * person.eye_x, person.eye_y + 0.068, 0.205),
            (0.052, person.brow_thickness, 0.027),
            side * person.brow_angle,
        )
        parts.append(Part(Material.BROW, brow))
        corner = Ellipsoid(
            (side * person.mouth_width * 0.55, -0.165 + person.smile * 0.35, 0.184),
            (person.mouth_width * 0.52, person.lip_thickness * 0.72, 0.026),
            side * person.smile * 14.0,
        )
        parts.append(Part(Material.LIP, corner))
    middle = Ellipsoid((0.0, -0.165, 0.194), (person.mouth_width * 0.6, person.lip_thickness, 0.026))
    parts.append(Part(Material.LIP, middle))
    if person.beard:
        chin = Ellipsoid((0.0, -0.245, 0.08), (person.jaw_width * 0.98, 0.11, 0.135))
        parts.append(Part(Material.BEARD, chin))
        parts.append(Part(Material.BEARD, Ellipsoid((0.0, -0.132, 0.205), (0.062, 0.013, 0.03))))
    if person.clown_nose:
        parts.append(Part(Material.CLOWN_NOSE, Ellipsoid((0.0, -0.068, 0.29), (0.056, 0.056, 0.056))))
    if person.glasses:
        parts += _glasses(person)
    return parts


def _glasses(person: Identity) -> list[Part]:
    parts = [Part(Material.FRAME, Ellipsoid((0.0, person.eye_y + 0.008, 0.252), (0.032, 0.009, 0.009)))]
    for side in (-1.0, 1.0):
        centre = (side * person.eye_x, person.eye_y, 0.245)
        parts.append(
            Part(
                Material.FRAME,
                Ellipsoid(centre, (0.074, 0.070, 0.020)),
                Ellipsoid(centre, (0.056, 0.052, 0.10)),
            )
        )
        temple = Ellipsoid((side * 0.19, person.eye_y + 0.01, 0.10), (0.010, 0.010, 0.155))
        parts.append(Part(Material.FRAME, temple))
    return parts


def _hair(person: Identity) -> list[Part]:
    width, height, depth = person.skull
    style = person.hair_style
    shapes: list[Ellipsoid] = []
    if style == "mohawk":
        for y, z in ((0.27, 0.14), (0.33, 0.04), (0.34, -0.08), (0.28, -0.19)):
            shapes.append(Ellipsoid((0.0, y, z), (0.038, 0.095, 0.09)))
        return [Part(Material.HAIR, shape) for shape in shapes]
    if style == "afro":
        shapes.append(Ellipsoid((0.0, 0.19, -0.09), (0.33, 0.265, 0.25)))
        shapes.append(Ellipsoid((0.0, 0.29, 0.06), (0.22, 0.12, 0.13)))
        shapes += [Ellipsoid((side * 0.22, 0.08, -0.10), (0.14, 0.18, 0.16)) for side in (-1.0, 1.0)]
    if style in ("short", "long", "bob", "bun"):
        shapes.append(Ellipsoid((0.0, 0.10, -0.055), (width * 1.09, height * 1.06, depth * 1.03)))
        shapes += [Ellipsoid((s * 0.09, 0.277, 0.12), (0.13, 0.055, 0.09), -s * 0.35) for s in (-1.0, 1.0)]
    if style == "bun":
        shapes.append(Ellipsoid((0.0, 0.37, -0.06), (0.10, 0.09, 0.10)))
    if style in ("long", "bob"):
        length = 0.33 if style == "long" else 0.20
        shapes.append(Ellipsoid((0.0, -0.4 * length, -0.17), (width, length * 1.1, 0.12)))
        for side in (-1.0, 1.0):
            centre = (side * (width + 0.015), 0.06 - 0.6 * length, -0.06)
            shapes.append(Ellipsoid(centre, (0.06, length, 0.11), side * 0.08))
    return [Part(Material.HAIR, shape, FACE_OPENING) for shape in shapes]


def parts_of(identity: Identity) -> list[Part]:
    """Every part of the head and shoulders of one person."""
    shoulders = Part(Material.CLOTHES, Ellipsoid((0.0, -0.52, -0.06), (0.40, 0.17, 0.20)))
    return [*_skin(identity), *_features(identity), *_hair(identity), shoulders]


@dataclass(frozen=True)
class Surface:
    """Points where P of N rays meet the head. Frame: the head's."""

    hit: Tensor  # (P,) int64, index of the ray
    depth: Tensor  # (P,) distance along the unit ray
    points: Tensor  # (P, 3)
    normals: Tensor  # (P, 3) unit, outward
    material: Tensor  # (P,) int64, `Material`
    open_sky: Tensor  # (P,) in [0, 1], 1 where nothing near occludes
    directions: Tensor  # (P, 3) unit, of the rays


class Head:
    """The parts of one identity, packed so that all rays meet all parts in a few matrix products.

    A part is {x : q(x) <= 1} with the quadratic form q(x) = (x - c)' Q (x - c); K parts, P or N points or rays.
    """

    def __init__(self, identity: Identity) -> None:
        parts = parts_of(identity)
        self.materials = torch.tensor([int(part.material) for part in parts])
        self.forms = _Forms([part.shape for part in parts])
        self.cut_parts = [index for index, part in enumerate(parts) if part.cut is not None]
        self.cuts = _Forms([part.cut for part in parts if part.cut is not None])

    def meet(self, origin: Tensor, directions: Tensor) -> Surface:
        """First meeting of each ray.  origin: (3,); directions: (N, 3) of unit length; head's units."""
        enter, leave = self.forms.interval(origin, directions)  # (N, K) each
        carved = torch.zeros(enter.shape, dtype=torch.bool)
        if self.cut_parts:
            cut_in, cut_out = self.cuts.interval(origin, directions)
            first, last = enter[:, self.cut_parts], leave[:, self.cut_parts]
            inside = (first >= cut_in) & (first < cut_out)
            carved[:, self.cut_parts] = inside & (cut_out < last)
            behind = torch.where(cut_out < last, cut_out, torch.inf)
            enter[:, self.cut_parts] = torch.where(inside, behind, first)
        depth, owner = enter.min(dim=1)
        hit = torch.nonzero(torch.isfinite(depth))[:, 0]
        depth, owner = depth[hit], owner[hit]
        points = origin + directions[hit] * depth[:, None]
        normals = self._normals(points, owner, carved[hit, owner])
        open_sky = self._open_sky(points, normals)
        return Surface(hit, depth, points, normals, self.materials[owner], open_sky, directions[hit])

    def _normals(self, points: Tensor, owner: Tensor, carved: Tensor) -> Tensor:
        material = self.materials[owner]
        same = self.materials[None] == material[:, None]
        distance = self.forms.distances(points)
        weight = torch.softmax(torch.where(same, -distance / NORMAL_BLEND, -torch.inf), dim=1)
        blends = (material == Material.SKIN) | (material == Material.HAIR)
        alone = torch.nn.functional.one_hot(owner, len(self.materials)).to(weight.dtype)
        weight = torch.where(blends[:, None], weight, alone)
        normals = self.forms.gradient(points, weight / self.forms.steepness(points))
        if bool(carved.any()):
            chosen = torch.zeros(int(carved.sum()), len(self.cut_parts))
            slot = {part: index for index, part in enumerate(self.cut_parts)}
            chosen[torch.arange(len(chosen)), torch.tensor([slot[part] for part in owner[carved].tolist()])] = 1.0
            normals[carved] = -self.cuts.gradient(points[carved], chosen)
        return torch.nn.functional.normalize(normals, dim=-1)

    def _open_sky(self, points: Tensor, normals: Tensor) -> Tensor:
        distance = self.forms.distances(points + normals * OCCLUSION_REACH)
        if self.cut_parts:  # hair that was cut away does not darken the face
            distance[:, self.cut_parts] = distance[:, self.cut_parts].clamp_min(0.02)
        return (distance.amin(dim=1) / OCCLUSION_REACH).clamp(0.0, 1.0)


class _Forms:
    """K quadratic forms, with their products arranged as (points, features) @ (features, K)."""

    def __init__(self, shapes: list[Ellipsoid]) -> None:
        maps = torch.stack([shape.unit_map() for shape in shapes]) if shapes else torch.zeros(0, 3, 3)
        self.centres = torch.tensor([shape.centre for shape in shapes]).view(-1, 3)
        self.smallest_axis = torch.tensor([min(shape.axes) for shape in shapes])
        self.q = maps.transpose(1, 2) @ maps  # (K, 3, 3)
        self.q_squared = self.q @ self.q
        self.q_features = self.q.reshape(-1, 9).T.contiguous()  # (9, K)
        self.q_centres = torch.einsum("kij,kj->ki", self.q, self.centres)  # (K, 3)
        self.constant = (self.q_centres * self.centres).sum(-1)  # (K,)

    def interval(self, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Entry and exit depth (N, K) of each ray through each ellipsoid; inf where it misses."""
        offset = origin - self.centres
        q_offset = torch.einsum("kij,kj->ki", self.q, offset)
        a = _squares(directions) @ self.q_features
        b = directions @ q_offset.T
        c = (q_offset * offset).sum(-1) - 1.0
        discriminant = b.square() - a * c
        root = discriminant.clamp_min(0.0).sqrt()
        missed = discriminant <= 0
        enter = ((-b - root) / a).masked_fill_(missed, torch.inf)
        return enter, ((-b + root) / a).masked_fill_(missed, torch.inf)

    def distances(self, points: Tensor) -> Tensor:
        """(P, K): approximate signed distance of points (P, 3) to each surface, exact on it."""
        square = _squares(points) @ self.q_features - 2.0 * points @ self.q_centres.T + self.constant
        return (square.clamp_min(1e-6).sqrt() - 1.0) * self.smallest_axis

    def steepness(self, points: Tensor) -> Tensor:
        """(P, K): length of Q (x - c), so that `gradient` can mix normals of equal length."""
        features = self.q_squared.reshape(-1, 9).T
        linear = torch.einsum("kij,kj->ki", self.q_squared, self.centres)
        square = _squares(points) @ features - 2.0 * points @ linear.T + (linear * self.centres).sum(-1)
        return square.clamp_min(1e-6).sqrt()

    def gradient(self, points: Tensor, weights: Tensor) -> Tensor:
        """(P, 3): sum over parts of weights (P, K) times Q (x - c)."""
        mixed = (weights @ self.q_features.T).view(-1, 3, 3)
        return torch.einsum("pij,pj->pi", mixed, points) - weights @ self.q_centres


def _squares(vectors: Tensor) -> Tensor:
    """(P, 9): the outer product of each vector with itself."""
    return (vectors[:, :, None] * vectors[:, None, :]).view(-1, 9)
