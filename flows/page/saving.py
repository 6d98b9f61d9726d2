"""Files of an edited head that a visitor saves."""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import encode_png
from flows.page import figures
from tasks.student.edit_files import Products

if TYPE_CHECKING:
    from tasks.student.portrait3d import Portrait3D

PICTURE, VIEWS, TURNTABLE, MESH = "edited.png", "views.zip", "turntable.mp4", "head.glb"
BUTTONS = {PICTURE: "Picture", VIEWS: "Views", TURNTABLE: "Turntable", MESH: "Mesh"}


def save_file(head: "Portrait3D | None", name: str) -> str:
    """Return a link that saves one of these files. Its file is in the page's own folder while it is made."""
    if head is None:
        raise UserError("there is no edited head yet", expected="edit a portrait first")
    return figures.file(make_file(head, name), name)


def make_file(head: "Portrait3D", name: str) -> bytes:
    """Make a file, as `stillroom edit` does."""
    if name == PICTURE:
        return encode_png(np.asarray(head.own_view()))
    if name == VIEWS:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for number, view in enumerate(head.views(Products.views)):
                archive.writestr(f"view_{number:02d}.png", encode_png(view))
        return packed.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        return (head.save_video(path) if name == TURNTABLE else head.save_mesh(path)).read_bytes()
