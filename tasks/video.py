"""Pictures as a video file, through PyAV."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.errors import UserError

FPS = 24
MIN_SIDE = 256  # px; smaller pictures are enlarged, since players and 4:2:0 colour treat tiny ones badly
QUALITY = {"crf": "16", "preset": "medium"}  # of x264
SUFFIXES = (".mp4", ".mov", ".mkv")  # containers of H.264


def check_video_name(path: Path) -> None:
    """Raise UserError where the suffix is of no container for H.264."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write a video named '{path}'", expected=f"a name ending in {', '.join(SUFFIXES)}")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = FPS) -> Path:
    """frames: (H, W, 3) uint8, equal in size, taken one at a time.  The file appears when it is whole."""
    import av

    check_video_name(path)
    part = path.with_name(f".part-{path.name}")
    try:
        with av.open(str(part), "w") as container:
            images = (_enlarged(frame) for frame in frames)
            first = next(images, None)
            assert first is not None, "a video needs a frame"
            stream = container.add_stream("libx264", rate=fps, options=QUALITY)
            stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
            for image in itertools.chain([first], images):
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
            container.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _enlarged(picture: np.ndarray) -> Image.Image:
    """A whole number of times as large, and even: 4:2:0 stores colour for pairs of pixels."""
    height, width = picture.shape[:2]
    scale = max(1, -(-MIN_SIDE // min(height, width)))
    size = (width * scale + width * scale % 2, height * scale + height * scale % 2)
    image = Image.fromarray(picture)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
