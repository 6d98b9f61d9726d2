"""Text files that a user wrote: read as UTF-8, or refused with the encoding that they seem to have."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path

_KINDS = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    *((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32")),
    *((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")),
)


def kind_of(path: Path) -> str:
    """Return the kind of what is at a path, in words; of a link, the kind of its target."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else "not there"
    except OSError as error:
        return f"out of reach: {(error.strerror or '').lower()}"
    return next((kind for belongs, kind in _KINDS if belongs(mode)), "a device")


def read_text(path: Path) -> str:
    """Return the text of a file, without a byte order mark. Raises UserError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown_path(path)} cannot be read", cause=error.strerror) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data, error.start) from None
    if "\0" in text:  # Latin letters in UTF-16 are valid UTF-8, with a NUL beside each.
        raise _not_utf8(path, data, data.index(b"\0"))
    return text


def _not_utf8(path: Path, data: bytes, start: int) -> UserError:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    if not encoding and b"\0" in data:
        encoding = "UTF-16BE" if data.startswith(b"\0") else "UTF-16LE"
    encoding = encoding or _eight_bits(data)
    guess = data.decode(encoding, errors="replace").removeprefix("\ufeff")
    before = len(data[:start].decode(encoding, errors="replace").removeprefix("\ufeff"))
    number = guess[:before].count("\n")
    line = (guess.splitlines() or [""])[min(number, len(guess.splitlines()) - 1)]
    return UserError(
        f"{shown_path(path)} is not UTF-8",
        position=f"line {number + 1}, byte {start}",
        looks_like=f"{encoding}: {line.strip()[:80]}",
        hint=f"save it as UTF-8 text, or: iconv -f {encoding} -t UTF-8 {path.name} > new{path.suffix}",
    )


def _eight_bits(data: bytes) -> str:
    """Return the encoding of Windows in Western Europe, unless it lacks a byte."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "CP1252"
