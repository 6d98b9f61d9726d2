"""TFLite networks in OpenCV, one call at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

ENGINE_CLASSIC = 1  # cv2.dnn.ENGINE_CLASSIC: OpenCV's default engine loses an output of BlazeFace


class TfliteNetwork:
    """Network of a .tflite file. Threads may share it: OpenCV's own object keeps its input between two calls."""

    def __init__(self, file: Path) -> None:
        self._network = cv2.dnn.readNetFromTFLite(str(file), ENGINE_CLASSIC)
        self._lock = Lock()

    def run(self, pixels: np.ndarray, outputs: Sequence[str] = ()) -> list[np.ndarray]:
        """pixels: (H, W, 3) float32.  Returns the named outputs, or the last one, without their batch axis."""
        with self._lock:
            self._network.setInput(pixels.transpose(2, 0, 1)[None])
            found = self._network.forward(tuple(outputs)) if outputs else [self._network.forward()]
            return [np.squeeze(each, axis=0).copy() for each in found]
