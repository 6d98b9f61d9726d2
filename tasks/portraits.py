"""Stage portraits: take pictures in, decode, check, name them by their content, and freeze their splits.

A portrait's id is a digest of its pixels. Its split is a hash of its id, so that it does not change when pictures are
added. Block 0 is an exception, since a small set needs test and training portraits: if the hash leaves it without a
test portrait, the portrait nearest to the test fraction becomes one, and likewise the furthest one for training. A
picture and its mirrored copy show one person and have one split, whatever their names. Given splits replace the hash.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.settings import PROCEDURAL, PortraitsSettings, Settings
from data_catalog.samples.encoding import encode_png
from data_catalog.samples.images import DECODER, Decoded, Rejected, decode_image
from data_catalog.samples.seeds import fraction
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.stage import Partition, Stage, Summary, Work
from tasks.sources.cameras import find_fault
from tasks.sources.files import Source
from tasks.sources.labels import Licence, read_given
from tasks.sources.licences import read_licences
from tasks.sources.opening import open_source
from tasks.sources.repeats import find_repeats
from tasks.tables.portraits import LICENCE, PORTRAITS, Portrait

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class Photo(NamedTuple):
    """Picture on its way in: rgb (H, W, 3) uint8, or the reason for its absence."""

    name: str
    picture: Decoded | Rejected
    seed: int | None = None
    camera_true: list[float] | None = None
    camera_given: list[float] | None = None
    split_given: str | None = None
    licence: Licence | None = None


@dataclass(frozen=True)
class Taken:
    """Row of a photo, and what its split depends on."""

    row: Portrait
    split_given: str | None = None


def run(work: Work) -> Summary:
    """Take in the pictures of one block."""
    settings = work.settings.portraits
    number = work.partition.block or 0
    photos = _rendered(settings, number) if settings.source == PROCEDURAL else _read(work, number)
    taken = take_in(photos, work.folder)
    splits = split_portraits(taken, settings, first_block=number == 0)
    kind = _kind(settings)
    rows = [replace(each.row, source=kind, split=splits.get(each.row.portrait_id or "")) for each in taken]
    rows.sort(key=lambda row: (row.portrait_id or "~", row.name))
    licensed = any(row.licence is not None for row in rows)
    PORTRAITS.write(work.folder, rows, further=LICENCE if licensed else ())
    good = [row for row in rows if row.status == "ok"]
    # "duplicate of a.png" is counted as "duplicate", "corrupt: details" as "corrupt".
    reasons = Counter(_counted(row.reason) for row in rows if row.status != "ok")
    sizes = Counter(row.split for row in good)
    metrics = {f"portraits_{split}": float(sizes[split]) for split in SPLITS}
    return Summary(samples=len(good), rejected=dict(reasons), metrics=metrics)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    """Return the block's own part of the source: a growing source leaves full blocks as they are."""
    own, number = settings.portraits, partition.block or 0
    if own.val_fraction + own.test_fraction >= 1:
        raise UserError(
            "portraits: val_fraction and test_fraction leave no portrait to train on",
            found=f"{own.val_fraction} + {own.test_fraction}",
            expected="a sum below 1",
        )
    fractions = {"val_fraction": own.val_fraction, "test_fraction": own.test_fraction}
    if own.source == PROCEDURAL:
        seeds = _seeds(own, number)
        return fractions | {"source": PROCEDURAL, "seeds": [seeds.start, seeds.stop]}
    source = open_source(own)
    names, given = source.block(number, own.block_size), read_given(source)
    splits = {name: given.splits[name] for name in names if name in given.splits}
    licences = read_licences(own, source, names)
    optional: dict[str, Any] = {"splits": splits} if splits else {}
    if licences is not None:
        optional["licences"] = digest_json([licences[name] for name in names])
    return (
        fractions
        | optional
        | {
            "source": _kind(own),
            "names": list(names),
            "labels": digest_json([_finite(given.labels.get(name)) for name in names]),
            "repeats": find_repeats(source, names),
            "max_pixels": own.max_pixels,
            "min_side": own.min_side,
            "decoder": DECODER,
        }
    )


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    """The block's own files; of a zip, the zip."""
    own = settings.portraits
    if own.source == PROCEDURAL:
        return {}
    source = open_source(own)
    return source.files(source.block(partition.block or 0, own.block_size))


STAGE = Stage(name="portraits", version=2, split_by=("block",), reads=reads, sources=sources, run=run)


def _finite(label: list[float] | None) -> list[float | str] | None:
    """A label as JSON has it: NaN, which a failed fit may have written, as a text."""
    return None if label is None else [value if np.isfinite(value) else str(value) for value in label]


