"""Plain text: what a prompt may hold, and how any text is printed on a terminal or in a log."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST_WORD = 100  # letters
_KEPT = "\n\t"
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Tags of HTML and XML, emphasis and code of Markdown, tags of Rich.
_MARKUP = re.compile(
    r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|<!--|&(?:[a-z]+|#\d+);|(\*\*|__|~~|`+)(?=\S).+?\1|^#{1,6}\s"
    r"|\[[^\]]*\]\([^)]*\)|\[/?[a-z][\w .#]*\]",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    """Return the text with control characters and lone surrogates as escapes; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter in _KEPT or not _is_control(letter) else _escape(letter) for letter in text)


def printable_document(value: Any) -> Any:
    """Return a document of lists, mappings and values in which each text is printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_document(key): printable_document(each) for key, each in value.items()}
    return [printable_document(each) for each in value] if isinstance(value, list | tuple) else value


def bad_character(text: str) -> str:
    """Return the first character that no text has, as an escape, or ""."""
    return next((_escape(letter) for letter in text if letter == "\ufffd" or _is_control(letter)), "")


def not_plain(text: str) -> str:
    """Return the reason why a line cannot be a prompt of a dataset, or ""."""
    bad = bad_character(text)
    if bad:
        return f"a character that no text has: {bad}"
    longest = max((len(word) for word in text.split()), default=0)
    return f"a word of {longest} letters; at most {LONGEST_WORD}" if longest > LONGEST_WORD else ""


def markup_in(text: str) -> list[str]:
    """Return the markup in a text: HTML, Markdown, Rich."""
    return [found[0] for found in _MARKUP.finditer(text)]


def _is_control(letter: str) -> bool:
    # Cs: lone surrogates. The marks of the writing direction (Cf) could reorder the text around them.
    return unicodedata.category(letter) in ("Cc", "Cs") or letter in _DIRECTIONS


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"
