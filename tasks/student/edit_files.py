"""`stillroom edit`: run a student on a user's portraits."""

import glob
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tqdm.contrib.logging import logging_redirect_tqdm

from data_catalog.config.errors import UserError
from data_catalog.samples.formats import is_picture_name
from data_catalog.workspace import Workspace
from tasks.pictures.sheets import write_gif, write_png
from tasks.pictures.video import check_video_name
from tasks.progress import Bar
from tasks.student.mesh import check_mesh_name

if TYPE_CHECKING:
    from tasks.student.api import Prompt, Student
    from tasks.student.portrait3d import Portrait3D

GIF_FRAMES = 24
MANY = 200  # portraits from which building the fastest form of the student pays

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Products:
    """Files written for each portrait beside the edited portrait: names below its folder."""

    views: int = 4
    video: Path | None = None  # None: turntable.gif
    mesh: Path | None = None

    def check(self) -> None:
        """Raise UserError for an unusable name, before any computation."""
        for path, check in ((self.video, check_video_name), (self.mesh, check_mesh_name)):
            if path is None:
                continue
            check(path)
            if path.is_absolute() or ".." in path.parts:
                expected = "a name below the folder of its portrait, which --out holds"
                raise UserError(f"{path} names a place of its own", expected=expected, hint=f"give {path.name}")


def edit_portraits(
    given: Sequence[str],
    prompt: str | None,
    reference: Path | None,
    out: Path,
    products: Products,
    student: str | None,
    workspace: Workspace,
    style: str | None = None,
) -> dict[str, Any]:
    """Edit portraits and write their pictures below `out`, one folder a portrait when there are several.

    `seconds` is portrait to edited picture: alignment, triplane and one view, without loading the networks.
    Of several portraits, one that cannot be read is reported and the others are edited; medians are given.
    style: one that the student was adapted to.
    """
    images = find_images(given)
    products.check()
    from tasks.student.api import Student

    editor = Student.from_workspace(workspace, student, style)
    if len(images) >= MANY:
        editor.speed_up()
    wish = editor.read_prompt(prompt, reference)
    editor.warm_up()
    folders = name_folders(images, out)
    rows: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    with logging_redirect_tqdm():
        for image in Bar(images, desc="edit", unit="portrait", disable=len(images) == 1):
            try:
                rows.append(edit_one(editor, image, wish, folders[image], products))
            except UserError as error:
                if len(images) == 1:
                    raise
                reason = f"{error.message}: {error.hint}" if error.hint else error.message
                log.warning("%s", reason)
                rejected.append({"image": str(image), "reason": reason})
    if not rows:
        raise UserError("no portrait could be edited", portraits=len(images), first=rejected[0]["reason"])
    detects = editor.companions.landmarks is not None
    return {"student": editor.origin, "style": style, "detects": detects, **summary(rows, rejected)}


def find_images(given: Sequence[str]) -> list[Path]:
    """Find the pictures that files, folders and glob patterns name, each once, sorted within a folder or pattern."""
    found: dict[Path, None] = {}
    for text in given:
        path = Path(text)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = [file for file in sorted(path.iterdir()) if is_picture_name(file.name) and file.is_file()]
        else:
            names = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - a pattern may be absolute
            matches = [Path(name) for name in names if Path(name).is_file()]
        if not matches:
            what = "no picture in the folder" if path.is_dir() else "no file or pattern"
            raise UserError(
                f"{what}: {text}", expected="a picture, a folder of pictures, or a pattern such as 'in/*.png'"
            )
        found |= dict.fromkeys(matches)
    return list(found)


def name_folders(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """A folder for each picture: `out` itself for a single one, else one of its name; equal names are numbered."""
    if len(images) == 1:
        return {images[0]: out}
    folders: dict[Path, Path] = {}
    taken: set[Path] = set()
    for image in images:
        folder, number = out / image.stem, 2
        while folder in taken:
            folder, number = out / f"{image.stem}-{number}", number + 1
        taken.add(folder)
        folders[image] = folder
    return folders


def edit_one(student: "Student", image: Path, prompt: "Prompt", folder: Path, products: Products) -> dict[str, Any]:
    """Edit one portrait and write everything of it."""
    started = time.perf_counter()
    head = student.edit_aligned(student.align(image), prompt)
    edited = head.own_view()
    shown = time.perf_counter()
    head.own_view()
    again = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    edited.save(folder / "edited.png")
    return {
        "files": [folder / "edited.png", *write_products(head, folder, products)],
        "seconds": shown - started,
        "seconds_triplane": head.seconds,
        "seconds_view": again - shown,
        "camera_source": head.portrait.camera_source,
        "cropped": head.portrait.cropped,
    }


def write_products(head: "Portrait3D", folder: Path, products: Products) -> list[Path]:
    """Novel views, the turntable, the mesh."""
    files = [write_png(folder / f"view_{n:02d}.png", view) for n, view in enumerate(head.views(products.views))]
    if products.video is None:
        files.append(write_gif(folder / "turntable.gif", list(head.turntable(GIF_FRAMES))))
    else:
        (folder / products.video).parent.mkdir(parents=True, exist_ok=True)
        files.append(head.save_video(folder / products.video))
    if products.mesh is not None:
        (folder / products.mesh).parent.mkdir(parents=True, exist_ok=True)
        files.append(head.save_mesh(folder / products.mesh))
    return files


def summary(rows: list[dict[str, Any]], rejected: list[dict[str, str]]) -> dict[str, Any]:
    """Return the values that the command prints."""
    seconds = {
        name: round(median(row[name] for row in rows), 4) for name in ("seconds", "seconds_triplane", "seconds_view")
    }
    sources = sorted({row["camera_source"] for row in rows})
    return {
        "files": [str(path) for row in rows for path in row["files"]],
        "portraits": len(rows),
        "aligned_here": sum(row["cropped"] for row in rows),
        "camera_source": ", ".join(sources),
        "rejected": rejected,
        **seconds,
    }
