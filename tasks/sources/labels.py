"""Content of `dataset.json`: cameras, splits and licences, by the portraits that its names are joined with."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.samples.images import Rejected
from tasks.sources.files import LABELS, Source
from tasks.sources.joining import join_portraits
from tasks.sources.memory import derived, remembered
from tasks.sources.names import LeftOut


class Licence(NamedTuple):
    """Author of a photograph, and the terms of its use."""

    licence: str = ""
    licence_url: str = ""
    author: str = ""
    source_url: str = ""


@dataclass
class Given:
    """Camera labels; and splits and licences where this project wrote them. A label that is no list is empty."""

    labels: dict[str, list[float]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    licences: dict[str, Licence] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def read_given(source: Source) -> Given:
    """Read the `dataset.json` of a source, one in each of its bases; empty where there is none.

    Raises UserError where one cannot be read, or none of its labels names a picture.
    """
    listing = source.listing
    parsed = {base: _read(source, base) for base in listing.bases}

    def take() -> Given:
        given = Given()
        for base, document in parsed.items():
            _take(given, document, base, source)
        return given

    return derived("given", source.root, (listing, *parsed.values()), take)


def _take(given: Given, document: Given, base: str, source: Source) -> None:
    """Add what a dataset.json says, by the pictures of this source."""
    for what, noun in (("labels", "camera label"), ("splits", "split"), ("licences", "licence")):
        said: dict[str, Any] = getattr(document, what)
        found, lost = join_portraits(said, source.listing, noun, f" of {base}{LABELS}", base) if said else ({}, [])
        getattr(given, what).update({picture: said[name] for picture, name in found.items()})
        given.left_out += lost


def _read(source: Source, base: str) -> Given:
    name = f"{base}{LABELS}"
    holder = source.root if source.is_zip else source.path(name)
    return remembered(f"given {name}", holder, lambda: _parse(source, name))


def _parse(source: Source, name: str) -> Given:
    data = source.read(name)
    if isinstance(data, Rejected):
        raise UserError(f"{shown_path(source.root)}: {name} cannot be read", cause=data.detail)
    try:
        document = json.loads(data)
        labels = document["labels"] or []
        pairs = labels.items() if isinstance(labels, dict) else labels
        splits = {str(name): str(split) for name, split in (document.get("splits") or {}).items()}
        licences = {str(name): Licence(**told) for name, told in (document.get("licences") or {}).items()}
        return Given({str(name): _floats(label) for name, label in pairs}, splits, licences)
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{shown_path(source.root)}: {name} is not a list of labels",
            cause=f"{type(error).__name__}: {error}",
            expected='{"labels": [["00000/img00000000.png", [25 numbers]], ...]}',
        ) from None


def _floats(label: Any) -> list[float]:
    """The numbers of a label; none where it is something else, which is one bad label."""
    try:
        return [float(value) for value in label]
    except (ValueError, TypeError):
        return []
