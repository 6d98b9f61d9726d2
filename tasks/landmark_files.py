"""Landmarks that come with portraits: one JSON file of them, or a text file for each picture as EG3D has them."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_catalog.errors import UserError
from data_catalog.places import find_path, shown_path
from data_catalog.settings import Settings
from tasks.portrait_sources import DETECTIONS, LANDMARKS, PROCEDURAL, open_source


def find_landmark_files(settings: Settings, block: int) -> dict[str, Path] | None:
    """Where the landmarks of a block are; None where its portraits come without any.

    {"landmarks.json": path} of align.landmarks or of the portraits' folder; or, by picture, the files of EG3D's
    detections/ folders, a picture without a file left out.
    """
    if settings.align.landmarks is not None:
        path = find_path(settings.align.landmarks)
        if not path.is_file():
            raise UserError(f"align.landmarks: there is no file {shown_path(path)}")
        return {LANDMARKS: path}
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


def read_landmarks(files: dict[str, Path]) -> dict[str, np.ndarray | None]:
    """Points (5, 2) px by name, None where an entry is not five points.

    files: {"landmarks.json": path} of {name: [[x, y] five times]}, or by name EG3D's text files of five lines "x y".
    """
    if set(files) != {LANDMARKS}:
        return {name: _points(_text_points(path)) for name, path in files.items()}
    path = files[LANDMARKS]
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _points(points) for name, points in document.items()}
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"the landmark file {shown_path(path)} cannot be read",
            cause=error,
            expected='{"name.png": [[x, y], ... five points in pixels], ...}',
        ) from None


def _text_points(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def _points(value: Any) -> np.ndarray | None:
    try:
        points = np.array(value, dtype=np.float64)
    except (ValueError, TypeError):
        return None
    return points if points.shape == (5, 2) and np.isfinite(points).all() else None


def _detection_file(root: Path, name: str) -> Path:
    path = PurePosixPath(name)
    return root / path.parent / DETECTIONS / f"{path.stem}.txt"
