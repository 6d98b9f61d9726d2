"""Contact sheets and turntables as PNG and GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP_PX = 2
CAPTION_PX = 14  # of letters
FRAME_MS = 90  # of a turntable


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], scale: int = 1) -> np.ndarray:
    """rows of pictures (H, W, 3) uint8, equal in size.  Returns one picture, each enlarged `scale` times."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    sheet = np.full(
        (len(rows) * (height * scale + GAP_PX) - GAP_PX, columns * (width * scale + GAP_PX) - GAP_PX, 3),
        255,
        dtype=np.uint8,
    )
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height * scale + GAP_PX), j * (width * scale + GAP_PX)
            large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet[top : top + height * scale, left : left + width * scale] = large
    return sheet


def caption(sheet: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Write names above the columns of a contact sheet (H, W, 3) uint8."""
    side = (sheet.shape[1] + GAP_PX) // len(names)
    strip = Image.new("RGB", (sheet.shape[1], CAPTION_PX + 2 * GAP_PX), "white")
    draw = ImageDraw.Draw(strip)
    for place, name in enumerate(names):
        draw.text((place * side + GAP_PX, GAP_PX), name, fill="black", font=ImageFont.load_default(CAPTION_PX))
    return np.concatenate([np.asarray(strip), sheet])


def write_png(path: Path, picture: np.ndarray) -> Path:
    """picture: (H, W, 3) uint8."""
    Image.fromarray(picture).save(path)
    return path


def write_gif(path: Path, frames: Sequence[np.ndarray], scale: int = 1) -> Path:
    """frames (H, W, 3) uint8, shown in a loop."""
    images = [Image.fromarray(frame.repeat(scale, axis=0).repeat(scale, axis=1)) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0)
    return path
