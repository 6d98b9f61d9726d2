"""Table of the stage align: the portraits with their crops and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa

from data_catalog.samples.tables import Table

# Not fixed-size lists, which Parquet readers refuse where a value is null.
NUMBERS = pa.list_(pa.float64())


@dataclass(frozen=True, kw_only=True)
class Face:
    """Row of align.parquet: a portrait with its crop and camera, or why it has none."""

    portrait_id: Annotated[str, pa.string()]
    split: Annotated[str | None, pa.string()]
    name: Annotated[str, pa.string()] = ""
    camera: Annotated[list[float] | None, NUMBERS] = None  # of the aligned picture, EG3D's intrinsics unless given
    crop: Annotated[list[float] | None, NUMBERS] = None  # affine 2x3, raw px -> [0, 1] of the crop, row by row
    landmarks: Annotated[list[float] | None, NUMBERS] = None  # raw px, x then y of each; null without
    camera_source: Annotated[str | None, pa.string()] = None  # given, reconstruction, pnp, mesh or assumed_frontal
    reprojection: Annotated[float | None, pa.float64()] = None  # of the fit, rms, in crop sides; null without
    rotation_error_deg: Annotated[float | None, pa.float64()] = None  # to true_camera; null where that is unknown
    true_camera: Annotated[list[float] | None, NUMBERS] = None  # exact, of the crop, own intrinsics; null where unknown
    seed: Annotated[int | None, pa.int64()] = None  # of the procedural world; null elsewhere
    status: Annotated[str, pa.string()] = "ok"  # or rejected
    reason: Annotated[str, pa.string()] = ""
    # Further columns, of faces that were found in photographs; null in others.
    face_px: Annotated[float | None, pa.float64()] = None  # from forehead to chin, raw px
    face_score: Annotated[float | None, pa.float64()] = None  # of the detector, in [0, 1]
    blur: Annotated[float | None, pa.float64()] = None  # 0 sharp, 1 blurred
    yaw_deg: Annotated[float | None, pa.float64()] = None  # of the camera around the head
    pitch_deg: Annotated[float | None, pa.float64()] = None
    roll_deg: Annotated[float | None, pa.float64()] = None  # of the face in the photograph


SEEN = ("face_px", "face_score", "blur", "yaw_deg", "pitch_deg", "roll_deg")
FACES = Table("align.parquet", Face, further=SEEN)


def landmarks_of(face: Face) -> np.ndarray | None:
    """Return the landmarks (5, 2) in [0, 1] of the aligned picture; None where none were found or given."""
    if face.landmarks is None or face.crop is None:
        return None
    crop = np.reshape(face.crop, (2, 3))
    places: np.ndarray = np.reshape(face.landmarks, (-1, 2)) @ crop[:, :2].T + crop[:, 2]
    return places
