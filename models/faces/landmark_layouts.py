"""Five points from any of the usual sets of facial landmarks: five, iBUG's 68, MediaPipe's 468 or 478."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from models.faces.alignment import Array

FIVE = 5
# Left eye, right eye, nose tip, left and right mouth corner of each set ("left" = smaller x of an upright face); an eye
# is the middle of its corners, as in the standard face of Deep3DFaceRecon.
IBUG = ((36, 39), (42, 45), (30,), (48,), (54,))
MEDIAPIPE = ((33, 133), (362, 263), (4,), (61,), (291,))
LAYOUTS = {68: IBUG, 468: MEDIAPIPE, 478: MEDIAPIPE}


def to_five(points: ArrayLike) -> Array:
    """points: (5 | 68 | 468 | 478, 2 or more), x and y first, px.  Returns (5, 2).

    Raises ValueError for any other number of points, or where one of the five is not finite.
    """
    given = np.asarray(points, dtype=np.float64)
    counts = ", ".join(str(count) for count in (FIVE, *LAYOUTS))
    if given.ndim != 2 or given.shape[1] < 2 or len(given) not in (FIVE, *LAYOUTS):
        raise ValueError(f"{counts} points x, y are expected, got {given.shape}")
    places = given[:, :2]
    if len(given) != FIVE:
        places = np.stack([places[list(group)].mean(axis=0) for group in LAYOUTS[len(given)]])
    if not np.isfinite(places).all():
        raise ValueError("a landmark is not a finite number")
    return places


def detect_largest(
    find_faces: Callable[[np.ndarray], list[Array]], images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the five points (B, 5, 2) in [0, 1] of the largest face in each picture, and 1 or, without any, 0.

    find_faces: from a picture (H, W, 3) uint8 to landmarks, px, the largest face first.  images: (B, H, W, 3) uint8.
    """
    points, sure = np.zeros((len(images), FIVE, 2)), np.zeros(len(images))
    for index, rgb in enumerate(images):
        found = find_faces(rgb)
        if found:
            points[index] = to_five(found[0]) / [rgb.shape[1], rgb.shape[0]]
            sure[index] = 1.0
    return points, sure
