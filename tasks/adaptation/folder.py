"""Stage pairs from a user's folder with `input/` and `edited/`, matched by file name.

Each input is aligned as by `stillroom edit`. Its edited picture is cut at the same place, and the teacher lifts it to a
triplane. A few pairs, chosen by the seed, are held out for measuring.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import Settings
from data_catalog.config.styles import StyleFile, read_style, style_paths, styles_folder
from data_catalog.samples.encoding import encode_array, encode_json, encode_png
from data_catalog.samples.formats import is_picture_name
from data_catalog.samples.images import DECODER
from data_catalog.samples.keys import sample_key
from data_catalog.samples.seeds import derive
from data_catalog.samples.shards import Sample
from data_catalog.store.stage import Partition, Stage, Summary, Work
from tasks.adaptation.pairs import HELD_OUT, LEARNED, write_pairs
from tasks.portraits import content_digest
from tasks.prompts import ANSWERS, make_book
from tasks.sources.cropping import Unusable, cut_edit
from tasks.student.companions import tell_without
from tasks.student.user_portrait import (
    Detectors,
    Portrait,
    cut_out,
    detector_names,
    find_detectors,
    locate,
    read_picture,
)
from tasks.tables.samples import SampleRow
from tasks.teach import NETWORKS, SHARD, Teachers, draw_view_cameras, encode_lesson, load_teachers, teach_sample

INPUT, EDITED = "input", "edited"  # the two folders
FEWEST = 3  # pairs: two to learn from, one to measure with
SHARE_HELD_OUT = 5  # with too few pairs to hold out `adapt.held_out`, one in this many is held out
NAMES_SHOWN = 5


class Pair(NamedTuple):
    """Two pictures of one name."""

    name: str
    input: Path
    edited: Path


class AlignedPair(NamedTuple):
    """A pair that is cut, with its place among the prompts."""

    row: SampleRow
    portrait: Portrait
    edited: np.ndarray  # (H, W, 3) uint8


def run(work: Work) -> Summary:
    """Load the teacher, align the pairs and teach them."""
    settings = work.settings
    teachers = load_teachers(settings)
    style = work.partition.style
    assert style is not None
    book, _ = make_book(style_of(style, settings), settings, work.root / ANSWERS)
    pairs = align_pairs(find_pairs(_folder(settings)), book, settings)
    return write_pairs(work.folder, _taught(pairs, teachers, settings), [pair.row for pair in pairs])


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    own = settings.adapt.model_dump(include={"pairs", "held_out", "seed", "prompt"})
    shaped = settings.align.model_dump(mode="json", exclude={"landmarks"})
    prompts = settings.prompts.model_dump(include={"backend", "train", "test", "seed"})
    return own | {
        "align": shaped,
        "prompts": prompts,
        "teach": settings.teach.model_dump(),
        "world": settings.world,
        "decoder": DECODER,
    }


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    """Return the pictures, and the style's file if the prompts come from it."""
    pairs = find_pairs(_folder(settings))
    files = {f"{side.parent.name}/{side.name}": side for pair in pairs for side in (pair.input, pair.edited)}
    if settings.adapt.prompt is None:
        path = _style_file(partition.style or "", settings)
        files[path.name] = path
    return files


STAGE = Stage(
    name="pairs",
    version=2,
    split_by=("style",),
    reads=reads,
    sources=sources,
    models=lambda settings: tuple(dict.fromkeys((*NETWORKS, *detector_names(settings)))),
    run=run,
)


def find_pairs(folder: Path) -> list[Pair]:
    """Return the pairs of a folder, by name.

    Raises UserError that names the pictures without a partner, or two of one name.
    """
    found: dict[str, dict[str, Path]] = {}
    for side in (INPUT, EDITED):
        if not (folder / side).is_dir():
            expected = f"{INPUT}/ and {EDITED}/ with pictures of the same names"
            raise UserError(f"{shown_path(folder)} has no folder {side}/", expected=expected)
        found[side] = {}
        for path in sorted((folder / side).iterdir()):
            if not is_picture_name(path.name) or not path.is_file():
                continue
            first = found[side].setdefault(path.stem, path)
            if first != path:
                raise UserError(
                    f"{shown_path(folder)}/{side} holds two pictures named '{path.stem}'",
                    first=first.name,
                    second=path.name,
                    hint="pairs are matched by name: rename one of them, or take it away",
                )
    alone = {side: sorted(found[side].keys() - found[other].keys()) for side, other in _OPPOSITE}
    if any(alone.values()):
        named = {f"only_in_{side}": _shorten(names) for side, names in alone.items() if names}
        raise UserError(f"{shown_path(folder)}: pictures without a partner of the same name", **named)
    pairs = [Pair(name, found[INPUT][name], found[EDITED][name]) for name in sorted(found[INPUT])]
    if len(pairs) < FEWEST:
        raise UserError(
            f"{shown_path(folder)} holds too few pairs", found=len(pairs), expected=f"{FEWEST} or more; ten are enough"
        )
    return pairs


