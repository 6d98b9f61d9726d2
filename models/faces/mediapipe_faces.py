"""Faces in photographs by MediaPipe's FaceLandmarker, an optional package with a model file that the user gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from models.checkpoints import WeightsError
from models.faces.landmark_layouts import detect_largest

MOST_FACES = 5  # faces searched for in a picture; more than one is a reason to reject it


class MediaPipeFaces:
    """MediaPipe's face landmarker, with the interface of `landmarks.LandmarkNet`."""

    def __init__(self, landmarker: Any, path: Path | None = None) -> None:
        """path: the model file, which an exported student carries."""
        self.landmarker, self.path = landmarker, path

    @classmethod
    def load(cls, path: Path) -> Self:
        """From `face_landmarker.task`. Raises WeightsError where the package is missing or cannot read the file."""
        try:
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise WeightsError(
                f"landmarks by MediaPipe need its package\n  cause     {error}\n"
                "  hint      pip install mediapipe    (or leave paper.landmarks in configs/models.yaml as it was)"
            ) from None
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=MOST_FACES,
        )
        try:
            return cls(vision.FaceLandmarker.create_from_options(options), path)
        except (ValueError, RuntimeError, OSError) as error:
            raise WeightsError(
                f"{path.name} is not a model of MediaPipe's FaceLandmarker\n  file      {path}\n"
                f"  cause     {(str(error).splitlines() or ['-'])[0][:160]}\n"
                "  expected  face_landmarker.task"
            ) from None

    def faces(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Landmarks (478, 2), px, of every face in a picture (H, W, 3) uint8."""
        import mediapipe

        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
        found = self.landmarker.detect(picture).face_landmarks
        size = np.array([rgb.shape[1], rgb.shape[0]], dtype=np.float64)
        return [np.array([[point.x, point.y] for point in face]) * size for face in found]

    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `landmark_layouts.detect_largest`."""
        return detect_largest(
            lambda rgb: sorted(self.faces(rgb), key=lambda face: -float(np.ptp(face, axis=0).prod())), images
        )
