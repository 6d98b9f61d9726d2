"""Paraphrases from a language model behind any server with the OpenAI API.

The key comes from OPENAI_API_KEY only, so that it is in no profile, record or fingerprint; the server from
prompts.base_url or OPENAI_BASE_URL. Every answer is stored under the data root as it arrives: an answered request is
not paid for again, in this run or after a crash.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.config.settings import PromptsSettings, Settings
from data_catalog.store.fingerprint import digest_json, write_atomically
from tasks.language.budget import Budget, most_tokens

log = logging.getLogger(__name__)

LONGEST_ANSWER = 1_000_000  # bytes of an answer that are read
SAID = 200  # characters of a refusal that are kept as the reason
SYSTEM = (
    "You write instructions for an image editing model that edits portrait photos. Reply with JSON only: "
    '{"paraphrases": ["...", ...]}.'
)
REQUEST = (
    "Write {count} different paraphrases of this instruction: {instruction!r}. Each one must ask for exactly the same "
    "edit, be short (at most 15 words), natural and correct English, and differ from the others in sentence structure "
    "as well as in words. Refer to the person in various ways (him, her, them, the person). The face stays visible and "
    "facing the camera, the person stays the same person, and nobody is called by a name."
)
AVOID = " Do not repeat any of these: {avoid}."
SCHEMA = {
    "type": "object",
    "properties": {"paraphrases": {"type": "array", "items": {"type": "string"}}},
    "required": ["paraphrases"],
    "additionalProperties": False,
}
TEMPLATE = digest_json([SYSTEM, REQUEST, AVOID, SCHEMA])  # in the fingerprint


@dataclass
class Exchange:
    """Request with its answer as received. `texts` is empty if there is a `problem`."""

    request: dict[str, Any]
    answer: str
    texts: list[str]
    tokens_in: int
    tokens_out: int
    problem: str = ""
    refused: bool = False


class LanguageModel:
    """Asks for paraphrases of one style. Open it with `with`; `answers` is the folder of kept answers."""

    def __init__(self, settings: Settings, answers: Path) -> None:
        from tasks.language.server import Server  # with asyncio, which a plan does without

        self.settings: PromptsSettings = settings.prompts
        self.answers = answers
        self.budget = Budget(settings.llm)
        self.server = Server(settings.prompts.base_url, settings.llm, self.budget)
        self._unknown: list[str] = []  # parameters that the server rejects

    def __enter__(self) -> LanguageModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.__exit__(*exception)

    def ask(self, instruction: str, count: int, avoid: list[str], turn: int) -> Exchange:
        """Ask once. turn: 0, 1, ...; the same question in another turn is another request."""
        request = make_request(instruction, count, avoid, turn, self.settings)
        kept = self.answers / f"{digest_json([self.server.base_url, request])[:32]}.json"
        try:
            exchange = json.loads(kept.read_text(encoding="utf-8"))
            log.info("a stored answer of the language model is reused")
        except (FileNotFoundError, ValueError):  # A damaged file counts as a lost answer.
            sent, body = self._send(request)
            answer = self.server.without_key(body[:LONGEST_ANSWER].decode("utf-8", errors="backslashreplace"))
            exchange = {"request": sent, "answer": answer, "whole": _is_whole(body)}
            write_atomically(kept, json.dumps(exchange, ensure_ascii=False, indent=1).encode())
        tokens = used_tokens(exchange["answer"]) or most_tokens(exchange["request"])
        self.budget.add(*tokens)
        texts, problem, refused = read_answer(exchange["answer"], exchange["whole"])
        return Exchange(exchange["request"], exchange["answer"], texts, *tokens, problem, refused)

    def _send(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Send, without parameters that the server rejects. Returns the accepted request and its answer."""
        from openai import BadRequestError, UnprocessableEntityError

        while True:
            sent = plainer(request, self._unknown)
            try:
                return sent, self.server.send(sent)
            except (BadRequestError, UnprocessableEntityError) as error:
                said = self.server.without_key(error.message)
                name = objected_to(said, sent)
                if name is None:
                    raise self.server.refused(error) from None
                log.info("the server rejects %s (%s)", name, said[:SAID])
                self._unknown.append(name)


def make_request(
    instruction: str, count: int, avoid: list[str], turn: int, settings: PromptsSettings
) -> dict[str, Any]:
    """The body of a chat completion with structured output."""
    text = REQUEST.format(count=count, instruction=instruction)
    if avoid:
        text += AVOID.format(avoid=json.dumps(avoid, ensure_ascii=False))
    schema = {"name": "paraphrases", "strict": True, "schema": SCHEMA}
    return {
        "model": settings.model,
        "temperature": settings.temperature,
        "seed": settings.seed + turn,
        "max_tokens": settings.max_tokens,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def plainer(request: dict[str, Any], unknown: list[str]) -> dict[str, Any]:
    """Return the request without some parameters, for a server that rejects them; newer ones rename max_tokens."""
    sent = {name: value for name, value in request.items() if name not in unknown}
    if "max_tokens" in unknown and "max_completion_tokens" not in unknown:
        sent["max_completion_tokens"] = request["max_tokens"]
    return sent


def objected_to(message: str, sent: dict[str, Any]) -> str | None:
    """Return the parameter that a server's complaint names, else structured output; None: neither was sent."""
    optional = ("max_tokens", "max_completion_tokens", "seed", "temperature", "response_format")
    named = next((name for name in optional if name in sent and name in message), None)
    return named or ("response_format" if "response_format" in sent else None)


def read_answer(answer: str, whole: bool = True) -> tuple[list[str], str, bool]:
    """(paraphrases, problem, refused) of the body of a chat completion."""
    if not whole:
        return [], "the answer is not UTF-8, or longer than a megabyte", False
    choice = _first_choice(_parse(answer))
    if choice is None:
        return [], "the answer is not a chat completion", False
    message = choice["message"]
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return [], f"the model refused: {str(message.get('refusal') or 'content filter')[:SAID]}", True
    texts = parse_answer(str(message.get("content") or ""))
    if texts is None:
        cut = " (it was cut off: raise prompts.max_tokens)" if choice.get("finish_reason") == "length" else ""
        return [], f"the answer is not the JSON that was asked for{cut}", False
    return texts, "" if texts else "the answer holds no paraphrase", False


def parse_answer(content: str) -> list[str] | None:
    """Parse the paraphrases in an answer: the requested JSON, or a list of texts, alone or within other words."""
    fenced = content.split("```")[1].removeprefix("json") if content.count("```") > 1 else ""
    braces = content[content.find("{") : content.rfind("}") + 1] if "{" in content else ""
    brackets = content[content.find("[") : content.rfind("]") + 1] if "[" in content else ""
    for text in (content, fenced, braces, brackets):
        document = _parse(text)
        texts = document.get("paraphrases") if isinstance(document, dict) else document
        if isinstance(texts, list):
            return [text for text in texts if isinstance(text, str)]
    return None


def used_tokens(answer: str) -> tuple[int, int] | None:
    """Return (in, out) as the server counted them; None if it does not say."""
    document = _parse(answer)
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return counts if all(isinstance(count, int) and count >= 0 for count in counts) else None  # type: ignore[return-value]


def _first_choice(document: Any) -> dict[str, Any] | None:
    choices = document.get("choices") if isinstance(document, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) and isinstance(choice.get("message"), dict) else None


def _parse(text: str) -> Any:
    """Parse a JSON value; None if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_whole(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(body) <= LONGEST_ANSWER
