"""Licences of single portraits. FFHQ's `ffhq-dataset-v2.json`, 255 MB, is read entry by entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import PortraitsSettings
from tasks.sources.files import LICENCES, Source
from tasks.sources.labels import Licence, read_given
from tasks.sources.memory import remembered

PIECE = 1 << 20  # characters read at a time; an entry has about 4000
LONGEST = 16 * PIECE  # characters of an entry; a longer one is not incomplete but invalid


def read_licences(settings: PortraitsSettings, source: Source, names: Iterable[str]) -> dict[str, Licence] | None:
    """Licences of these files, from dataset.json or FFHQ's file; None where neither gives any."""
    given, of_number = read_given(source).licences, _read_ffhq(settings, source)
    if of_number is None and not given:
        return None
    numbers = {name: ffhq_number(name) for name in names}
    known = of_number or {}
    return {
        name: given.get(name) or known.get(-1 if number is None else number, Licence())
        for name, number in numbers.items()
    }


def _read_ffhq(settings: PortraitsSettings, source: Source) -> dict[int, Licence] | None:
    """Licences by FFHQ's number, from `portraits.licences` or the file beside the pictures; None without a file."""
    name = None if source.is_zip else source.beside(LICENCES)
    beside = source.root.parent / LICENCES if name is None else source.path(name)
    path = beside if settings.licences is None else find_path(settings.licences)
    if not path.is_file():
        if settings.licences is None:
            return None
        raise UserError(f"portraits.licences: there is no file {shown_path(path)}", expected=f"FFHQ's {LICENCES}")
    licences: dict[int, Licence] = remembered("licences", path, lambda: _parse(path))
    return licences


def ffhq_number(name: str) -> int | None:
    """The number in a file's name: 123 of `00000/00123.png`, `img00000123.png`, `img00000123_mirror.png`."""
    found = re.fullmatch(r"(?:img)?0*(\d+)(?:_mirror)?", PurePosixPath(name).stem)
    return int(found[1]) if found else None


def _parse(path: Path) -> dict[int, Licence]:
    try:
        with path.open("rb") as stream:
            encoding = json.detect_encoding(stream.read(4))  # with or without a byte order mark
        with path.open(encoding=encoding) as stream:
            return {int(number): _licence(entry) for number, entry in iterate_object(stream)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{shown_path(path)} cannot be read",
            cause=getattr(error, "strerror", None) or f"{type(error).__name__}: {error}",
            expected='{"0": {"metadata": {"license": ..., "author": ..., "photo_url": ...}, ...}, ...}',
        ) from None


def _licence(entry: dict[str, Any]) -> Licence:
    told = entry["metadata"]
    return Licence(
        str(told["license"]),
        str(told.get("license_url") or ""),
        str(told.get("author") or ""),
        str(told.get("photo_url") or ""),
    )


def iterate_object(stream: TextIO) -> Iterator[tuple[str, Any]]:
    """Keys and values of the JSON object in a stream; only a few entries are in memory.

    Raises ValueError where the text is not such an object.
    """
    decoder, text, at = json.JSONDecoder(), stream.read(PIECE).lstrip(), 1
    if not text.startswith("{"):
        raise ValueError("it does not start with {")
    while True:
        while True:
            try:
                key, after = _next_entry(decoder, text, at)
                break
            except ValueError:
                more = stream.read(PIECE)
                if not more or len(text) - at > LONGEST:
                    raise
                text, at = text[at:] + more, 0
        if key is None:
            return
        yield key
        at = after


def _next_entry(decoder: json.JSONDecoder, text: str, at: int) -> tuple[tuple[str, Any] | None, int]:
    """Parse the entry at a position. Returns it with its end, past its comma; (None, end) at the end of the object."""
    start = _after_gap(text, at)
    if text[start : start + 1] == "}":
        return None, start
    key, end = decoder.raw_decode(text, start)
    colon = re.compile(r"\s*:\s*").match(text, end)
    if colon is None or not isinstance(key, str):
        raise ValueError(f"a key and a colon are expected at {text[start : start + 20]!r}")
    value, end = decoder.raw_decode(text, colon.end())
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected as the value of {key!r}")
    return (key, value), _after_gap(text, end)


def _after_gap(text: str, at: int) -> int:
    gap = re.compile(r"[\s,]*").match(text, at)
    assert gap is not None  # it may be empty
    return gap.end()
