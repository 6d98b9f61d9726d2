"""Cameras: the 25-float label of EG3D, where a camera stands for a yaw and a pitch, and where a point lands.

The one statement of our conventions:

- world: x right (of the viewer in front of the face), y up, z towards the frontal camera; the head fills
  [-0.5, 0.5]^3.
- camera: x right, y down, z forward (OpenCV). `cam2world` (4, 4) has these axes and the camera's position as
  columns.
- `intrinsics` (3, 3) are normalised by the image size: [[f, 0, cx], [0, f, cy], [0, 0, 1]].
- a label is the 16 numbers of `cam2world` row by row, then the 9 of `intrinsics`.
- yaw and pitch are radians, 0 is frontal; yaw > 0 moves the camera to +x, pitch > 0 moves it up (+y).
- image coordinates are in [0, 1], x to the right and y down; pixel (row, col) of R has its centre at
  ((col+.5)/R, (row+.5)/R).
- depth is the distance along the unit ray, in world units.
"""

import torch
from torch import Tensor

FOCAL = 4.2647  # FFHQ's focal length over image width, in EG3D's labels
FOV_DEG = 18.837  # the field of view that EG3D's code gives to that focal length
RADIUS = 2.7
TARGET = (0.0, 0.0, 0.2)
LABEL_SIZE = 25

Angle = float | Tensor


def look_at(yaw: Angle, pitch: Angle, radius: float = RADIUS, target: tuple[float, float, float] = TARGET) -> Tensor:
    """Cameras on the sphere around the world's origin that look at `target`.

    yaw, pitch: radians, numbers or tensors that broadcast to (B,).  Returns cam2world (B, 4, 4).
    """
    yaw_rad, pitch_rad = torch.broadcast_tensors(_as_vector(yaw), _as_vector(pitch))
    position = radius * torch.stack(
        [yaw_rad.sin() * pitch_rad.cos(), pitch_rad.sin(), yaw_rad.cos() * pitch_rad.cos()], dim=-1
    )
    return aim(position, position.new_tensor(target))


def aim(position: Tensor, target: Tensor) -> Tensor:
    """cam2world (B, 4, 4) of cameras at `position` (B, 3) looking at `target` (3,) or (B, 3), upright; world units."""
    forward = _normalise(target - position)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=position.dtype, device=position.device).expand_as(forward)
    right = -_normalise(torch.linalg.cross(up, forward))
    down = _normalise(torch.linalg.cross(forward, right))
    cam2world = torch.eye(4, dtype=position.dtype, device=position.device).repeat(len(position), 1, 1)
    cam2world[:, :3, :3] = torch.stack([right, down, forward], dim=-1)
    cam2world[:, :3, 3] = position
    return cam2world


def intrinsics(focal: float = FOCAL, cx: float = 0.5, cy: float = 0.5) -> Tensor:
    """Normalised pinhole intrinsics (3, 3)."""
    return torch.tensor([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])


def camera_label(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """cam2world (B, 4, 4), intrinsics (3, 3) or (B, 3, 3).  Returns labels (B, 25)."""
    batch = len(cam2world)
    flat = intrinsics.to(cam2world).reshape(-1, 9).expand(batch, 9)
    return torch.cat([cam2world.reshape(batch, 16), flat], dim=1)


def split_label(label: Tensor) -> tuple[Tensor, Tensor]:
    """label (B, 25).  Returns cam2world (B, 4, 4) and intrinsics (B, 3, 3)."""
    return label[:, :16].reshape(-1, 4, 4), label[:, 16:25].reshape(-1, 3, 3)


def orbit_label(yaw: Angle, pitch: Angle, focal: float = FOCAL) -> Tensor:
    """Labels (B, 25) of the standard orbit: radius 2.7, looking at (0, 0, 0.2)."""
    return camera_label(look_at(yaw, pitch), intrinsics(focal))


def varied_label(yaw: Tensor, pitch: Tensor, fov_deg: Tensor, cx: Tensor, cy: Tensor) -> Tensor:
    """Labels (B, 25) of the standard orbit whose focal length and principal point differ from FFHQ's, all (B,).

    yaw, pitch: radians.  fov_deg: added to the field of view, degrees.  cx, cy: added to 0.5, shares of the picture.
    """
    half = torch.deg2rad(torch.full_like(fov_deg, FOV_DEG / 2))
    focal = FOCAL * (half.tan() / (half + torch.deg2rad(fov_deg) / 2).tan())
    own = intrinsics().repeat(len(focal), 1, 1)
    own[:, 0, 0] = own[:, 1, 1] = focal
    own[:, 0, 2], own[:, 1, 2] = 0.5 + cx, 0.5 + cy
    return camera_label(look_at(yaw, pitch), own)


def project(points: Tensor, label: Tensor) -> Tensor:
    """Project points into the image.

    points: (B, N, 3) or (N, 3), world.  label: (B, 25).  Returns (B, N, 2) in [0, 1] inside the image, x
    right, y down.
    """
    cam2world, intrinsic = split_label(label)
    offset = points - cam2world[:, None, :3, 3]
    camera_points = offset @ cam2world[:, :3, :3]  # the rotation's inverse, applied to rows
    image = camera_points @ intrinsic.to(camera_points).transpose(1, 2)
    return image[..., :2] / image[..., 2:]


def orbit_angles(label: Tensor) -> tuple[Tensor, Tensor]:
    """label (B, 25).  Returns yaw and pitch (B,) in radians of the camera's position."""
    x, y, z = split_label(label)[0][:, :3, 3].unbind(1)
    return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def mirror_label(label: Tensor) -> Tensor:
    """The label of the mirrored image, whose principal point lies on the other side; label and result (B, 25)."""
    sign = torch.ones(LABEL_SIZE, dtype=label.dtype, device=label.device)
    sign[[1, 2, 3, 4, 8]] = -1.0
    mirrored = label * sign
    mirrored[:, 17] = 0.0 - mirrored[:, 17]  # skew; never -0.0, which has other bytes
    mirrored[:, 18] = 1.0 - mirrored[:, 18]
    return mirrored


def _as_vector(angle: Angle) -> Tensor:
    return torch.as_tensor(angle, dtype=torch.float32).reshape(-1)


def _normalise(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
