"""Golden files: outputs of the reference implementation, under weights and inputs that a seed defines.

Weights and inputs are never stored: every number is a function of (seed, name, shape), from Philox keyed by
sha256(f"{seed}:{name}"). A file keeps of each output its shape, a strided slice, and six statistics of the
whole.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Shape = Sequence[int]

CONSTANT_BUFFERS = ("resample_filter",)  # set by the constructor
PROJECTION = 5  # number of the statistic <x, +-1> / sqrt(n), which depends on elements outside the slice
_STYLEGAN_KEY = re.compile(r"^(backbone\.|superresolution\.|decoder\.net\.|mapping\.|b\d+\.|const$)")
_STYLEGAN_SCALES = {"const": 1.0, "noise_const": 1.0, "noise_strength": 0.02, "w_avg": 0.1, "weight": 1.0}


def _words(seed: int, name: str, count: int) -> np.ndarray:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    bits: np.ndarray = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return bits


def uniforms(seed: int, name: str, shape: Shape) -> np.ndarray:
    """float64 in [0, 1)."""
    return ((_words(seed, name, math.prod(shape)) >> np.uint64(11)) * 2.0**-53).reshape(shape)


def normals(seed: int, name: str, shape: Shape) -> np.ndarray:
    """float64 standard normals, by Box and Muller: all cosines, then all sines."""
    count = math.prod(shape)
    half = (count + 1) // 2
    draws = uniforms(seed, name, (2, half))
    radius, angle = np.sqrt(-2.0 * np.log(1.0 - draws[0])), 2.0 * np.pi * draws[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(shape)


def signs(name: str, count: int) -> np.ndarray:
    """+-1, float64; the same for every seed."""
    return 1.0 - 2.0 * (_words(0, name, count) >> np.uint64(63))


def weights(shapes: Mapping[str, Shape], seed: int) -> dict[str, np.ndarray]:
    """float32 values for every parameter and buffer but the constant ones."""
    filled = {}
    for key, shape in shapes.items():
        if key.endswith(CONSTANT_BUFFERS):
            continue
        scale, mean = _distribution(key, shape)
        values = mean + scale * normals(seed, key, shape)
        if len(shape) == 4 and shape[1] == 5 and shape[2] == 7:
            values[:, 3:] /= 256.0  # pixel indices go up to 511
        elif key == "decoder.net.2.weight":
            values[0] = 16.0 * (values[0] - values[0].mean())  # density: contrast, no constant
        elif key == "decoder.net.2.bias":
            values[0] += 0.5
        filled[key] = np.asarray(values, dtype=np.float32)
    return filled


def _distribution(key: str, shape: Shape) -> tuple[float, float]:
    """Scale and mean of the normal distribution that fills this tensor."""
    leaf = key.rsplit(".", 1)[-1]
    if _STYLEGAN_KEY.match(key):
        if "mapping.fc" in key:  # stored 100 times as large as used
            return (100.0 if leaf == "weight" else 10.0), 0.0
        if ".affine." in key:  # styles near 1
            return (0.5, 0.0) if leaf == "weight" else (0.1, 1.0)
        if leaf == "bias":
            return 0.1, 0.0
        if leaf in _STYLEGAN_SCALES:
            return _STYLEGAN_SCALES[leaf], (0.1 if leaf == "noise_strength" else 0.0)
    if leaf in ("cls_token", "pos_embed"):
        return 0.5, 0.0
    if len(shape) < 2:
        return (0.1, 1.0) if leaf == "weight" else (0.05, 0.0)
    fan_in = math.prod(shape[1:])
    gain = math.sqrt(2.0) if len(shape) == 4 and fan_in > 9 else 1.0
    if key.startswith("encoder.layer") and ".conv2." in key:
        gain = 0.5  # a residual trunk without batch norm
    return gain / math.sqrt(fan_in), 0.0


@dataclass(frozen=True)
class Golden:
    """Golden file of a case."""

    case: str
    seed: int
    meta: dict[str, Any]
    inputs: dict[str, np.ndarray]  # those that are stored
    outputs: dict[str, dict[str, np.ndarray]]

    @classmethod
    def load(cls, path: Path) -> "Golden":
        """Read a golden file, `.npz`."""
        inputs: dict[str, np.ndarray] = {}
        outputs: dict[str, dict[str, np.ndarray]] = {}
        with np.load(path) as archive:
            meta = json.loads(bytes(archive["meta"]))
            for name in archive.files:
                kind, _, rest = name.partition("/")
                if kind == "in":
                    inputs[rest] = archive[name]
                elif kind == "out":
                    output, field = rest.rsplit("/", 1)
                    outputs.setdefault(output, {})[field] = archive[name]
        return cls(meta["case"], meta["seed"], meta, inputs, outputs)

    def normal(self, name: str, shape: Shape, scale: float = 1.0) -> np.ndarray:
        """A named input, float32."""
        return (scale * normals(self.seed, f"input/{self.case}/{name}", shape)).astype(np.float32)

    def uniform(self, name: str, shape: Shape, low: float, high: float) -> np.ndarray:
        """A named input, float32 in [low, high)."""
        draws = uniforms(self.seed, f"input/{self.case}/{name}", shape)
        return (low + (high - low) * draws).astype(np.float32)

    def pixels(self, name: str, shape: Shape) -> np.ndarray:
        """A named input, uint8."""
        return np.floor(256.0 * uniforms(self.seed, f"input/{self.case}/{name}", shape)).astype(np.uint8)

    def smooth_planes(self, name: str, batch: int, size: int = 256) -> np.ndarray:
        """A triplane (batch, 96, size, size) of 16 x 16 cosines with deviation 1.5.

        White noise would show the rounding of importance sampling, not our mistakes.
        """
        waves = 16
        coefficients = normals(self.seed, f"input/{self.case}/{name}", (batch, 3, 32, waves, waves))
        basis = np.cos(np.pi * np.arange(waves)[None, :] * (np.arange(size) + 0.5)[:, None] / size)
        planes = np.einsum("npcab,ia,jb->npcij", coefficients, basis, basis, optimize=True)
        return (planes * (1.5 / planes.std())).astype(np.float32).reshape(batch, 96, size, size)

    def error(self, name: str, values: np.ndarray, confidence: np.ndarray | None = None) -> float:
        """Largest relative error of an output: of the slice over its rms, and of the whole tensor's
        projection. `confidence` in [0, 1], shaped like the values, scales the errors of single elements of the
        slice; the projection, in which every element has its part, is left out then.
        """
        stored = self.outputs[name]
        if tuple(values.shape) != tuple(stored["shape"]):
            return math.inf
        chosen = tuple(
            slice(int(start), None, int(step)) for start, step in zip(stored["starts"], stored["steps"], strict=True)
        )
        reference = stored["slice"].astype(np.float64)
        rms = float(np.sqrt(np.square(reference).mean())) or 1.0
        errors = np.abs(values[chosen].astype(np.float64) - reference)
        if confidence is not None:
            return float((errors * confidence[chosen]).max()) / rms
        in_slice = float(errors.max()) / rms
        flat = values.astype(np.float64).ravel()
        projection = float(flat @ signs(f"proj/{self.case}/{name}", flat.size)) / math.sqrt(flat.size)
        off = abs(projection - float(stored["stats"][PROJECTION]))
        return max(in_slice, off / (math.hypot(stored["stats"][0], stored["stats"][1]) or 1.0))
