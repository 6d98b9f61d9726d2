"""Answers of language models: the paraphrases in the body of a chat completion, however they are wrapped."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from data_catalog.config.plain_text import printable

SAID = 200  # characters of an answer that a message shows
NAME = "paraphrases"
# Values of these keys are words about the answer, not paraphrases.
_ABOUT = re.compile(
    r"error|warning|reason|note|refus|required|thought|think|analysis|avoid|message|detail", re.IGNORECASE
)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[\]}])')
# Some servers leave out the opening tag; an answer that was cut off has no closing one.
_THOUGHTS = re.compile(r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)|\A.*</think>", re.DOTALL | re.IGNORECASE)
_SORRY = re.compile(r"\b(?:sorry|apologi\w+|cannot|can['’]t|unable|not able|won['’]t)\b", re.IGNORECASE)
_BRACKET, _STRAIGHT = re.compile(r"[\[{]"), str.maketrans("\u201c\u201d\u201e", '"""')
_MOST_VALUES = 100  # JSON values of an answer, sound or not, that are looked at


def read_answer(answer: str) -> tuple[list[str], str]:
    """(paraphrases, problem) of the body of a chat completion; problem is "" if there are paraphrases."""
    choice = first_choice(parse_json(answer))
    if choice is None:
        return [], f"the answer is not a chat completion: {start_of(answer)}"
    message, finish = message_of(choice), choice.get("finish_reason")
    content, calls = _text_of(message.get("content")), list(_called(message))
    found = [find_texts(given) for given in (message.get("parsed"), *calls, content)]
    texts = next((texts for texts in found if texts), [])
    if texts:
        return texts, ""
    refusal = _text_of(message.get("refusal"))
    if refusal or finish == "content_filter":
        return [], f"the model refused: {start_of(refusal or content or 'finish_reason content_filter')}"
    if finish == "length":
        return [], f"the answer was cut off, raise prompts.max_tokens: {start_of(content or 'it holds no text')}"
    if not content.strip():
        return [], f"the answer is empty (finish_reason {start_of(str(finish))})"
    if [] in found:
        return [], f"the answer holds no paraphrase: {start_of(content)}"
    texts = numbered_lines(content)
    return (texts, "") if texts else ([], f"the answer is not the JSON that was asked for: {start_of(content)}")


def first_choice(document: Any) -> dict[str, Any] | None:
    """Return the first choice of a chat completion that holds a message; None if there is none."""
    choices = document.get("choices") if isinstance(document, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) and message_of(choice) else None


def message_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a choice, {} if it has none; some servers write a delta, old ones a text."""
    found = choice.get("message") or choice.get("delta")
    if not found and isinstance(choice.get("text"), str):
        return {"content": choice["text"]}
    return found if isinstance(found, dict) else {}


def find_texts(given: Any) -> list[str] | None:
    """Find the paraphrases in a parsed value, or in a text that holds one. None: there is no list of texts."""
    if not isinstance(given, str):
        return _listed(given)
    found = [texts for value in _values(without_thoughts(given)) if (texts := _listed(value)) is not None]
    return next((texts for texts in reversed(found) if texts), found[-1] if found else None)


def numbered_lines(content: str) -> list[str]:
    """Return the lines "1. ...", "2) ..." of a text: three or more that count from 1, with two other lines at most."""
    lines = [line.strip() for line in without_thoughts(content).splitlines() if line.strip()]
    found = [re.match(r"(?:\*\*)?(\d{1,3})[.):]\s*(?=\S)", line) for line in lines]
    others = [line for line, match in zip(lines, found, strict=True) if match is None]
    texts = [line[match.end() :] for line, match in zip(lines, found, strict=True) if match is not None]
    counted = [int(match[1]) for match in found if match is not None]
    is_list = len(texts) > 2 and counted == list(range(1, len(texts) + 1)) and len(others) <= 2
    return texts if is_list and not _SORRY.search(" ".join(others)) else []


def without_thoughts(text: str) -> str:
    """Return an answer without the thoughts that a reasoning model writes before it."""
    return _THOUGHTS.sub("", text)


def parse_json(text: str) -> Any:
    """Parse a JSON value; None if it is invalid or nested too deeply."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def start_of(text: str, letters: int = SAID) -> str:
    """Return the beginning of a text on one line, as it may be printed."""
    return printable(" ".join(text[: 20 * letters].split()))[:letters]


