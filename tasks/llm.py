"""Paraphrases from a language model: any server that speaks the OpenAI API.

The key comes from OPENAI_API_KEY alone, so that it stands in no profile, no record and no fingerprint; the server from
prompts.base_url or OPENAI_BASE_URL.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_catalog.errors import UserError
from data_catalog.settings import PromptsSettings

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

log = logging.getLogger(__name__)

TIMEOUT_S, RETRIES = 60.0, 4  # the client waits longer before each retry
SYSTEM = (
    "You write instructions for an image editing model that edits portrait photos. Reply with JSON only: "
    '{"paraphrases": ["...", ...]}.'
)
REQUEST = (
    "Write {count} different paraphrases of this instruction: {instruction!r}. Each one must ask for exactly the same "
    "edit, be short (at most 15 words), natural and correct English, and differ from the others in sentence structure "
    "as well as in words. Refer to the person in various ways (him, her, them, the person)."
)
AVOID = " Do not repeat any of these: {avoid}."
SCHEMA = {
    "type": "object",
    "properties": {"paraphrases": {"type": "array", "items": {"type": "string"}}},
    "required": ["paraphrases"],
    "additionalProperties": False,
}


@dataclass
class Exchange:
    """One request and what came back. `texts` is empty where `problem` says why."""

    request: dict[str, Any]
    answer: dict[str, Any]
    texts: list[str]
    problem: str = ""
    refused: bool = False


def connect(settings: PromptsSettings) -> OpenAI:
    """A client with its own retries and time-outs; close it after use."""
    from openai import OpenAI

    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise UserError(
            "prompts.backend is 'openai', but there is no key",
            expected="the key of the server in OPENAI_API_KEY (any text for a local server that wants none)",
            hint="export OPENAI_API_KEY=..., or --set prompts.backend=builtin",
        )
    server = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
    return OpenAI(api_key=key, base_url=server, timeout=TIMEOUT_S, max_retries=RETRIES)


def ask(client: OpenAI, instruction: str, count: int, avoid: list[str], settings: PromptsSettings) -> Exchange:
    """Ask for paraphrases once; in plain JSON when the server does not know structured output."""
    from openai import APIError, BadRequestError

    text = REQUEST.format(count=count, instruction=instruction)
    if avoid:
        text += AVOID.format(avoid=json.dumps(avoid, ensure_ascii=False))
    request: dict[str, Any] = {
        "model": settings.model,
        "temperature": settings.temperature,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
    }
    schema = {"name": "paraphrases", "strict": True, "schema": SCHEMA}
    structured = request | {"response_format": {"type": "json_schema", "json_schema": schema}}
    try:
        try:
            completion = client.chat.completions.create(**structured)
            request = structured
        except BadRequestError as error:
            log.info("the server refuses structured output (%s); asking for plain JSON", error.message)
            completion = client.chat.completions.create(**request)
    except APIError as error:
        raise _user_error(error, client) from None
    return _read(request, completion)


def parse_answer(content: str) -> list[str] | None:
    """The paraphrases in an answer: the JSON we asked for, or a list of texts, bare or within other words."""
    fenced = re.search(r"```(?:json)?\s*(.*?)```", content, re.DOTALL)
    found = re.search(r"\{.*\}|\[.*\]", content, re.DOTALL)
    for text in (content, fenced[1] if fenced else "", found[0] if found else ""):
        try:
            document = json.loads(text)
        except ValueError:
            continue
        texts = document.get("paraphrases") if isinstance(document, dict) else document
        if isinstance(texts, list):
            return [text for text in texts if isinstance(text, str)]
    return None


def _read(request: dict[str, Any], completion: ChatCompletion) -> Exchange:
    answer = completion.model_dump(mode="json", exclude_none=True)
    # A server that is nearly compatible may leave `choices` out.
    if not completion.choices:
        return Exchange(request, answer, [], "the answer is empty")
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        said = choice.message.refusal or "content filter"
        return Exchange(request, answer, [], f"the model refused: {said}", refused=True)
    texts = parse_answer(choice.message.content or "")
    if texts is None:
        return Exchange(request, answer, [], "the answer is not the JSON that was asked for")
    return Exchange(request, answer, texts, "" if texts else "the answer holds no paraphrase")


def _user_error(error: Any, client: OpenAI) -> UserError:
    status = getattr(error, "status_code", None)
    hints = {
        401: "check OPENAI_API_KEY",
        403: "check what the key may do",
        404: "check prompts.model and prompts.base_url",
        429: "wait, or raise the limit of the account",
    }
    return UserError(
        "the language model did not answer",
        server=client.base_url,
        cause=f"{status} {error.message}" if status else f"{type(error).__name__}: {error.message}",
        hint=hints.get(status or 0, "try again, or --set prompts.backend=builtin"),
    )
