"""Use a trained student: a portrait and a prompt in, the edited head seen from anywhere out."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from data_catalog.errors import UserError
from data_catalog.images import Rejected, read_image
from data_catalog.settings import Settings
from tasks import align
from tasks.pictures import write_gif
from tasks.portrait_sources import PROCEDURAL

if TYPE_CHECKING:
    from torch import Tensor

    from models.student import PromptKind, Student

TURNTABLE_FRAMES = 24
TURNTABLE_YAW = 0.5  # rad, each side; the student is trained on portraits, not on the back of a head
TURNTABLE_PITCH = 0.15  # rad

log = logging.getLogger(__name__)


class Portrait(NamedTuple):
    """An aligned portrait (H, W, 3) uint8, its camera label (25,), and where that came from."""

    rgb: np.ndarray
    camera: np.ndarray
    camera_source: str


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
    kind: PromptKind = "text" if reference is None else "image"
    with torch.no_grad():
        if reference is not None:
            tokens = zoo.load("mae", world, device).tokens(reference[None])
        else:
            tokens = zoo.load("clip", world, device).text_tokens([prompt or ""])
        triplane = student.encode(signed(portrait[None], device), tokens.to(device), kind)
    return EditedHead(student, triplane)


def read_portrait(path: Path, settings: Settings) -> Portrait:
    """A picture of the user's, aligned as the stage align would; without a face found, its middle square."""
    from models import zoo

    image = read_image(path, settings.portraits.max_pixels)
    if isinstance(image, Rejected):
        raise UserError(f"{path} cannot be taken as a portrait: {image.reason}", detail=image.detail or "-")
    if settings.portraits.source == PROCEDURAL:  # the embedded detector knows the procedural faces only
        detector = zoo.load("landmarks", settings.world, settings.run.device)
        try:
            points = align.detect(detector, image.rgb, settings)
            return _cut(image.rgb, align.fit_portrait(points, settings), settings)
        except align.Unusable as reason:
            log.warning("taken as aligned and frontal: %s", reason)
    return _cut(image.rgb, align.assume_frontal((image.rgb.shape[1], image.rgb.shape[0])), settings)


def _cut(rgb: np.ndarray, found: align.Aligned, settings: Settings) -> Portrait:
    picture = align.cut(rgb, found.crop, settings.align.size)
    return Portrait(picture, found.camera, found.camera_source)


def write_views(head: EditedHead, camera: np.ndarray, out: Path, views: int) -> list[Path]:
    """The edited portrait from its own camera (25,), `views` novel views from left to right, a turntable."""
    import torch

    from models.camera import orbit_label

    out.mkdir(parents=True, exist_ok=True)
    files = [out / "edited.png"]
    own = torch.as_tensor(camera, dtype=torch.float32)[None]
    Image.fromarray(head.look(own)[0]).save(files[0])
    if views:
        yaws = torch.linspace(-TURNTABLE_YAW, TURNTABLE_YAW, views) if views > 1 else torch.zeros(1)
        for number, picture in enumerate(head.look(orbit_label(yaws, 0.0))):
            files.append(out / f"view_{number:02d}.png")
            Image.fromarray(picture).save(files[-1])
    phase = torch.arange(TURNTABLE_FRAMES) * (2 * math.pi / TURNTABLE_FRAMES)
    turns = head.look(orbit_label(TURNTABLE_YAW * phase.sin(), TURNTABLE_PITCH * phase.cos()))
    return [*files, write_gif(out / "turntable.gif", list(turns))]
