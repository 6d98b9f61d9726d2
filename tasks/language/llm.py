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
from typing import TYPE_CHECKING, Any

from data_catalog.config.settings import PromptsSettings, Settings
from data_catalog.store.fingerprint import digest_json, write_atomically
from tasks.language.answers import parse_json, read_answer
from tasks.language.budget import Budget, most_tokens, used_tokens
from tasks.language.complaints import allowed_tokens, is_unknown, objected_to
from tasks.language.key import without_key

if TYPE_CHECKING:
    from tasks.language.server import Rejected

log = logging.getLogger(__name__)

UNUSABLE = "unusable-answers"  # folder beside that of the answers: to be looked at, not read again
LIMITS = ("max_tokens", "max_completion_tokens")  # the newer name is the second
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
    kept: str = ""  # file of the answer, below the data root


class LanguageModel:
    """Asks for paraphrases of one style. `answers` is the folder of kept answers."""

    def __init__(self, settings: Settings, answers: Path) -> None:
        from tasks.language.server import Server  # with asyncio, which a plan does without

        self.settings: PromptsSettings = settings.prompts
        self.answers = answers
        self.budget = Budget(settings.llm)
        self.server = Server(settings.prompts.base_url, settings.llm, self.budget)
        self._unknown: list[str] = []  # parameters that the server rejects
        self._limit = settings.prompts.max_tokens

    def ask(self, instruction: str, count: int, avoid: list[str], turn: int) -> Exchange:
        """Ask once. turn: 0, 1, ...; the same question in another turn is another request."""
        request = make_request(instruction, count, avoid, turn, self.settings)
        kept = self.answers / f"{digest_json([self.server.base_url, request])[:32]}.json"
        exchange = _stored(kept)
        if exchange is None:
            sent, body = self._send(request)
            answer = without_key(body.decode("utf-8"), of_answer=True)
            problem = read_answer(answer)[1]
            exchange = {"request": sent, "answer": answer}
            kept = self.answers.with_name(UNUSABLE) / kept.name if problem else kept
            write_atomically(kept, json.dumps(exchange, ensure_ascii=False, indent=1).encode())
        else:
            log.info("a stored answer of the language model is reused")
        tokens = used_tokens(exchange["answer"].encode()) or most_tokens(exchange["request"])
        self.budget.add(*tokens)
        texts, problem = read_answer(exchange["answer"])
        place = kept.relative_to(self.answers.parent).as_posix()
        return Exchange(exchange["request"], exchange["answer"], texts, *tokens, problem, place)

    def _send(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Send, without parameters that the server rejects. Returns the accepted request and its answer."""
        from tasks.language.server import Rejected

        while True:
            sent = plainer(request, self._unknown, self._limit)
            try:
                return sent, self.server.send(sent)
            except Rejected as failed:
                name = objected_to(failed.said, sent)
                if name in LIMITS:
                    self._change_limit(name, failed)
                elif name is not None:
                    self._unknown.append(name)
                else:
                    raise self.server.gave_up(failed) from None
                log.info("the server rejects %s (%s)", name, failed.said)

    def _change_limit(self, name: str, failed: Rejected) -> None:
        """Lower the limit of an answer's tokens to what the server says, or send it by its newer name."""
        allowed = allowed_tokens(failed.said, self._limit)
        if name == LIMITS[0] and is_unknown(failed.said):
            self._unknown.append(name)
        elif allowed is not None:
            self._limit = allowed
        else:
            # Without a limit, the budget could not be kept.
            raise self.server.gave_up(failed, hint=f"lower prompts.max_tokens, which is {self._limit} now") from None


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


def plainer(request: dict[str, Any], unknown: list[str], limit: int) -> dict[str, Any]:
    """Return the request without some parameters, for a server that rejects them, and with a limit of its own.

    The limit is always there. Newer servers know it by its newer name.
    """
    sent = {name: value for name, value in request.items() if name not in unknown}
    return {**sent, LIMITS[LIMITS[0] in unknown]: limit}


def _stored(kept: Path) -> dict[str, Any] | None:
    """Return a stored exchange; None where there is none, or where it is damaged or holds no paraphrase."""
    try:
        exchange = parse_json(kept.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    is_sound = isinstance(exchange, dict) and isinstance(exchange.get("answer"), str)
    is_sound = is_sound and isinstance(exchange.get("request"), dict)
    return exchange if is_sound and not read_answer(exchange["answer"])[1] else None
