"""Landmarks that come with portraits: one JSON file of them, or a text file for each picture as EG3D has them.

A face is 5, 68, 468 or 478 points (see `models.faces.landmark_layouts`); a picture may have none, or several.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import Settings
from models.faces.landmark_layouts import FIVE, to_five
from tasks.sources.files import DETECTIONS, LANDMARKS, PROCEDURAL, open_source


def find_landmark_files(settings: Settings, block: int) -> dict[str, Path] | None:
    """Return the landmark files of a block; None where its portraits have none.

    {"landmarks.json": path} of align.landmarks or of the portraits' folder; or, by picture, the files of EG3D's
    detections/ folders, a picture without a file left out.
    """
    if settings.align.landmarks is not None:
        path = find_path(settings.align.landmarks)
        if not path.exists():
            raise UserError(f"align.landmarks: there is no file {shown_path(path)}")
        return _text_files(path, settings, block) if path.is_dir() else {LANDMARKS: path}
    if settings.portraits.source == PROCEDURAL:
        return None
    source = open_source(settings.portraits)
    if source.is_zip:
        return None
    if (source.root / LANDMARKS).is_file():
        return {LANDMARKS: source.root / LANDMARKS}
    names = source.block(block, settings.portraits.block_size)
    files = {name: _detection_file(source.root, name) for name in names}
    if not any(path.parent.is_dir() for path in files.values()):
        return None
    return {name: path for name, path in files.items() if path.is_file()}


def read_landmarks(files: dict[str, Path]) -> dict[str, np.ndarray | str]:
    """Points (5, 2) px by name, or why there are none that can be used.

    files: {"landmarks.json": path} of {name: [[x, y], ...]}, or by name EG3D's text files, "x y" a line. In JSON, the
    value may also be a list of faces.
    """
    if set(files) != {LANDMARKS}:
        return {name: _face(_text_points(path)) for name, path in files.items()}
    path = files[LANDMARKS]
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _face(points) for name, points in document.items()}
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"the landmark file {shown_path(path)} cannot be read",
            cause=error,
            expected='{"name.png": [[x, y], ... five points in pixels], ...}',
        ) from None


def _text_points(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def _face(value: Any) -> np.ndarray | str:
    """Return the five points of the single face, or a reason; with several faces it is unknown which one is meant."""
    if not value:
        return "no face found: the landmark file has none"
    try:
        points = np.array(value, dtype=np.float64)
        if points.ndim == 2 and len(points) > FIVE and len(points) % FIVE == 0 and len(points) < 68:
            points = points.reshape(-1, FIVE, points.shape[1])
        if points.ndim == 3 and len(points) > 1:
            return f"several faces: the landmark file has {len(points)}"
        return to_five(points[0] if points.ndim == 3 else points)
    except (ValueError, TypeError) as error:
        return f"unusable landmarks: {error}"


def _text_files(folder: Path, settings: Settings, block: int) -> dict[str, Path]:
    """The text file of each picture of a block, a picture without one left out."""
    source = open_source(settings.portraits)
    names = source.block(block, settings.portraits.block_size)
    places = {name: [folder / f"{key}.txt" for key in source.file_keys(name)] for name in names}
    found = {name: next((path for path in paths if path.is_file()), None) for name, paths in places.items()}
    return {name: path for name, path in found.items() if path is not None}


def _detection_file(root: Path, name: str) -> Path:
    path = PurePosixPath(name)
    return root / path.parent / DETECTIONS / f"{path.stem}.txt"
