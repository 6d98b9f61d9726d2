"""Search for faces in a photograph by BlazeFace (Bazarevsky et al. 2019), at several sizes and in four orientations.

The network sees 128 x 128 px and finds faces of a tenth of that and more, turned in the picture by up to about 45
degrees. It is therefore shown windows of a pyramid of the picture, each level also turned by quarters.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from models.faces.alignment import Array
from models.faces.tflite import TfliteNetwork

WINDOW_PX, STRIDE_PX = 128, 64
LEVELS = 3  # of the pyramid, each twice as fine: a window is the whole picture, half of it, a quarter
OBLONG = 2.0  # sides' ratio from which the coarsest window is the shorter side, as for panoramas
STRIDES = ((8, 2), (16, 6))  # px between the anchors of each grid, and anchors at each place
THRESHOLD = 0.6  # score of a face; a cat reaches 0.49
SAME = 0.4  # share of the smaller of two boxes that lies in the other, from which they are one face
OUTPUTS = ("regressors", "classificators")


class Detection(NamedTuple):
    """Face in a picture, px: box (4,) left, top, right, bottom; its eyes (2, 2), the left one of an upright face first.

    score: in [0, 1].
    """

    box: Array
    eyes: Array
    score: float


class BlazeFace:
    """BlazeFace's short range network, of MediaPipe."""

    def __init__(self, file: Path) -> None:
        """Load `face_detection_short_range.tflite`."""
        self.network = TfliteNetwork(file)

    def find(self, rgb: np.ndarray) -> list[Detection]:
        """Find the faces of a picture (H, W, 3) uint8, best score first.

        Upright ones are found from about a thirtieth of the longer side, others from about a fifteenth. A face may be
        found in two neighbouring orientations, with different eyes.
        """
        levels = pyramid(rgb)
        upright = [each for level in levels for each in self._scan(level, 0, rgb)]
        turned = [[each for level in levels[:-1] for each in self._scan(level, turns, rgb)] for turns in (1, 2, 3)]
        return _best_first([upright, *turned])

    def find_turned(self, rgb: np.ndarray) -> list[Detection]:
        """Find the smaller ones of the faces that do not stand upright, best score first."""
        finest = pyramid(rgb)[-1]
        return _best_first([self._scan(finest, turns, rgb) for turns in (1, 2, 3)])

    def _scan(self, level: np.ndarray, turns: int, rgb: np.ndarray) -> list[Detection]:
        """Detections in one level (h, w, 3), turned by quarters to the left, in px of the picture."""
        turned = np.ascontiguousarray(np.rot90(level, turns))
        found = [
            Detection((each.box.reshape(2, 2) + corner).ravel(), each.eyes + corner, each.score)
            for corner in windows(turned.shape[1], turned.shape[0])
            for each in self._see(turned[corner[1] : corner[1] + WINDOW_PX, corner[0] : corner[0] + WINDOW_PX])
        ]
        return [_turn_back(each, turns, level, rgb) for each in found]

    def _see(self, window: np.ndarray) -> list[Detection]:
        """Detections in one window (128 or less, 128 or less, 3), px of the window; what is missing is black."""
        pixels = np.zeros((WINDOW_PX, WINDOW_PX, 3), dtype=np.float32)
        pixels[: window.shape[0], : window.shape[1]] = window
        places, logits = self.network.run(pixels / 127.5 - 1, OUTPUTS)
        scores = 1 / (1 + np.exp(-np.clip(logits[:, 0].astype(np.float64), -100, 100)))
        likely = np.flatnonzero(scores >= THRESHOLD)
        # Per anchor: the box's centre and size, then six points of which the first two are the eyes; px from its place.
        values, centres = places[likely].astype(np.float64), anchors()[likely]
        middle, half = centres + values[:, :2], values[:, 2:4] / 2
        boxes = np.concatenate([middle - half, middle + half], axis=1)
        eyes = values[:, 4:8].reshape(-1, 2, 2) + centres[:, None]
        return [Detection(*each) for each in zip(boxes, eyes, scores[likely].tolist(), strict=True)]


@cache
def anchors() -> Array:
    """Centres of the 896 anchors, (896, 2) px of the window."""
    grids = []
    for stride, each in STRIDES:
        axis = (np.arange(WINDOW_PX // stride) + 0.5) * stride
        x, y = np.meshgrid(axis, axis)
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), each, axis=0))
    return np.concatenate(grids)


def pyramid(rgb: np.ndarray) -> list[np.ndarray]:
    """Sizes (h, w, 3) of a picture in which the windows are searched, coarsest first; none larger than the picture."""
    height, width = rgb.shape[:2]
    first = max(height, width) if max(height, width) <= OBLONG * min(height, width) else min(height, width)
    scales = [WINDOW_PX * 2**level / first for level in range(LEVELS)]
    scales = [scale for level, scale in enumerate(scales) if level == 0 or scale <= 1]
    levels: list[np.ndarray] = []
    source = rgb
    for scale in reversed(scales):  # each from the one before: the picture itself may be large
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        source = cv2.resize(source, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        levels.append(source)
    return levels[::-1]


def windows(width: int, height: int) -> list[Array]:
    """Corners (2,) px of the windows that cover a level, each half over the one before."""

    def starts(side: int) -> list[int]:
        last = max(0, side - WINDOW_PX)
        return [*range(0, last, STRIDE_PX), last]

    return [np.array([x, y]) for y in starts(height) for x in starts(width)]


def drop_repeats(found: list[Detection]) -> list[Detection]:
    """Keep the best of the detections that lie on each other, best score first."""
    kept: list[Detection] = []
    for each in sorted(found, key=lambda detection: -detection.score):
        if all(overlap(each.box, other.box) < SAME for other in kept):
            kept.append(each)
    return kept


def _best_first(orientations: list[list[Detection]]) -> list[Detection]:
    kept = [each for found in orientations for each in drop_repeats(found)]
    return sorted(kept, key=lambda detection: -detection.score)


def overlap(first: Array, second: Array) -> float:
    """Common area of two boxes (4,), of the smaller one's."""
    sides = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None)
    smaller = min(float(np.prod(box[2:] - box[:2])) for box in (first, second))
    return float(np.prod(sides)) / smaller if smaller > 0 else 0.0


def _turn_back(found: Detection, turns: int, level: np.ndarray, rgb: np.ndarray) -> Detection:
    """Map a detection from a turned level to the picture."""
    points = np.concatenate([found.box.reshape(2, 2), found.eyes])
    height, width = level.shape[:2]
    for turn in range(turns):  # np.rot90 takes (x, y) of a picture to (y, width - x)
        side = width if (turns - turn) % 2 == 1 else height
        points = np.stack([side - points[:, 1], points[:, 0]], axis=1)
    points = points * [rgb.shape[1] / width, rgb.shape[0] / height]
    box = np.concatenate([points[:2].min(axis=0), points[:2].max(axis=0)])
    return Detection(box, points[2:], found.score)
