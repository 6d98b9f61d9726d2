"""Opening of a source: its files in the order in which `portraits.count` takes them.

EG3D's FFHQ has a mirrored copy of each portrait. `portraits.count` counts people: originals come first, then mirrored
copies, each part in the order of its names.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import PurePosixPath

from data_catalog.config.settings import PortraitsSettings
from tasks.sources.files import Listing, Source, list_files
from tasks.sources.labels import Given, read_given
from tasks.sources.memory import derived

MIRRORED = "_mirror"  # ends the name of a mirrored copy, before its suffix
TURNED = (1, 2, 3, 4, 8)  # numbers of a label whose sign a mirror changes, see models.camera.mirror_label
SAME = 1e-5  # largest difference between numbers of labels that count as equal


def open_source(settings: PortraitsSettings) -> Source:
    """Open the source that the settings name; only its listing and its labels are read."""
    root, listing = list_files(settings)
    given = read_given(Source(root, listing, listing.names))
    names = derived(f"people {settings.pattern}", root, (listing, given), lambda: people_first(listing, given))
    return Source(root, listing, names[: settings.count])


def people_first(listing: Listing, given: Given) -> tuple[str, ...]:
    """The names of a listing, mirrored copies last."""
    copies = find_copies(listing.names, given.labels)
    return tuple(sorted(listing.names, key=lambda name: (name in copies, name)))


def find_copies(names: tuple[str, ...], labels: dict[str, list[float]]) -> set[str]:
    """Find mirrored copies: by their names, or by a camera label that is the mirrored one of the picture before.

    names: sorted. EG3D's dataset tool names a copy by the number after its original's.
    """
    known = {str(PurePosixPath(name).with_suffix("")) for name in names}
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    copies = {name for name, stem in stems.items() if stem.endswith(MIRRORED) and stem.removesuffix(MIRRORED) in known}
    for before, name in pairwise(names):
        first, second = labels.get(before, []), labels.get(name, [])
        if before not in copies and len(first) == len(second) == 25 and _mirrored(first, second):
            copies.add(name)
    return copies


def _mirrored(first: list[float], second: list[float]) -> bool:
    """Whether two labels mirror each other. One that is its own mirror image tells nothing."""
    turned = [-value if place in TURNED else value for place, value in enumerate(first)]
    own = max(abs(a - b) for a, b in zip(turned, first, strict=True))
    other = max(abs(a - b) for a, b in zip(turned, second, strict=True))
    return other <= SAME < own
