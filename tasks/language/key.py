"""Key of a language model's server: read, checked, and hidden in whatever is written or shown."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, quote_plus

from data_catalog.config.errors import UserError

KEY_VARIABLE = "OPENAI_API_KEY"
HIDDEN = "[key]"
SHORT = 8  # characters; a shorter key, such as "none" or "ollama" for a local server, may be a word of an answer
# What the client sends beside the key.
_HEADER_VARIABLES = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_UNSENT: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("a quotation mark", _QUOTES.__contains__),
    ("a control character", lambda letter: ord(letter) < 32 or ord(letter) == 127),
    ("a character that is not ASCII", lambda letter: ord(letter) > 127),
)


def read_key() -> str:
    """Return the key. Raises UserError, which does not quote it, for one that no header can hold."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise UserError(
            "prompts.backend is 'openai', but there is no key",
            expected=f"the key of the server in {KEY_VARIABLE} (any text for a local server that wants none)",
            hint=f"export {KEY_VARIABLE}=..., or --set prompts.backend=builtin",
        )
    for variable in (KEY_VARIABLE, *_HEADER_VARIABLES):
        value = os.environ.get(variable, "").strip()
        for position, letter in enumerate(value, start=1):
            kind = next((name for name, belongs in _UNSENT if belongs(letter)), None)
            if kind is not None:
                raise UserError(
                    f"{variable} cannot be sent: it holds {kind}",
                    position=f"character {position} of {len(value)}",
                    expected="the characters of the key alone, on one line",
                    hint=f"copy it again: export {variable}=...",
                )
    return key


def without_key(text: str, of_answer: bool = False) -> str:
    """Hide the key in a text, also where it is escaped, percent-encoded or in base64.

    of_answer: the text is an answer, in which a short key is left alone, since it may be a word.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key or (of_answer and len(key) < SHORT):
        return text
    return _forms(key).sub(HIDDEN, text)


@lru_cache(maxsize=4)
def _forms(key: str) -> re.Pattern[str]:
    """Return a pattern of all spellings of the key, the longest first; a short key counts as a whole word only."""
    if len(key) < SHORT:
        return re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
    data = key.encode("utf-8", "surrogateescape")
    spelt = {key, repr(key)[1:-1], ascii(key)[1:-1], repr(data)[2:-1], json.dumps(key)[1:-1], html.escape(key)}
    spelt |= {quote(data), quote(data, safe=""), quote_plus(data), data.hex(), key.encode("utf-8", "replace").decode()}
    spelt |= {each.replace("\\", "\\\\") for each in spelt}
    for shift in range(3):  # base64 of any text that ends with the key, such as "Bearer KEY" or "user:KEY"
        encoded = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - bool((shift + len(data)) % 3)]
        spelt |= {inner, inner.replace("+", "-").replace("/", "_")}
    longest_first = sorted(spelt, key=lambda each: (-len(each), each))
    return re.compile("|".join(re.escape(each) for each in longest_first), re.IGNORECASE)
