"""Things of a source that will not be taken, or not as they are meant: all that its listing already shows."""

from __future__ import annotations

from data_catalog.config.errors import UserError
from data_catalog.config.settings import PROCEDURAL, Settings
from tasks.sources.cameras import find_faults
from tasks.sources.files import Source
from tasks.sources.joining import About
from tasks.sources.labels import Given, read_given
from tasks.sources.landmarks import find_landmarks
from tasks.sources.names import LeftOut, counted
from tasks.sources.opening import open_source
from tasks.sources.reconstructions import CAMERAS, find_reconstructions


def find_left_out(settings: Settings) -> list[LeftOut]:
    """List what will not be taken of the user's pictures and of what is given about them.

    Raises UserError where no picture would be left.
    """
    if settings.portraits.source == PROCEDURAL:
        return []
    source = open_source(settings.portraits)
    given = read_given(source)
    points, poses = find_landmarks(settings), find_reconstructions(settings)
    beyond = tuple(sorted({*source.listing.names} - {*source.names}))
    said = f"{counted(len(beyond), 'picture', len(source.listing.names))} left out: portraits.count={len(source.names)}"
    found = [*source.listing.left_out, *([LeftOut(said, beyond)] if beyond else []), *given.left_out]
    found += [lost for each in (points, poses) if each is not None for lost in each.left_out]
    beside = source.beside(CAMERAS)
    if beside and poses is None:
        found.append(LeftOut(f"{CAMERAS} not used: align.reconstructions=FILE takes it", (beside,)))
    if settings.edit.source == "editor" and source.listing.edits:
        edits = tuple(name for each in source.listing.edits.values() for name in each.values())
        found.append(LeftOut(f"{counted(len(edits), 'edit')} not used: edit.source=dataset takes them", edits))
    return [*found, *_without_cameras(source, given, points, poses), *_bad_cameras(source, given)]


def _without_cameras(source: Source, given: Given, points: About | None, poses: About | None) -> list[LeftOut]:
    """Pictures without a label, reconstruction or landmarks, where others have them."""
    names, without = source.names, [name for name in source.names if name not in given.labels]
    if poses is not None:
        lost, what, then = _missing(without, poses), "reconstruction", "rejected"
    elif points is not None:
        lost, what, then = _missing(without, points), "landmarks", "rejected"
    else:
        lost, what, then = (without if given.labels else []), "camera label", "their cameras are looked for, or frontal"
    if lost and len(lost) == len(names) and then == "rejected":
        raise UserError(f"all pictures of portraits.source are without {what}", pictures=len(names), first=names[0])
    said = f"{counted(len(lost), 'picture', len(names))} without {what}: {then}"
    return [LeftOut(said, tuple(lost))] if lost else []


def _missing(names: list[str], found: About) -> list[str]:
    return [name for name in names if name not in found.names and name not in found.files]


def _bad_cameras(source: Source, given: Given) -> list[LeftOut]:
    """Pictures whose label cannot be their camera, by its fault."""
    faults = find_faults({name: given.labels[name] for name in source.names if name in given.labels})
    bad = [name for name in source.names if name in faults]
    if bad and len(bad) == len(source.names):
        raise UserError(
            "bad camera label: no camera of dataset.json can have taken its picture",
            labels=len(bad),
            first=bad[0],
            cause=faults[bad[0]],
            hint="correct dataset.json, or take it away: cameras are then found from landmarks",
        )
    said = f"{counted(len(bad), 'picture', len(source.names))} rejected: bad camera label"
    return [LeftOut(f"{said}, {faults[bad[0]]}", tuple(bad))] if bad else []
