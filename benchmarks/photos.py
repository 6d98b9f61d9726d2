"""Accuracy of the faces that are found in photographs: `python -m benchmarks.photos [--portraits FOLDER]`.

Cameras are measured on rendered heads of real shape (tests/data/heads, see `benchmarks.photo_heads`), whose frame
differs from EG3D's by one constant rotation; crops on a folder of aligned portraits, each pasted into a larger picture.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from data_catalog.samples.images import Decoded, read_image
from models.faces import alignment, pnp
from models.faces.alignment import Array
from models.faces.photo_faces import PhotoFace, PhotoFaces
from models.zoo import zoo

HEADS = Path(__file__).resolve().parents[1] / "tests" / "data" / "heads"
FRONTAL_DEG = 45.0
LARGER = (1200, 1600)  # height and width of the picture that portraits are pasted into, px
SIDES_PX = (160, 900)  # of pasted portraits

Estimate = Callable[[PhotoFaces, PhotoFace], Array]  # a face to its label (25,)


class Head(NamedTuple):
    """Rendered head: rgb (H, W, 3) uint8, the label of its camera (25,), and yaw and pitch."""

    name: str
    rgb: np.ndarray
    camera: Array
    yaw_deg: float
    pitch_deg: float


class Seen(NamedTuple):
    """Head with the rotations (3, 3) of its true camera, through the middle of the crop, and of the found ones."""

    head: Head
    true: Array
    found: dict[str, Array]


def by_mesh(detector: PhotoFaces, face: PhotoFace) -> Array:
    """Fit the canonical mesh to all landmarks, and correct for the gain of the turn: the camera that `align` takes."""
    return detector.pose(face).camera


def by_mesh_alone(detector: PhotoFaces, face: PhotoFace) -> Array:
    """Fit the canonical mesh to all landmarks."""
    pose = detector.pose(face)
    points = alignment.apply_affine(pose.crop, face.points[:, :2])
    return pnp.fit_camera(points, detector.face._replace(gain=(1.0, 1.0))).label


def by_five(detector: PhotoFaces, face: PhotoFace) -> Array:
    """Fit the mean face of EG3D's preprocessing to five points."""
    points = alignment.apply_affine(detector.pose(face).crop, face.five)
    return pnp.fit_camera(points, pnp.canonical_face("paper")).label


WAYS: dict[str, Estimate] = {
    "468 points, gain": by_mesh,
    "468 points": by_mesh_alone,
    "5 points, mean face": by_five,
}


def read_heads(folder: Path = HEADS) -> list[Head]:
    """Read the rendered heads with their cameras."""
    heads = []
    for row in json.loads((folder / "cameras.json").read_text(encoding="utf-8")):
        picture = read_image(folder / row["name"])
        assert isinstance(picture, Decoded), f"{row['name']} cannot be read"
        heads.append(Head(row["name"], picture.rgb, np.array(row["camera"]), row["yaw_deg"], row["pitch_deg"]))
    return heads


def see_heads(detector: PhotoFaces, heads: list[Head]) -> list[Seen]:
    """Find the camera of each head in every way; heads without a clear face are left out."""
    seen = []
    for head in heads:
        clear = [face for face in detector.find(head.rgb) if face.clear]
        if not clear:
            continue
        size = (head.rgb.shape[1], head.rgb.shape[0])
        true = alignment.effective_camera(head.camera, detector.pose(clear[0]).crop, size)
        found = {way: alignment.centred_rotation(estimate(detector, clear[0])) for way, estimate in WAYS.items()}
        seen.append(Seen(head, alignment.centred_rotation(true), found))
    return seen


def constant_rotation(seen: list[Seen], way: str) -> Array:
    """Estimate the rotation (3, 3) from the heads' frame to EG3D's: the mean over all heads."""
    turns = np.stack([each.found[way] @ each.true.T for each in seen])
    return np.asarray(Rotation.from_matrix(turns).mean().as_matrix())


def rotation_errors_deg(seen: list[Seen], way: str, most_yaw_deg: float) -> list[float]:
    """Angles between the true and the found cameras of heads up to a yaw, after one constant rotation."""
    constant = constant_rotation([each for each in seen if abs(each.head.yaw_deg) <= FRONTAL_DEG], way)
    return [
        alignment.rotation_angle_deg(each.found[way], constant @ each.true)
        for each in seen
        if abs(each.head.yaw_deg) <= most_yaw_deg
    ]


