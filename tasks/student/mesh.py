"""The surface of a head in a triplane: marching cubes on its density, coloured by its own colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_catalog.config.errors import UserError

if TYPE_CHECKING:
    import trimesh

SUFFIXES = (".ply", ".glb", ".obj")  # those that keep vertex colours
RESOLUTION = 128  # samples along a side of the box
CHUNK = 2**17  # points decoded at once

# points (N, 3), world -> rgb (N, 3) in [0, 1] and opacity per world unit (N,)
Field = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def check_mesh_name(path: Path) -> None:
    """Raise UserError where the suffix is of no format that keeps colours."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write a mesh named '{path}'", expected=f"a name ending in {', '.join(SUFFIXES)}")


def extract_mesh(field: Field, level: float, side: float = 1.0, resolution: int = RESOLUTION) -> trimesh.Trimesh:
    """Extract the largest closed surface where the density is `level`.

    level: opacity per world unit.  side: world units of the box around the origin that is sampled.
    Vertices are world coordinates (see `models.camera`), faces wind so that normals point outwards.
    """
    import trimesh
    from skimage import measure

    from models.pixels import to_levels

    axis = (np.arange(resolution) + 0.5) / resolution * side - side / 2
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
    density = _evaluate(field, points)[1].reshape(resolution, resolution, resolution)
    solid = np.pad(density, 1)  # closed where the head meets the side of the box
    parts, count = measure.label(solid > level, return_num=True, connectivity=1)
    if not count:
        raise UserError("the head has no surface: its density is low everywhere", highest=f"{density.max():.3g}")
    head = np.bincount(parts.ravel())[1:].argmax() + 1
    solid[(parts != head) & (solid > level)] = 0  # pieces beside the head
    spacing = side / resolution
    # "ascent": density grows inwards, and normals have to point outwards.
    vertices, faces, _, _ = measure.marching_cubes(solid, level, spacing=(spacing,) * 3, gradient_direction="ascent")
    vertices += axis[0] - spacing  # the padding moved the grid by one sample
    colours = _evaluate(field, vertices.astype(np.float32))[0]
    levels = to_levels(colours.clip(0, 1))
    return trimesh.Trimesh(vertices, faces, vertex_colors=levels, process=False)


def write_mesh(path: Path, mesh: trimesh.Trimesh) -> Path:
    """Write a mesh in the format of its suffix."""
    check_mesh_name(path)
    mesh.export(path)
    return path


def _evaluate(field: Field, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The field at points (N, 3), in pieces that fit the memory."""
    pieces = [field(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)]
    rgb, density = zip(*pieces, strict=True)
    return np.concatenate(rgb), np.concatenate(density)