def _text_of(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts."""
    if isinstance(content, list):
        return "".join(_text_of(part) for part in content)
    if isinstance(content, dict):
        # A part may be of another kind, such as the model's reasoning.
        return _text_of(content.get("text")) if content.get("type", "text") in ("text", "output_text") else ""
    return content if isinstance(content, str) else ""


def _called(message: dict[str, Any]) -> Iterator[Any]:
    """Yield the arguments of the functions that an answer calls."""
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for function in (*functions, message.get("function_call")):
        if isinstance(function, dict):
            yield function.get("arguments")


def _values(text: str) -> list[Any]:
    """Return the JSON values in a text, outermost ones, in their order; commas too many and other quotes are read."""
    whole = parse_json(text)
    if whole is not None:
        return _values(whole) if isinstance(whole, str) else [whole]  # JSON in a JSON text
    without_commas = _TRAILING_COMMA.sub(r"\1\2", text)
    for form in (without_commas, without_commas.translate(_STRAIGHT)):
        values = list(_decoded(form))
        if any(_listed(value) is not None for value in values):
            return values
    begin = _BRACKET.search(text)
    end = max(text.rfind("]"), text.rfind("}")) + 1
    value = _python_value(text[begin.start() : end]) if begin else None
    return [] if value is None else [value]


def _decoded(text: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(strict=False), 0
    for _ in range(_MOST_VALUES):
        begin = _BRACKET.search(text, position)
        if begin is None:
            return
        try:
            value, position = decoder.raw_decode(text, begin.start())
            yield value
        except (ValueError, RecursionError):
            position = begin.start() + 1


def _python_value(text: str) -> Any:
    """Return a list or mapping that is written as Python prints it, with single quotes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _listed(value: Any) -> list[str] | None:
    """Return the paraphrases of a value: those under their name, else the only list of texts in it."""
    named = [found for name, found in _lists(value) if name == NAME]
    if named:
        return named[0]
    others = [found for name, found in _lists(value) if not _ABOUT.search(name) and any(" " in text for text in found)]
    return others[0] if len(others) == 1 else None


def _lists(value: Any, name: str = "", depth: int = 8) -> Iterator[tuple[str, list[str]]]:
    """Yield the lists of texts in a value, each with the key above it in small letters."""
    if isinstance(value, str) and name == NAME:
        value = parse_json(value) or [line for line in value.splitlines() if line.strip()]
    if isinstance(value, dict) and len(value) > 1 and all(re.search(r"\d$", key) for key in map(str, value)):
        value = list(value.values())  # {"1": ..., "2": ...}
    if isinstance(value, list):
        texts = [text for each in value if (text := _single_text(each)) is not None]
        if texts or not value:
            yield name, texts
            return
    inner = (
        value.items()
        if isinstance(value, dict)
        else [(name, each) for each in value]
        if isinstance(value, list)
        else ()
    )
    for key, each in inner if depth else ():
        yield from _lists(each, str(key).lower(), depth - 1)


def _single_text(value: Any) -> str | None:
    """Return a text, or the only text of a mapping such as {"id": 1, "text": "..."}."""
    if isinstance(value, dict):
        texts = [each for key, each in value.items() if isinstance(each, str) and not _ABOUT.search(str(key))]
        texts = [text for text in texts if " " in text.strip()] or texts
        return texts[0] if len(texts) == 1 else None
    return value if isinstance(value, str) else None
