"""Distance between faces by face-api's face_recognition_model: dlib's ResNet (He et al. 2016, King 2017).

It is not ArcFace, and its distances are not cosines: two pictures of a person mostly lie below 0.6.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_PX = 150
MEAN_RGB = (122.782, 117.001, 104.298)
# Blocks in their order; `_down` halves the size, and pads the channels where there are more of them.
BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
WEIGHTS, MANIFEST = "face_recognition_model.bin", "face_recognition_model-weights_manifest.json"


class FaceDescriptor(nn.Module):
    """Faces to 128 numbers, whose Euclidean distance says how different two people are."""

    def __init__(self, folder: Path) -> None:
        """Load face-api's files: arrays of 8 bits, each with a scale and a smallest value, and a few of 32."""
        super().__init__()
        self.weights = nn.ParameterDict()  # convolutions as (O, I, h, w)
        data, at = (folder / WEIGHTS).read_bytes(), 0
        for group in json.loads((folder / MANIFEST).read_text(encoding="utf-8")):
            for entry in group["weights"]:
                count, scaling = int(np.prod(entry["shape"])), entry.get("quantization")
                stored = np.frombuffer(data, np.uint8 if scaling else np.float32, count, at).reshape(entry["shape"])
                at += stored.nbytes
                array = stored * np.float32(scaling["scale"]) + np.float32(scaling["min"]) if scaling else stored.copy()
                value = torch.from_numpy(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
                self.weights[_key(entry["name"])] = nn.Parameter(value.contiguous())
        assert at == len(data), "the manifest describes other weights"
        self.eval().requires_grad_(False)

    def forward(self, faces: Tensor) -> Tensor:
        """faces: (B, 3, 150, 150), RGB in [0, 255].  Returns (B, 128)."""
        x = (faces - faces.new_tensor(MEAN_RGB)[:, None, None]) / 255
        x = F.max_pool2d(F.relu(self._convolve(x, "conv32_down", stride=2)), 3, 2)
        for name in BLOCKS:
            x = self._block(x, name)
        return x.mean(dim=(2, 3)) @ self.weights["fc"]

    @torch.no_grad()
    def embed(self, faces: np.ndarray) -> Tensor:
        """(B, 128) of faces (B, 150, 150, 3) uint8, RGB."""
        pixels = torch.from_numpy(np.ascontiguousarray(faces.transpose(0, 3, 1, 2))).float()
        return self(pixels.to(self.weights["fc"].device))

    def _block(self, x: Tensor, name: str) -> Tensor:
        """Residual block: two convolutions, beside the input or its halved form."""
        down = "_down" in name
        y = F.relu(self._convolve(x, f"{name}/conv1", stride=2 if down else 1))
        y = self._convolve(y, f"{name}/conv2")
        if down:
            x = F.avg_pool2d(x, 2)
            # As in dlib, what is smaller is filled with zeros behind its last row, column and channel.
            rows, columns = x.shape[2] - y.shape[2], x.shape[3] - y.shape[3]
            y = F.pad(y, (0, max(0, columns), 0, max(0, rows)))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)

    def _convolve(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """Convolution with bias, scale and shift: at stride 1 padded to the input's size, at stride 2 not at all."""
        kernel, bias = self.weights[_key(f"{name}/conv/filters")], self.weights[_key(f"{name}/conv/bias")]
        padding = kernel.shape[-1] // 2 if stride == 1 else 0
        y = F.conv2d(x, kernel, bias, stride, padding)
        scale, shift = (self.weights[_key(f"{name}/scale/{part}")] for part in ("weights", "biases"))
        return y * scale[:, None, None] + shift[:, None, None]


def _key(name: str) -> str:
    """Name of a weight as a parameter: dots and slashes are not allowed there."""
    return name.replace("/", "_")
