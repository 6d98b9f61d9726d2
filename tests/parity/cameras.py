"""The reference's own camera samplers, with their other angles."""

import math

import torch
from torch import Tensor

from models.camera import RADIUS, TARGET, Angle, aim, camera_label, intrinsics


def focal_from_fov(fov_deg: float) -> float:
    """EG3D's focal length for a field of view; pi and sqrt(2) are truncated there, and labels depend on it."""
    return float(1.0 / (math.tan(fov_deg * 3.14159 / 360.0) * 1.414))


def eg3d_position(yaw: Angle, pitch: Angle, radius: float = RADIUS) -> Tensor:
    """Camera positions (B, 3) for EG3D's angles: pi/2, pi/2 is frontal, a smaller yaw moves the camera to -x.

    EG3D's pitch is not a polar angle: arccos(1 - 2 pitch / pi), equal to it only at the horizon.
    """
    yaw_rad, pitch_rad = torch.broadcast_tensors(
        *(torch.as_tensor(each, dtype=torch.float32).reshape(-1) for each in (yaw, pitch))
    )
    polar = torch.arccos(1.0 - 2.0 * pitch_rad.clamp(1e-5, math.pi - 1e-5) / math.pi)
    azimuth = math.pi - yaw_rad
    direction = torch.stack([polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()], dim=-1)
    return radius * direction


def eg3d_look_at(
    yaw: Angle, pitch: Angle, radius: float = RADIUS, target: tuple[float, float, float] = TARGET
) -> Tensor:
    """cam2world (B, 4, 4) for EG3D's angles (see `eg3d_position`)."""
    position = eg3d_position(yaw, pitch, radius)
    return aim(position, position.new_tensor(target))


def eg3d_label(pitch: Angle, yaw: Angle, fov_deg: float = 18.837, cx: float = 0.5, cy: float = 0.5) -> Tensor:
    """Labels (B, 25) as 3DPE makes them for its videos and views; pitch comes first there, angles are EG3D's."""
    return camera_label(eg3d_look_at(yaw, pitch), intrinsics(focal_from_fov(fov_deg), cx, cy))
