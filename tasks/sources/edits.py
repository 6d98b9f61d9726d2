"""Edits supplied with the portraits, as in the public 3DPE dataset: pseudo-labels that no editor makes.

They are matched with their portraits by name (`<id>_<style>/x.png` edits `<id>/x.png`) and cut by the same transform. A
style's name there is its slug, or `edits:` in its file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.names import nearest_slug
from data_catalog.config.places import shown_path
from data_catalog.config.settings import PROCEDURAL, PortraitsSettings, Settings
from data_catalog.config.styles import find_style, read_style
from data_catalog.samples.images import Rejected, decode_image
from data_catalog.store.stage import Partition
from tasks.sources.cropping import Unusable, cut_edit
from tasks.sources.files import Source
from tasks.sources.memory import remembered
from tasks.sources.opening import open_source

EDITOR = "editor"  # value of `edits:` that leaves this style to the editor
NO_EDIT = "no edit in the dataset"


class Taken(NamedTuple):
    """An edit as a pseudo-label: rgb (size, size, 3) uint8, and the digest of the file that it came in."""

    rgb: np.ndarray
    sha256: str


@dataclass(frozen=True)
class GivenEdits:
    """Edits of one style in one block of a source: their names, by those of their portraits."""

    source: Source
    names: dict[str, str]

    def files(self) -> dict[str, Path]:
        """Return the files behind pseudo-labels: the edits, and the portraits, whose size counts."""
        return self.source.files(name for pair in self.names.items() for name in pair)


def find_edits(settings: Settings, partition: Partition) -> GivenEdits | None:
    """The given edits of a partition of one style and block; None where the editor makes them."""
    name = given_style(settings, partition.style or "")
    if name is None:
        return None
    source = open_source(settings.portraits)
    block = source.block(partition.block or 0, settings.portraits.block_size)
    edits = source.listing.edits
    return GivenEdits(source, {each: edits[each][name] for each in block if name in edits.get(each, {})})


def given_style(settings: Settings, style: str) -> str | None:
    """Return a style's name among the given edits; None where the editor makes them.

    Raises UserError where the source has no edits of that style: they would be missing without a word.
    """
    if settings.edit.source == "editor":
        return None
    said = named_edits(find_style(settings, style))
    if said == EDITOR:
        return None
    known = {} if settings.portraits.source == PROCEDURAL else open_source(settings.portraits).listing.styles
    wanted = said or style
    found = [wanted] if wanted in known else [name for name in known if not said and nearest_slug(name) == style]
    if len(found) != 1:
        raise _no_such_style(style, said, found, sorted(known), settings.portraits.source)
    return found[0]


def named_edits(path: Path | None) -> str | None:
    """Return `edits` of a style's file; None where it says none, as a .txt does."""
    name: str | None = remembered("edits", path, lambda: read_style(path).edits) if path is not None else None
    return name


def take_edit(
    given: GivenEdits, portrait: str, crop: np.ndarray, size: int, limits: PortraitsSettings
) -> Taken | Rejected:
    """The edit of a portrait, by its name, cut as the portrait was, or why there is none.

    crop: (2, 3) px of the portrait -> [0, 1].  size: px, side of the pseudo-label.
    """
    name = given.names.get(portrait)
    if name is None:
        return Rejected(NO_EDIT)
    data = given.source.read(name)
    if isinstance(data, Rejected):
        return data
    edited = decode_image(data, limits.max_pixels, limits.min_side)
    if isinstance(edited, Rejected):
        return edited
    shape = _shape(given.source, portrait, limits)
    try:
        return Taken(cut_edit(edited.rgb, crop, shape, size), hashlib.sha256(data).hexdigest())
    except Unusable as error:
        return Rejected(str(error))


def _shape(source: Source, portrait: str, limits: PortraitsSettings) -> tuple[int, ...]:
    """(height, width, 3) of a portrait, which was taken in before."""
    data = source.read(portrait)
    picture = data if isinstance(data, Rejected) else decode_image(data, limits.max_pixels, limits.min_side)
    if isinstance(picture, Rejected):
        raise UserError(
            f"the portrait {portrait} can no longer be read",
            source=shown_path(source.root),
            cause=picture,
            hint="its source changed during the build: build again",
        )
    return picture.rgb.shape


def _no_such_style(style: str, said: str | None, found: list[str], known: list[str], source: str) -> UserError:
    """found: names that may be meant, if they are several."""
    asked = f" named '{said}'" if said else ""
    missing = f"edit.source=dataset: no edits{asked} of the style {style} came with the portraits"
    return UserError(
        f"several edits supplied with the portraits match the style {style}" if found else missing,
        source=source if source == PROCEDURAL else shown_path(Path(source)),
        styles=", ".join(found or known) or "none: edits lie in <id>_<style>/ beside <id>/ and dataset.json",
        hint=f"{style}.yaml may say `edits: NAME` of these, or `edits: {EDITOR}`; prompts.styles leaves a style out",
    )
