"""Colours as sRGB: by primaries and transfer curve, or by an ICC profile.

Codes of primaries and curves are those of ITU-T H.273 (CICP), which PNG, AVIF and videos use. Reference white of HDR is
203 cd/m2 (ITU-R BT.2408) and becomes sRGB's white; brighter light is compressed by the curve that FFmpeg and mpv call
mobius.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageCms import ImageCmsTransform

SRGB_CURVE, PQ, HLG = "srgb", "pq", "hlg"
HDR_CURVES = {16: PQ, 18: HLG}
HDR_WHITE = 203.0  # cd/m2
PEAKS = {PQ: 1000 / HDR_WHITE, HLG: 3.7741181}  # brightest light, in whites; white is HLG's level 0.75
KNEE = 0.9  # linear light up to which the compression of HDR changes nothing
SAME = 2  # levels of 255; a profile that moves no colour further is sRGB
NEAR, NEAR_XY = 0.05, 0.002  # a gamma and chromaticities this near to sRGB's are sRGB's, rounded
STRIP = 256  # rows converted at a time

_D65 = (0.3127, 0.3290)
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
_PRIMARIES = {  # x and y of red, green, blue, white
    1: _BT709,
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65),
    7: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *_D65),
    22: (0.63, 0.34, 0.295, 0.605, 0.155, 0.077, *_D65),
}
# Curves of cameras (BT.709, BT.601, BT.2020) are left out: screens show such pictures by a curve like sRGB's.
_CURVES: dict[int, float | str] = {4: 2.2, 5: 2.8, 8: 1.0, **HDR_CURVES}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "I;16": "GRAY", "CMYK": "CMYK", "LAB": "LAB"}
_PROBES = {"RGB": "RGB", "L": "L", "I;16": "L"}  # modes that may be sRGB already, by the one that is tried


class Space(NamedTuple):
    """Colour space of pixels.

    primaries: x and y of red, green, blue and white.  curve: the exponent that gives linear light, or a name.
    """

    primaries: tuple[float, ...] = _BT709
    curve: float | str = SRGB_CURVE


SRGB = Space()
ADOBE_RGB = Space((0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *_D65), 563 / 256)


def coded_space(primaries: int, curve: int) -> Space:
    """Return the space of two codes of H.273; what is unknown counts as sRGB's."""
    return Space(_PRIMARIES.get(primaries, _BT709), _CURVES.get(curve, SRGB_CURVE))


def noted_space(gamma: float | None, chromaticity: tuple[float, ...] | None) -> Space:
    """Return the space of a PNG's gAMA and cHRM.

    gamma: the exponent that encoded linear light.  chromaticity: x and y of white, red, green, blue.
    """
    curve: float | str = SRGB_CURVE
    if gamma and not np.isclose(gamma, 1 / 2.2, rtol=NEAR):
        curve = 1 / gamma
    primaries = SRGB.primaries
    if chromaticity and len(chromaticity) == 8 and min(chromaticity[1::2]) > 0:
        said = (*chromaticity[2:], *chromaticity[:2])
        primaries = said if np.abs(np.subtract(said, primaries)).max() > NEAR_XY else primaries
    return Space(primaries, curve)


def to_srgb(pixels: np.ndarray, space: Space) -> np.ndarray:
    """pixels: (H, W, 3) uint8 or uint16 of a space, full range.  Returns (H, W, 3) uint8; sRGB in uint8 as it is."""
    if space == SRGB and pixels.dtype == np.uint8:
        return pixels
    light, encoded = _to_light(space.curve, np.iinfo(pixels.dtype).max + 1), _from_light()
    matrix = _to_bt709(space.primaries).T
    out = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), STRIP):
        linear = light[pixels[top : top + STRIP]] @ matrix
        if space.curve in PEAKS:
            brightest = np.maximum(linear.max(axis=2, keepdims=True), 1e-6)
            linear *= _compress(brightest, PEAKS[str(space.curve)]) / brightest
        out[top : top + STRIP] = encoded[(linear.clip(0, 1) * (len(encoded) - 1) + 0.5).astype(np.uint16)]
    return out


def by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert an opaque picture by its ICC profile to RGB; None for a profile that is broken or of another mode.

    A picture whose profile is sRGB keeps its pixels.
    """
    from PIL import ImageCms

    transform = _transform(profile, image.mode)
    if transform is None or (image.mode in _PROBES and _changes_nothing(profile, _PROBES[image.mode])):
        return None
    return ImageCms.applyTransform(image, transform)


def lab_profile() -> bytes:
    """Return the profile of CIE L*a*b* pixels that have none of their own."""
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    from PIL import ImageCms

    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode in ("L", "I;16"):
        flags |= ImageCms.Flags.NOOPTIMIZE  # which makes dark grey up to 8 levels darker
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES.get(mode):
            return None
        return ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@functools.lru_cache(maxsize=16)
def _changes_nothing(profile: bytes, mode: str) -> bool:
    """Whether a profile is sRGB, in RGB or grey, but for rounding."""
    from PIL import Image, ImageCms

    transform = _transform(profile, mode)
    assert transform is not None, mode
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(cube) if mode == "RGB" else Image.fromarray(levels[None])
    moved = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return bool(np.abs(moved - np.asarray(probe.convert("RGB"))).max() <= SAME)


@functools.lru_cache(maxsize=16)
def _to_light(curve: float | str, levels: int) -> np.ndarray:
    """(levels,) float32: the linear light of each level, where 1 is (HDR: reference) white."""
    signal = np.arange(levels) / (levels - 1)
    if curve == SRGB_CURVE:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    elif curve == PQ:  # SMPTE ST 2084
        root = signal ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light *= 10_000 / HDR_WHITE
    elif curve == HLG:
        # Light of the scene: on a screen of 334 cd/m2, which a usual one is near to, HLG's own gamma is 1 (BT.2100).
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light *= PEAKS[HLG]
    else:
        light = signal ** float(curve)
    return light.astype(np.float32)


@functools.cache
def _from_light() -> np.ndarray:
    """(65536,) uint8: sRGB of linear light in steps of 1 / 65535."""
    light = np.arange(65536) / 65535
    signal = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (signal * 255 + 0.5).astype(np.uint8)


def _compress(light: np.ndarray, peak: float) -> np.ndarray:
    """Mobius: the identity up to the knee with its slope there, and 1 at the peak."""
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    curve = (b * b + 2 * b * KNEE + KNEE**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= KNEE, light, curve)


@functools.lru_cache(maxsize=16)
def _to_bt709(primaries: tuple[float, ...]) -> np.ndarray:
    """(3, 3) float32: linear light of these primaries -> of sRGB's, white to white."""
    here, there = _to_xyz(primaries), _to_xyz(_BT709)
    white, seen = _BRADFORD @ there.sum(axis=1), _BRADFORD @ here.sum(axis=1)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(white / seen) @ _BRADFORD
    return (np.linalg.inv(there) @ adapted @ here).astype(np.float32)


def _to_xyz(primaries: tuple[float, ...]) -> np.ndarray:
    """(3, 3): columns are red, green and blue, scaled to add up to white."""
    x, y = np.array(primaries).reshape(4, 2).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return np.asarray(xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3]))
