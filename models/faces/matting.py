"""Share of a person in each pixel, by MediaPipe's selfie segmentation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from models.faces.tflite import TfliteNetwork

FILE = "selfie_segmentation.tflite"
INPUT_PX = 256


class Matting:
    """Network that tells heads and shoulders from what is behind them."""

    def __init__(self, folder: Path) -> None:
        """Load `selfie_segmentation.tflite`."""
        self.network = TfliteNetwork(folder / FILE)

    def person(self, rgb: np.ndarray) -> np.ndarray:
        """rgb: (H, W, 3) uint8.  Returns (H, W) in [0, 1]: 1 is a person."""
        small = cv2.resize(rgb, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
        share = np.squeeze(self.network.run(small.astype(np.float32) / 255)[0])
        assert share.shape == (INPUT_PX, INPUT_PX), f"{share.shape} is no matte"
        full: np.ndarray = cv2.resize(share, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.clip(full, 0, 1)


def change_outside(matting: Matting, before: np.ndarray, after: np.ndarray) -> float | None:
    """Mean change of the pixels outside head and shoulders, in [0, 1]; None where a person fills the picture.

    before, after: (H, W, 3) uint8. What is a person in one of the two is inside.
    """
    outside = 1 - np.maximum(matting.person(before), matting.person(after))
    if outside.mean() < 0.01:
        return None
    change = np.abs(before.astype(np.float64) - after).mean(axis=2) / 255
    return float((change * outside).sum() / outside.sum())
