"""Conversion of pictures between files (uint8, rows of RGB) and tensors (channels first, [-1, 1])."""

import numpy as np
import torch
from torch import Tensor


def signed(images: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """images: (B, H, W, 3) uint8.  Returns (B, 3, H, W) float in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_bytes(images: Tensor) -> np.ndarray:
    """images: (B, 3, H, W), clamped to [-1, 1].  Returns (B, H, W, 3) uint8."""
    levels = (images.detach().clamp(-1, 1) + 1.0) * 127.5 + 0.5
    pixels: np.ndarray = levels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    return pixels


def to_levels(values: np.ndarray | Tensor) -> np.ndarray:
    """Return the nearest of the 256 levels, uint8.  values: any shape, in [0, 1]."""
    levels: np.ndarray = (np.asarray(values) * 255.0 + 0.5).astype(np.uint8)
    return levels
