"""Deep3DFaceRecon's results for portraits: a file each (`.mat` or `.json`), or EG3D's `cameras.json` of them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import PROCEDURAL, Settings
from tasks.sources.files import Listing
from tasks.sources.joining import About, join_file, join_files
from tasks.sources.memory import derived, remembered
from tasks.sources.names import without_suffix
from tasks.sources.opening import open_source
from tasks.sources.walk import locate, walk

CAMERAS = "cameras.json"
SUFFIXES = (".json", ".mat")  # the latter counts where both are there
PREFIX = "reconstruction "  # of a file's name among the sources of a partition
# Coefficients of Microsoft's Deep3DFaceReconstruction, in TensorFlow: places of the angles and the translation.
COEFFICIENTS, ANGLES, TRANSLATION = 257, slice(224, 227), slice(254, 257)


def find_reconstructions(settings: Settings) -> About | None:
    """Find the reconstructions of the portraits; None where none are given.

    Raises UserError where they are not there, or name none of the pictures.
    """
    if settings.align.reconstructions is None or settings.portraits.source == PROCEDURAL:
        return None
    path, listing = find_path(settings.align.reconstructions), open_source(settings.portraits).listing
    if path.is_file():
        poses = _read_cameras(path)
        return derived("cameras", path, (poses, listing), lambda: join_file(path, poses, listing, "camera"))
    if not path.is_dir():
        raise UserError(
            f"align.reconstructions: there is no {shown_path(path)}",
            expected="a folder of Deep3DFaceRecon's .mat files, or EG3D's cameras.json",
        )
    names = walk(path)
    return derived("reconstructions", path, (names, listing), lambda: _of_files(path, names.names, listing))


def _of_files(folder: Path, names: list[str], listing: Listing) -> About:
    paths = {
        without_suffix(name): locate(folder, name)
        for suffix in SUFFIXES
        for name in names
        if name.lower().endswith(suffix)
    }
    if not paths:
        raise UserError(
            f"align.reconstructions: {shown_path(folder)} holds none",
            expected=f"files of Deep3DFaceRecon: {' or '.join(SUFFIXES)}",
        )
    return join_files(paths, listing, "reconstruction")


def read_reconstructions(found: About, pictures: tuple[str, ...]) -> dict[str, np.ndarray | str]:
    """Read poses (4, 4) of these pictures, or the problem of one. Others have no entry."""
    if found.file is not None:
        poses = _read_cameras(found.file)
        return {name: poses[found.names[name]] for name in pictures if name in found.names}
    return {name: _read_one(found.files[name]) for name in pictures if name in found.files}


def _read_cameras(path: Path) -> dict[str, np.ndarray | str]:
    return remembered("cameras", path, lambda: _parse_cameras(path))


def _parse_cameras(path: Path) -> dict[str, np.ndarray | str]:
    try:
        document = json.loads(path.read_bytes())
        return {str(name): np.array(entry["pose"], dtype=np.float64) for name, entry in document.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{shown_path(path)} cannot be read",
            cause=getattr(error, "strerror", None) or f"{type(error).__name__}: {error}",
            expected='{"name.jpg": {"pose": 4x4, "intrinsics": 3x3}, ...}',
        ) from None


def _read_one(path: Path) -> np.ndarray | str:
    """A result holds `angle` (1, 3) in rad and `trans` (1, 3); a .json may hold them as lists, or the `pose` itself."""
    from models.faces.reconstruction import camera_pose  # needs SciPy, which a plan does without

    try:
        held = _load(path)
        if "pose" in held:
            return np.array(held["pose"], dtype=np.float64)
        return camera_pose(*_angles_and_place(held))
    except OSError as error:
        return f"unreadable reconstruction: {path.name}: {error.strerror or error}"
    except Exception as error:
        # SciPy raises nearly anything on a damaged file; it is one portrait rejected.
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return f"unusable reconstruction: {path.name}: {said}"


def _load(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if path.suffix.lower() == ".mat":
        if b"MATLAB 7.3" in data[:32] or data.startswith(b"\x89HDF"):
            raise UserError("MATLAB 7.3 is not read: save it with -v7")
        from scipy.io import loadmat

        held: dict[str, Any] = loadmat(path)
        return held
    held = json.loads(data)
    if not isinstance(held, dict):
        raise UserError(f"angle and trans are expected, found a {type(held).__name__}")
    return held


def _angles_and_place(held: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Angles (3,) in rad and translation (3,) of a result."""
    if {"angle", "trans"} <= held.keys():
        numbers = [np.array(held[name], dtype=np.float64).ravel() for name in ("angle", "trans")]
    elif "coeff" in held:
        vector = np.array(held["coeff"], dtype=np.float64).ravel()
        if len(vector) != COEFFICIENTS:
            raise UserError(f"coeff of one face, {COEFFICIENTS} numbers, is expected, found {len(vector)}")
        numbers = [vector[ANGLES], vector[TRANSLATION]]
    else:
        known = ", ".join(name for name in held if not name.startswith("__"))
        raise UserError(f"angle and trans, or coeff, are expected, found {known or 'nothing'}")
    angles, moved = numbers
    if len(angles) != 3 or len(moved) != 3 or not np.isfinite([*angles, *moved]).all():
        raise UserError(f"three finite angles and a finite place are expected, found {angles} and {moved}")
    if np.abs(angles).max() > np.pi:
        raise UserError(f"angles in radians are expected, found {np.abs(angles).max():.4g}: degrees?")
    return angles, moved