def measure_cameras(detector: PhotoFaces, heads: list[Head]) -> list[dict[str, Any]]:
    """Return a row for each way and range of yaws."""
    seen = see_heads(detector, heads)
    rows = []
    for most in (FRONTAL_DEG, 90.0):
        asked = sum(abs(head.yaw_deg) <= most for head in heads)
        for way in WAYS:
            errors = rotation_errors_deg(seen, way, most)
            median, ninety = np.median(errors), np.percentile(errors, 90)
            turn = Rotation.from_matrix(constant_rotation(seen, way)).magnitude()
            rows.append(
                {
                    "yaw up to, deg": round(most),
                    "camera by": way,
                    "found": f"{len(errors)} of {asked}",
                    "median, deg": f"{median:.2f}",
                    "90 %, deg": f"{ninety:.2f}",
                    "constant, deg": f"{np.rad2deg(turn):.1f}",
                }
            )
    return rows


def paste(portrait: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Array]:
    """Paste a portrait (S, S, 3) uint8 into a larger picture. Returns it, and the affine (2, 3), portrait px -> px."""
    side, angle = rng.uniform(*SIDES_PX), rng.uniform(0, 2 * np.pi)
    scale = side / portrait.shape[0]
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reach = side / 2 * (abs(np.cos(angle)) + abs(np.sin(angle)))
    height, width = LARGER
    middle = [rng.uniform(min(reach, length / 2), max(length - reach, length / 2)) for length in (width, height)]
    affine = np.concatenate([linear, (np.array(middle) - linear @ np.full(2, portrait.shape[0] / 2))[:, None]], axis=1)
    picture = cv2.resize(
        rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    pixels = affine.copy()
    pixels[:, 2] += pixels[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV has whole coordinates in the middles of pixels
    source = portrait
    if scale < 1:  # shrunk with antialiasing first
        small = round(portrait.shape[0] * scale)
        source = cv2.resize(portrait, (small, small), interpolation=cv2.INTER_AREA)
        ratio = portrait.shape[0] / small
        pixels[:, :2] = affine[:, :2] * ratio
        pixels[:, 2] = affine[:, 2] + pixels[:, :2] @ [0.5, 0.5] - 0.5
    cv2.warpAffine(source, pixels, (width, height), picture, cv2.INTER_CUBIC, cv2.BORDER_TRANSPARENT)
    return picture, affine


def crop_error(detector: PhotoFaces, portrait: np.ndarray, rng: np.random.Generator) -> float | None:
    """Distance of a pasted portrait's crop from its own, at the corners, in crop sides; None if it is not found."""
    own = [face for face in detector.find(portrait) if face.clear]
    picture, affine = paste(portrait, rng)
    again = [face for face in detector.find(picture) if face.clear]
    if not own or not again:
        return None
    square = [[0, 0], [1, 0], [0, 1], [1, 1]]
    expected = detector.pose(own[0]).crop
    corners = alignment.apply_affine(alignment.invert_affine(detector.pose(again[0]).crop), square)
    back = alignment.apply_affine(expected, alignment.apply_affine(alignment.invert_affine(affine), corners))
    return float(np.hypot(*(back - square).T).max())


def measure_crops(detector: PhotoFaces, folder: Path, times: int) -> list[dict[str, Any]]:
    """Paste each portrait of a folder several times."""
    rng = np.random.default_rng(0)
    errors: list[float | None] = []
    for path in sorted(folder.glob("*.png")):
        picture = read_image(path)
        if isinstance(picture, Decoded):
            errors += [crop_error(detector, picture.rgb, rng) for _ in range(times)]
    known = [error for error in errors if error is not None]
    median, ninety = np.median(known), np.percentile(known, 90)
    found = f"{len(known)} of {len(errors)}"
    return [{"portraits pasted": folder.name, "found": found, "median": f"{median:.2%}", "90 %": f"{ninety:.2%}"}]


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a Markdown table."""
    print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, default=HEADS, help="folder of benchmarks.photo_heads")
    parser.add_argument("--portraits", type=Path, help="folder of aligned portraits, PNG")
    parser.add_argument("--times", type=int, default=5, help="pastings of each portrait")
    given = parser.parse_args()
    detector: PhotoFaces = zoo.load("faces", "embedded")
    show(measure_cameras(detector, read_heads(given.heads)))
    if given.portraits is not None:
        show(measure_crops(detector, given.portraits, given.times))


if __name__ == "__main__":
    main()
