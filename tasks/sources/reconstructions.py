"""Deep3DFaceRecon's results for portraits: a file each (`.mat` or `.json`), or EG3D's `cameras.json` of them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import Settings
from tasks.sources.files import PROCEDURAL, open_source

CAMERAS = "cameras.json"
SUFFIXES = (".mat", ".json")
PREFIX = "reconstruction "  # of a file's name among the sources of a partition


def find_reconstructions(settings: Settings, block: int) -> dict[str, Path] | None:
    """Return the reconstructions of a block's portraits; None where none are given.

    {"reconstruction cameras.json": path}, or by picture: {"reconstruction a/b.png": path}.
    """
    if settings.align.reconstructions is None or settings.portraits.source == PROCEDURAL:
        return None
    path = find_path(settings.align.reconstructions)
    if path.is_file():
        return {PREFIX + CAMERAS: path}
    if not path.is_dir():
        raise UserError(
            f"align.reconstructions: there is no {shown_path(path)}",
            expected="a folder of Deep3DFaceRecon's .mat files, or EG3D's cameras.json",
        )
    source = open_source(settings.portraits)
    found: dict[str, Path] = {}
    for name in source.block(block, settings.portraits.block_size):
        places = (path / f"{key}{suffix}" for key in source.file_keys(name) for suffix in SUFFIXES)
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            found[PREFIX + name] = file
    return found


def read_reconstructions(files: dict[str, Path], settings: Settings) -> dict[str, np.ndarray | str]:
    """Read poses (4, 4) by picture, or the problem of one. `files` are those of `find_reconstructions`."""
    if PREFIX + CAMERAS not in files:
        return {name.removeprefix(PREFIX): _read_one(path) for name, path in files.items()}
    poses = _read_cameras(files[PREFIX + CAMERAS])
    source = open_source(settings.portraits)
    found: dict[str, np.ndarray | str] = {}
    for name in source.names:
        # EG3D's script writes .jpg, whatever the picture's suffix.
        names = [name, *(f"{key}{suffix}" for key in source.file_keys(name) for suffix in (".png", ".jpg", ""))]
        known = next((known for known in names if known in poses), None)
        if known is not None:
            found[name] = poses[known]
    return found


def _read_cameras(path: Path) -> dict[str, np.ndarray | str]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): np.array(entry["pose"], dtype=np.float64) for name, entry in document.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{shown_path(path)} cannot be read",
            cause=f"{type(error).__name__}: {error}",
            expected='{"name.jpg": {"pose": 4x4, "intrinsics": 3x3}, ...}',
        ) from None


def _read_one(path: Path) -> np.ndarray | str:
    """A result holds `angle` (1, 3) in rad and `trans` (1, 3); a .json may hold them as lists, or the `pose` itself."""
    from models.faces.reconstruction import camera_pose  # needs SciPy, which a plan does without

    try:
        held: dict[str, Any]
        if path.suffix == ".mat":
            from scipy.io import loadmat

            held = loadmat(path)
        else:
            held = json.loads(path.read_text(encoding="utf-8"))
            if "pose" in held:
                return np.array(held["pose"], dtype=np.float64)
        angles, moved = (np.array(held[name], dtype=np.float64).reshape(3) for name in ("angle", "trans"))
    except Exception as error:
        # SciPy raises nearly anything on a damaged file; it is one portrait rejected.
        return f"unusable reconstruction: {path.name}: {type(error).__name__}: {error}"
    return camera_pose(angles, moved)
