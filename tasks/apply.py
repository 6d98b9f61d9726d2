"""Use a trained student: a portrait and a prompt in, the edited head seen from anywhere out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data_catalog.errors import UserError
from data_catalog.images import Rejected, read_image
from data_catalog.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from models.student import Student

TURNTABLE_FRAMES = 24
TURNTABLE_YAW = 0.5  # rad, each side; the student is trained on portraits, not on the back of a head
FRAME_MS = 70


@dataclass(frozen=True)
class EditedHead:
    """A head in 3D. triplane: (1, 3*C, h, w)."""

    student: Student
    triplane: Tensor

    def look(self, labels: Tensor) -> np.ndarray:
        """labels: (N, 25) cameras.  Returns pictures (N, H, W, 3) uint8."""
        import torch

        from models.pixels import to_bytes

        with torch.no_grad():
            frames = [self.student.render(self.triplane, label[None]).image for label in labels]
        return to_bytes(torch.cat(frames))


def edit_head(
    student: Student,
    portrait: np.ndarray,
    prompt: str | None,
    reference: np.ndarray | None,
    settings: Settings,
) -> EditedHead:
    """Edit an aligned portrait (H, W, 3) uint8 as a text or a reference picture (H', W', 3) uint8 says."""
    import torch

    from models import zoo
    from models.pixels import signed

    world, device = settings.world, settings.run.device
    with torch.no_grad():
        if reference is not None:
            tokens, kind = zoo.load("mae", world, device).tokens(reference[None]), "image"
        else:
            tokens, kind = zoo.load("clip", world, device).text_tokens([prompt or ""]), "text"
        triplane = student.encode(signed(portrait[None], device), tokens.to(device), kind)
    return EditedHead(student, triplane)


def read_portrait(path: Path, size: int, settings: Settings) -> np.ndarray:
    """A picture of the user's as an aligned portrait (size, size, 3) uint8: its central square."""
    image = read_image(path, settings.portraits.max_pixels)
    if isinstance(image, Rejected):
        raise UserError(f"{path} cannot be taken as a portrait: {image.reason}", detail=image.detail or "-")
    height, width = image.rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image.rgb).crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def write_views(head: EditedHead, out: Path, views: int) -> list[Path]:
    """The edited portrait from the front, `views` novel views from left to right, a turntable."""
    import torch

    from models.camera import orbit_label

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "edited.png"]
    Image.fromarray(head.look(orbit_label(0.0, 0.0))[0]).save(files[0])
    if views:
        yaws = torch.linspace(-TURNTABLE_YAW, TURNTABLE_YAW, views) if views > 1 else torch.zeros(1)
        for number, picture in enumerate(head.look(orbit_label(yaws, 0.0))):
            files.append(out / f"view_{number:02d}.png")
            Image.fromarray(picture).save(files[-1])
    phase = torch.arange(TURNTABLE_FRAMES) * (2 * math.pi / TURNTABLE_FRAMES)
    turns = head.look(orbit_label(TURNTABLE_YAW * phase.sin(), 0.15 * phase.cos()))
    frames = [Image.fromarray(turn) for turn in turns]
    files.append(out / "turntable.gif")
    frames[0].save(files[-1], save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return files
