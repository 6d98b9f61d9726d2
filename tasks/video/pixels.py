"""Frames of a video as pictures: sRGB, upright, with square pixels, alpha on white.

Matrix, range, primaries and transfer curve are those of the file's tags. Without tags a large picture is BT.709's and a
small one BT.601's, as players take them. HDR (PQ, HLG) becomes SDR, see `data_catalog.samples.colour`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.samples.colour import HDR_CURVES, SRGB, coded_space, to_srgb

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

UNKNOWN = 2  # codes of H.273
BT709, BT601, BT2020 = 1, 5, 9  # of a matrix, for FFmpeg's swscale
_MATRICES = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: BT2020, 10: BT2020}
_UNREAD = {8: "YCgCo", 13: "BT.2020 of constant luminance", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}
LIMITED, FULL = 1, 2  # ranges
HD = (1280, 577)  # px, least width or height of an untagged picture that is taken as BT.709
SDR_HINT = "ffmpeg -i in.mp4 -vf libplacebo=color_primaries=bt709:color_trc=bt709:colorspace=bt709 out.mp4"


class Tags(NamedTuple):
    """Notes of a container on its pictures; colours are codes of H.273.  aspect: width of a pixel for its height."""

    aspect: Fraction
    primaries: int
    curve: int
    matrix: int
    range: int


def read_tags(stream: VideoStream) -> Tags:
    """Return the container's tags; to be called before decoding, which overwrites them by the pictures' own."""
    context = stream.codec_context
    return Tags(
        stream.sample_aspect_ratio or Fraction(1),
        int(context.color_primaries),
        int(context.color_trc),
        int(context.colorspace),
        int(context.color_range),
    )


def to_picture(frame: VideoFrame, tags: Tags) -> np.ndarray:
    """Return (H, W, 3) uint8.  tags: count where the frame has none.  Raises UserError for colours of no known kind."""
    tags = Tags(
        tags.aspect,
        tags.primaries if frame.color_primaries == UNKNOWN else int(frame.color_primaries),
        tags.curve if frame.color_trc == UNKNOWN else int(frame.color_trc),
        tags.matrix if frame.colorspace == UNKNOWN else int(frame.colorspace),
        int(frame.color_range) or tags.range,
    )
    return np.ascontiguousarray(_turn(_square(_to_srgb(frame, tags), tags.aspect), _display_matrix(frame)))


def shown_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return (width, height) with square pixels; the shorter side of a pixel is stretched, so that none is lost."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def _to_srgb(frame: VideoFrame, tags: Tags) -> np.ndarray:
    primaries = BT2020 if tags.curve in HDR_CURVES and tags.primaries == UNKNOWN else tags.primaries
    space = coded_space(primaries, tags.curve)
    alpha = any(component.is_alpha for component in frame.format.components)
    form = {(False, False): "rgb24", (False, True): "rgba", (True, False): "rgb48le", (True, True): "rgba64le"}
    converted = frame.reformat(
        format=form[space != SRGB, alpha],
        src_colorspace=_matrix(frame, tags),
        src_color_range=_range(frame, tags),
        dst_color_range=FULL,
    )
    pixels = converted.to_ndarray()
    rgb = to_srgb(pixels[..., :3], space)
    if not alpha:
        return rgb
    opacity = pixels[..., 3:].astype(np.float32) / (255 if pixels.dtype == np.uint8 else 65535)
    return (rgb * opacity + 255 * (1 - opacity) + 0.5).astype(np.uint8)


def _matrix(frame: VideoFrame, tags: Tags) -> int:
    """Return swscale's code of the way from Y'CbCr to RGB."""
    if tags.matrix in _UNREAD and not frame.format.is_rgb:
        raise UserError("the colours of the video are not read", found=_UNREAD[tags.matrix], hint=SDR_HINT)
    if tags.matrix in _MATRICES:
        return _MATRICES[tags.matrix]
    if tags.curve in HDR_CURVES:
        return BT2020
    return BT709 if frame.width >= HD[0] or frame.height >= HD[1] else BT601


def _range(frame: VideoFrame, tags: Tags) -> int:
    if tags.range in (LIMITED, FULL):
        return tags.range
    name = frame.format.name
    return FULL if frame.format.is_rgb or name.startswith(("yuvj", "gray", "ya8", "ya16")) else LIMITED


def _square(rgb: np.ndarray, aspect: Fraction) -> np.ndarray:
    from PIL import Image

    size = shown_size(rgb.shape[1], rgb.shape[0], aspect)
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return a, b, c, d: a point (x, y) is shown at (a x + c y, b x + d y)."""
    entry: Any = frame.side_data.get("DISPLAYMATRIX")
    if entry is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(entry), np.int32)[:5].tolist()
    return a, b, c, d


def _turn(rgb: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror by quarters, as the matrix says most nearly."""
    a, b, c, d = matrix
    right, down = a, d
    if abs(b) > abs(a):
        rgb, right, down = rgb.swapaxes(0, 1), c, b
    rgb = rgb[:, ::-1] if right < 0 else rgb
    return rgb[::-1] if down < 0 else rgb
