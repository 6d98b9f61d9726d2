"""Landmarks that come with portraits: one JSON file of them, or a text file for each picture as EG3D has them.

A face is 5, 68, 468 or 478 points (see `models.faces.landmark_layouts`); a picture may have none, or several.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import PROCEDURAL, Settings
from models.faces.landmark_layouts import FIVE, to_five
from tasks.sources.cropping import Unusable
from tasks.sources.files import LANDMARKS, Source
from tasks.sources.joining import About, join_file, join_files
from tasks.sources.memory import derived, remembered
from tasks.sources.names import without_suffix
from tasks.sources.opening import open_source
from tasks.sources.walk import locate, walk

EXPECTED = '{"name.png": [[x, y], ... five points in pixels], ...}'
NOUN = "landmark file"
CROP = 2.5  # side of a crop, about, in extents of the five points
SHARES = 3.0  # px: five points nearer to one another are shares of the picture
FAR = 0.25  # of the picture's size: points further outside than that are of another picture


def find_landmarks(settings: Settings) -> About | None:
    """Find the landmark files of the portraits; None where there are none.

    They are those of align.landmarks (a JSON file, or a folder of text files), landmarks.json among the portraits, or
    EG3D's detections/ folders. Raises UserError where they name none of the pictures.
    """
    if settings.portraits.source == PROCEDURAL:
        return None if settings.align.landmarks is None else _find_given(find_path(settings.align.landmarks), None)
    source = open_source(settings.portraits)
    if settings.align.landmarks is not None:
        return _find_given(find_path(settings.align.landmarks), source)
    if source.is_zip:
        return None
    beside = source.beside(LANDMARKS)
    if beside is not None:
        return _of_json(source.path(beside), source, beside.removesuffix(LANDMARKS))
    return derived("detections", source.root, (source.listing,), lambda: _of_detections(source))


def read_landmarks(found: About, pictures: tuple[str, ...]) -> dict[str, np.ndarray | str]:
    """Read the points (5, 2) px of these pictures, or why there are none that can be used. Others have no entry."""
    if found.file is not None:
        known = _read_json(found.file)
        return {name: _face(known[found.names[name]]) for name in pictures if name in found.names}
    return {name: _read_text(found.files[name]) for name in pictures if name in found.files}


def check_points(points: np.ndarray, size: tuple[int, int], min_side: int) -> None:
    """Raise Unusable where five points cannot be those of a face in a picture, with the likely cause.

    points: (5, 2) raw px.  size: (width, height) of the picture.  min_side: px, of a crop.
    """
    eyes, mouth = (points[0] + points[1]) / 2, (points[3] + points[4]) / 2
    across, down = points[1] - points[0], mouth - eyes
    extent = float(np.ptp(points, axis=0).max())
    if 0 < extent < SHARES:
        span = f"found x {_span(points[:, 0])}, y {_span(points[:, 1])}"
        raise Unusable(f"points in pixels are expected: {span}, shares of the picture?")
    if 0 < extent * CROP < min_side:
        raise Unusable(f"too small a face: a crop of about {extent * CROP:.0f} px, portraits.min_side={min_side}")
    outside = np.maximum(-points, points - np.array(size)).max(axis=1)
    if (outside > 0).sum() > FIVE // 2 or (outside > FAR * max(size)).any():
        furthest = " ".join(f"{value:.0f}" for value in points[outside.argmax()])
        said = f"the picture has {size[0]}x{size[1]} px, a point lies at {furthest}"
        raise Unusable(f"landmarks lie outside the picture: {said}: points of a larger copy?")
    if across[0] * down[1] - across[1] * down[0] < 0:  # mirrored: no turned face looks so
        if abs(across[1]) > abs(across[0]) and abs(down[0]) > abs(down[1]):
            raise Unusable("x and y of the landmarks are exchanged")
        if down[1] < 0:
            raise Unusable("y of the landmarks points up: down is expected")
        raise Unusable("left and right of the landmarks are exchanged: the left eye is the one at the smaller x")


def _span(values: np.ndarray) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def _find_given(path: Path, source: Source | None) -> About:
    if path.is_dir():
        found, listing = walk(path), source.listing if source else None
        return derived("landmark files", path, (found, listing), lambda: join_files(_texts(path), listing, NOUN))
    if not path.exists():
        raise UserError(f"align.landmarks: there is no file {shown_path(path)}")
    return _of_json(path, source, "")


def _of_json(path: Path, source: Source | None, base: str) -> About:
    known = _read_json(path)
    listing = source.listing if source else None
    return derived("landmarks", path, (known, listing), lambda: join_file(path, known, listing, "face", base))


def _texts(folder: Path) -> dict[str, Path]:
    names = [name for name in walk(folder).names if name.lower().endswith(".txt")]
    return {without_suffix(name): locate(folder, name) for name in names}


def _of_detections(source: Source) -> About | None:
    found = {without_suffix(name): source.path(path) for name, path in source.listing.detections.items()}
    return join_files(found, source.listing, NOUN) if found else None


def _read_json(path: Path) -> dict[str, Any]:
    return remembered("landmarks", path, lambda: _parse_json(path))


def _parse_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())  # bytes: UTF-8 or UTF-16, with or without a byte order mark
        if isinstance(document, dict):
            return {str(name): points for name, points in document.items()}
        cause = f"it holds a {type(document).__name__}"
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
    raise UserError(f"the landmark file {shown_path(path)} cannot be read", cause=cause, expected=EXPECTED)


def _read_text(path: Path) -> np.ndarray | str:
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"unreadable landmarks: {error.strerror}"
    text = data.decode(json.detect_encoding(data), errors="replace")
    lines = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    return _face(lines)


def _face(value: Any) -> np.ndarray | str:
    """Return the five points of the single face, or a reason; with several faces it is unknown which one is meant."""
    if isinstance(value, dict):
        return f"unusable landmarks: a list of points x, y is expected, found {', '.join(list(value)[:5])}"
    if not value:
        return "no face found: the landmark file has none"
    try:
        points = np.array(_without_keys(value), dtype=np.float64)
        if points.ndim == 2 and len(points) > FIVE and len(points) % FIVE == 0 and len(points) < 68:
            points = points.reshape(-1, FIVE, points.shape[1])
        if points.ndim == 3 and len(points) > 1:
            return f"several faces: the landmark file has {len(points)}"
        return to_five(points[0] if points.ndim == 3 else points)
    except KeyError:
        return "unusable landmarks: points need x and y"
    except (ValueError, TypeError) as error:
        # NumPy speaks of its own types and of shapes.
        said = str(error) if str(error).startswith(("5, ", "a landmark")) else "points of two numbers x, y are expected"
        return f"unusable landmarks: {said}"


def _without_keys(value: Any) -> Any:
    """Points as lists, where they are {"x": .., "y": ..}."""
    if isinstance(value, dict):
        return [value["x"], value["y"]]
    return [_without_keys(each) for each in value] if isinstance(value, list) else value
