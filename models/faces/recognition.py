"""Identity of faces in pictures: each is turned and cut to the place at which its network learned to see faces.

ArcFace reads faces that a similarity transform puts onto five points of a 112 px square. The embedded network reads
portraits as the stage align cuts them; a view from the side is cut the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from models.camera import project
from models.faces.alignment import Array, apply_affine, crop_transform, framing, invert_affine
from models.faces.pnp import canonical_face
from models.judges.arcface import FACE_PX, ArcFace
from models.judges.identity import INPUT_PX, IdentityNet
from models.pixels import signed

if TYPE_CHECKING:
    from models.faces.landmarks import LandmarkNet
    from models.faces.mediapipe_faces import MediaPipeFaces

# The standard places of ArcFace's five points (Deng et al. 2019), px of its 112 px square: left eye, right eye, nose
# tip, left mouth corner, right mouth corner. Published from the centre of the first pixel; here from its corner.
ARCFACE_TEMPLATE: Array = 0.5 + np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
SURE = 0.3  # least confidence of a detector; below it the camera tells where the face is
SAME_PX = 0.2  # px of the network's input: a crop this near to the whole picture is the picture itself


@dataclass(frozen=True)
class Recogniser:
    """Identity network, and the ways to find the five points of a face."""

    network: IdentityNet | ArcFace
    detector: LandmarkNet | MediaPipeFaces | None = None
    world: str = "embedded"

    @torch.no_grad()
    def embed(self, images: np.ndarray, points: np.ndarray) -> Tensor:
        """Return unit vectors (B, D) of faces; the cosine of two measures whether they are the same person.

        images: (B, H, W, 3) uint8.  points: (B, 5, 2) in [0, 1], x right, y down.
        """
        device = next(self.network.parameters()).device
        faces = [self.cut(signed(image[None]), face) for image, face in zip(images, points, strict=True)]
        return self.network(torch.cat(faces).to(device))

    def embed_seen(self, images: np.ndarray, cameras: ArrayLike) -> Tensor:
        """Return the vectors (B, D) of faces (B, H, W, 3) uint8 whose cameras (B, 25) are known."""
        return self.embed(images, self.find(images, cameras))

    def find(self, images: np.ndarray, cameras: ArrayLike) -> Array:
        """Return points (B, 5, 2) in [0, 1]: detected, or those of the standard face before the camera.

        images: (B, H, W, 3) uint8.  cameras: labels (B, 25).
        """
        labels = torch.from_numpy(np.asarray(cameras, dtype=np.float32))
        face = torch.from_numpy(canonical_face(self.world).mean).float()
        expected = project(face[None], labels).double().numpy()
        if self.detector is None:
            return expected
        found, confidence = self.detector.detect(images)
        return np.where((confidence >= SURE)[:, None, None], found.astype(np.float64), expected)

    def cut(self, picture: Tensor, points: Array) -> Tensor:
        """Cut the face out of a picture (1, 3, H, W) in [-1, 1], as the network reads it. Gradients go through.

        points: (5, 2) in [0, 1] of the picture.  Returns (1, 3, h, w).
        """
        height, width = picture.shape[-2:]
        places = points * [width, height]
        if isinstance(self.network, ArcFace):
            return cut_face(picture, similarity(places, ARCFACE_TEMPLATE / FACE_PX), FACE_PX)
        return cut_face(picture, crop_transform(places, framing(self.world)), INPUT_PX)


def similarity(points: Array, template: Array) -> Array:
    """Return the turn, scale and shift (2, 3) that bring points (N, 2) nearest to a template (N, 2) (Umeyama 1991).

    Least squares over the four numbers of a similarity, so that a face is never mirrored.
    """
    x, y = points.T
    one, none = np.ones(len(points)), np.zeros(len(points))
    system = np.concatenate([np.stack([x, -y, one, none], axis=1), np.stack([y, x, none, one], axis=1)])
    (cosine, sine, right, down), *_ = np.linalg.lstsq(system, template.T.ravel(), rcond=None)
    return np.array([[cosine, -sine, right], [sine, cosine, down]])


def cut_face(picture: Tensor, crop: Array, size: int) -> Tensor:
    """Cut a crop (1, 3, size, size), antialiased; past the picture's rim the rim repeats.

    picture: (1, 3, H, W).  crop: (2, 3) px of the picture -> [0, 1].
    """
    height, width = picture.shape[-2:]
    whole = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])
    if np.abs(apply_affine(crop, whole) - whole / [width, height]).max() * size <= SAME_PX:
        if picture.shape[-2:] == (size, size):  # sampling it once more would only blur it
            return picture
        return interpolate(picture, (size, size), mode="bilinear", antialias=True, align_corners=False)
    inverse = invert_affine(crop)
    # Average several places of the picture for one of the crop, so that none of its pixels is left out.
    step_px = float(np.hypot(*inverse[:, 0])) / size
    fine = size * max(1, int(np.ceil(step_px - 0.01)))
    centres = (np.stack(np.meshgrid(np.arange(fine), np.arange(fine)), axis=-1) + 0.5) / fine
    places = 2 * apply_affine(inverse, centres) / [width, height] - 1
    grid = torch.from_numpy(places[None]).to(picture)
    sampled = grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return avg_pool2d(sampled, fine // size)