def blocks(settings: Settings) -> list[int]:
    """Numbers of the blocks that the source fills, the last perhaps in part."""
    return list(range(-(-count_portraits(settings) // settings.portraits.block_size)))


def count_portraits(settings: Settings) -> int:
    """Count the pictures that the settings choose."""
    own = settings.portraits
    if own.source != PROCEDURAL:
        return len(open_source(own).names)
    if own.count is None:
        raise UserError("portraits.count: the procedural world is endless; set the number of portraits")
    return own.count


def take_in(photos: Iterator[Photo], folder: Path) -> list[Taken]:
    """Write images/ and return a row for each photo, source and split still missing.

    Of equal pictures the first one stays.
    """
    (folder / "images").mkdir()
    taken: list[Taken] = []
    names: dict[str, str] = {}
    for photo in photos:
        own = photo.licence._asdict() if photo.licence else {}
        row = Portrait(
            portrait_id=None,
            name=photo.name,
            seed=photo.seed,
            camera_true=photo.camera_true,
            camera_given=photo.camera_given,
            **own,
        )
        taken.append(_take(photo, row, names, folder))
    return taken


def _take(photo: Photo, row: Portrait, names: dict[str, str], folder: Path) -> Taken:
    """Complete the row of a photo and write its picture.  names: of the photos before it, by their digest."""
    if isinstance(photo.picture, Rejected):
        reason = str(photo.picture)
        log.info("%s is rejected: %s", photo.name, reason)
        return Taken(replace(row, reason=reason))
    rgb = photo.picture.rgb
    digest = content_digest(rgb)
    row = replace(row, width=rgb.shape[1], height=rgb.shape[0], sha256=digest)
    first = names.setdefault(digest, photo.name)
    if first != photo.name:
        return Taken(replace(row, reason=f"duplicate of {first}"))
    portrait_id = f"p{digest[:10]}"
    person = min(portrait_id, f"p{content_digest(rgb[:, ::-1])[:10]}")
    row = replace(row, portrait_id=portrait_id, person=person, status="ok")
    (folder / "images" / f"{row.portrait_id}.png").write_bytes(encode_png(rgb))
    return Taken(row, photo.split_given)


def content_digest(rgb: np.ndarray) -> str:
    """sha256 of the size and the pixels of a picture (H, W, 3) uint8: the file format does not count."""
    header = f"{rgb.shape[0]}x{rgb.shape[1]} rgb8\n".encode()
    return hashlib.sha256(header + np.ascontiguousarray(rgb).tobytes()).hexdigest()


def split_portraits(photos: list[Taken], settings: PortraitsSettings, first_block: bool) -> dict[str, str]:
    """The split of every portrait that was taken, by its id, as the module's docstring says."""
    taken = [each for each in photos if each.row.status == "ok"]
    people = {str(each.row.person) for each in taken}
    drawn = [str(each.row.person) for each in taken if each.split_given is None]
    lots = {person: fraction("split", person) for person in drawn}
    test_end, val_end = settings.test_fraction, settings.test_fraction + settings.val_fraction
    splits = {i: "test" if lot < test_end else "val" if lot < val_end else "train" for i, lot in lots.items()}
    if first_block and len(lots) == len(people) > 0:
        lowest, highest = min(lots, key=lots.__getitem__), max(lots, key=lots.__getitem__)
        if test_end > 0 and len(lots) > 1 and "test" not in splits.values():
            splits[lowest] = "test"
        if "train" not in splits.values():
            splits[highest] = "train"
    return {str(each.row.portrait_id): each.split_given or splits[str(each.row.person)] for each in taken}


def _seeds(settings: PortraitsSettings, number: int) -> range:
    first = number * settings.block_size
    last = min(first + settings.block_size, settings.count or 0)
    return range(settings.seed + first, settings.seed + last)


def _rendered(settings: PortraitsSettings, number: int) -> Iterator[Photo]:
    from models import procedural

    for seed in _seeds(settings, number):
        raw = procedural.raw_photo(seed)
        camera = [float(value) for value in raw.label]
        yield Photo(str(seed), Decoded(raw.rgb), seed=seed, camera_true=camera)


def _read(work: Work, number: int) -> Iterator[Photo]:
    """Read pictures one after the other: a block of any size needs the memory of one."""
    settings = work.settings.portraits
    source = open_source(settings)
    names, given = source.block(number, settings.block_size), read_given(source)
    repeats, licences = find_repeats(source, names), read_licences(settings, source, names)
    for name in names:
        label, split = given.labels.get(name), given.splits.get(name)
        licence = None if licences is None else licences[name]
        photo = Photo(name, Rejected("unreadable"), camera_given=label, split_given=split, licence=licence)
        fault = "" if label is None else find_fault(label)
        if fault:
            yield photo._replace(picture=Rejected("bad camera label", fault), camera_given=None)
        else:
            yield photo._replace(picture=_decode(source, name, photo, repeats.get(name), settings))


def _decode(
    source: Source, name: str, photo: Photo, repeated: str | None, settings: PortraitsSettings
) -> Decoded | Rejected:
    if repeated is not None:
        return Rejected(f"duplicate of {repeated}")
    if photo.split_given not in (None, *SPLITS):
        return Rejected("bad split", f"'{photo.split_given}' is none of {', '.join(SPLITS)}")
    data = source.read(name)
    return decode_image(data, settings.max_pixels, settings.min_side) if isinstance(data, bytes) else data


def _kind(settings: PortraitsSettings) -> str:
    if settings.source == PROCEDURAL:
        return PROCEDURAL
    return "zip" if open_source(settings).is_zip else "folder"


def _counted(reason: str) -> str:
    return "duplicate" if reason.startswith("duplicate of") else reason.partition(":")[0]