_OPPOSITE = ((INPUT, EDITED), (EDITED, INPUT))


def _shorten(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def align_pairs(pairs: list[Pair], book: dict[str, Any], settings: Settings) -> list[AlignedPair]:
    """Cut each pair, by key, with its split and its prompt.  book: as of the stage prompts."""
    detectors = find_detectors(settings)
    tell_without(detectors.own, settings)
    names = sorted((pair.name for pair in pairs), key=lambda name: derive("pairs", settings.adapt.seed, name))
    spare = len(pairs) - settings.adapt.pairs
    held_out = min(settings.adapt.held_out, max(spare, len(pairs) // SHARE_HELD_OUT, 1))
    learned = names[held_out:][: settings.adapt.pairs]
    chosen: dict[str, AlignedPair] = {}
    taken: dict[str, str] = {}
    for place, name in enumerate([*names[:held_out], *learned]):
        pair = next(pair for pair in pairs if pair.name == name)
        split = HELD_OUT if place < held_out else LEARNED
        portrait, edited = cut_pair(pair, detectors, settings)
        portrait_id = f"p{content_digest(portrait.rgb)[:10]}"
        if portrait_id in taken:
            raise UserError("two pairs have the same portrait", first=taken[portrait_id], second=name)
        taken[portrait_id] = name
        prompt = book[split][place % len(book[split])]
        key = sample_key(portrait_id, book["style"], prompt["number"])
        row = SampleRow(
            key=key,
            style=book["style"],
            prompt=prompt["text"],
            prompt_number=prompt["number"],
            prompt_split=split,
            portrait_id=portrait_id,
            split=split,
            shard=SHARD,
            camera=portrait.camera.tolist(),
            camera_source=portrait.camera_source,
            seed=0,
        )
        chosen[key] = AlignedPair(row, portrait, edited)
    return [chosen[key] for key in sorted(chosen)]


def cut_pair(pair: Pair, detectors: Detectors, settings: Settings) -> tuple[Portrait, np.ndarray]:
    """The aligned portrait and its edited picture (H, W, 3) uint8, cut at the same place in any resolution."""
    rgb, edited = read_picture(pair.input, settings), read_picture(pair.edited, settings)
    found, cropped = locate(rgb, detectors, settings)
    camera = np.asarray(found.camera, dtype=np.float32)
    portrait = Portrait(cut_out(rgb, found.crop, settings), camera, found.camera_source, cropped)
    try:
        return portrait, cut_edit(edited, found.crop, rgb.shape, settings.align.size)
    except Unusable:
        sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in (rgb, edited)]
        raise UserError(
            f"the pictures of the pair '{pair.name}' differ in shape",
            input=sizes[0],
            edited=sizes[1],
            expected="any size, but the same frame",
            hint="crop the one like the other",
        ) from None


def style_of(slug: str, settings: Settings) -> StyleFile:
    """Return the style from its file or, without one, from the settings' prompt."""
    if settings.adapt.prompt is not None:
        return StyleFile(slug=slug, prompts=[settings.adapt.prompt])
    return read_style(_style_file(slug, settings))


def _style_file(slug: str, settings: Settings) -> Path:
    files = style_paths(styles_folder(settings))
    if slug not in files:
        hint = 'describe the edit: --prompt "make the hair red"; or: stillroom styles add'
        raise UserError(f"there is no style file for '{slug}'", hint=hint)
    return files[slug]


def _folder(settings: Settings) -> Path:
    assert settings.adapt.pairs_folder is not None
    return find_path(settings.adapt.pairs_folder)


def _taught(pairs: list[AlignedPair], teachers: Teachers, settings: Settings) -> Iterator[Sample]:
    for row, portrait, edited in pairs:
        lesson = teach_sample(teachers, edited, portrait.camera, draw_view_cameras(row.portrait_id, settings.teach))
        fields = {
            "portrait.png": encode_png(portrait.rgb),
            "pseudo_label.png": encode_png(edited),
            "camera.npy": encode_array(portrait.camera),
            "meta.json": encode_json({"key": row.key, "style": row.style, "prompt": row.prompt}),
        }
        yield Sample(row.key, fields | encode_lesson(lesson, settings.teach))
