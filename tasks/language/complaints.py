"""Complaints of servers: the sentence in an error's body, whatever its shape, and what it asks to change."""

from __future__ import annotations

import html
import re
from typing import Any

from tasks.language.answers import first_choice, parse_json, start_of

SHOWN = 300  # characters of a server's sentence
FEWEST_TOKENS = 100  # an answer with fewer holds no list of prompts
# Keys of an error's words, the most telling first; the last ones say little and no error alone.
_WORDS = (
    *("error", "errors", "message", "msg", "detail", "details", "error_message", "errormessage", "error_description"),
    *("description", "title", "reason", "fault", "faultstring", "status", "type", "code"),
)
_SAY_ERROR = _WORDS[:9]
# Parameters by the names that servers give them.
_PARAMETERS = {
    "temperature": r"\btemperature\b",
    "seed": r"\bseed\b",
    "response_format": r"response[_ ]?(?:format|schema|mime)|json[_ ]?(?:schema|mode|object)|structured[_ ]?output",
}
_LIMIT = (
    r"max[_ ]?(?:completion|output|new)?[_ ]?tokens|context[_ -]?(?:length|window|size)|too many tokens|token limit"
)
_UNKNOWN = (
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|not supported|not permitted|not allowed|does not support"
    r"|deprecated|instead|extra (?:inputs|fields)|no such|invalid (?:parameter|argument|field)"
)
_TOO_MUCH = r"too (?:large|long|high|many)|exceed|at most|maximum|up to|less than|range|<="
_CONTEXT = (
    r"context[_ -]?(?:length|window|size)\D{0,40}(\d+)|(\d+)[- ](?:tokens?[- ])?(?:maximum )?context"
    r"|max_new_tokens\W+must be <= \W?(\d+)"
)
_SENT = (
    r"(\d+)\W+(?:input tokens|inputs?\W+tokens|prompt tokens|(?:tokens )?in (?:the|your) (?:messages|prompt|input))"
    r"|(?:prompt|input|messages)\s(?:contains|has|is|of|resulted in)\D{0,20}(\d+)"
)


def failure(body: bytes) -> str:
    """Return the sentence of a body that came with status 200 and is no chat completion, or ""."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return "the answer is not UTF-8"
    document = parse_json(text)
    choice = first_choice(document)
    failed = choice.get("error") if choice is not None else None
    if choice is not None and not failed and choice.get("finish_reason") != "error":
        return ""
    said = sentence(failed or document) or start_of_body(text) or "an empty answer"
    is_error = failed or (isinstance(document, dict) and any(str(key).lower() in _SAY_ERROR for key in document))
    return said if is_error else f"the answer is not a chat completion: {said}"


def status_of(body: bytes) -> int:
    """Return the HTTP status that an error's body names; 502 if it names none."""
    document = parse_json(body.decode("utf-8", errors="replace"))
    error = document.get("error") if isinstance(document, dict) else None
    for given in (error, document):
        for key in ("code", "status", "status_code"):
            code = given.get(key) if isinstance(given, dict) else None
            if str(code).isdigit() and 400 <= int(str(code)) < 600:
                return int(str(code))
    return 502


def said_by(body: bytes) -> str:
    """Return the sentence of an error's body: JSON of any shape, a page, or text."""
    text = body.decode("utf-8", errors="replace")
    return sentence(parse_json(text)) or start_of_body(text)


def sentence(given: Any, depth: int = 6) -> str:
    """Return the words for people in an error that is a text, a mapping or a list."""
    if isinstance(given, str):
        return _of_text(given, depth)
    if isinstance(given, list) and depth:
        told = (said for each in given if (said := sentence(each, depth - 1)))
        return start_of("; ".join(dict.fromkeys(told)), SHOWN)
    if not isinstance(given, dict) or not depth:
        return ""
    lowered = {str(key).lower(): value for key, value in given.items()}
    said = next((said for key in _WORDS if (said := sentence(lowered.get(key), depth - 1))), "")
    # OpenRouter: what the provider behind it said. FastAPI, OpenAI: the parameter.
    raw = lowered["metadata"].get("raw") if isinstance(lowered.get("metadata"), dict) else None
    more = [sentence(raw, depth - 1)]
    where = lowered.get("loc", lowered.get("param"))
    more += [
        ".".join(str(part) for part in where) if isinstance(where, list) else where if isinstance(where, str) else ""
    ]
    return start_of(": ".join([said, *(each for each in more if each and each not in said)]), SHOWN) if said else ""


def start_of_body(text: str) -> str:
    """Return the beginning of a body that is no error in JSON; of a page its title and text."""
    if not re.search(r"<(?:!doctype|html|head|body)\b", text[:2000], re.IGNORECASE):
        return start_of(text, SHOWN)
    plain = re.sub(r"<(script|style)\b.*?(?:</\1>|\Z)|<[^>]*>", " ", text[:100_000], flags=re.DOTALL | re.IGNORECASE)
    return start_of(f"a page came, not an answer: {html.unescape(plain)}", SHOWN)


def objected_to(said: str, sent: dict[str, Any]) -> str | None:
    """Return the parameter that a complaint names first, else structured output; None: it was not sent."""
    found = {
        name: match.start()
        for name, words in _PARAMETERS.items()
        if name in sent and (match := re.search(words, said, re.IGNORECASE))
    }
    limit = next((name for name in ("max_tokens", "max_completion_tokens") if name in sent), None)
    if limit is not None and (match := re.search(_LIMIT, said, re.IGNORECASE)):
        found[limit] = match.start()
    if found:
        return min(found, key=found.__getitem__)
    return "response_format" if "response_format" in sent else None


def is_unknown(said: str) -> bool:
    """Whether a complaint is about a parameter itself, and not about its value."""
    return re.search(_UNKNOWN, said, re.IGNORECASE) is not None and not re.search(_TOO_MUCH, said, re.IGNORECASE)


def allowed_tokens(said: str, limit: int) -> int | None:
    """Return the limit of an answer's tokens that a complaint leaves, below `limit`; None: none that is of use."""
    plain = re.sub(r"(?<=\d)[,_](?=\d{3}\b)", "", said)
    context, sent = (_number(pattern, plain) for pattern in (_CONTEXT, _SENT))
    if context is not None and (sent is not None or context >= limit):
        left = context - sent if sent is not None else limit // 2
    elif context is not None:
        left = context // 2
    else:
        smaller = [n for n in map(int, re.findall(r"(?<![\w.-])\d+(?![\w.]*\w)", plain)) if FEWEST_TOKENS <= n < limit]
        left = max(smaller, default=0)
        left -= bool(re.search(r"exclusive|(?:less|smaller|lower) than(?! or)", plain))
    left = left if left < limit else limit // 2  # the server counts otherwise than it says
    return left if left >= FEWEST_TOKENS else None


def _number(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text, re.IGNORECASE)
    return int(next(group for group in match.groups() if group)) if match else None


def _of_text(text: str, depth: int) -> str:
    """Return a text, or the sentence in the JSON that it holds."""
    begin = min((position for mark in "{[" if (position := text.find(mark)) >= 0), default=-1)
    inner = parse_json(text[begin:]) if begin >= 0 and depth else None
    said = sentence(inner, depth - 1)
    return start_of(text[:begin] + said if said else text, SHOWN)
