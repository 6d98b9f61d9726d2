"""Budget of a style's prompts: a limit in tokens and money, checked before each request."""

from __future__ import annotations

import json
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.settings import LlmSettings
from tasks.language.answers import parse_json

OVERHEAD = 64  # tokens that a server may add around the messages


class Budget:
    """Tokens and US dollars spent on a style by any run: reused answers count too."""

    def __init__(self, settings: LlmSettings) -> None:
        self.settings = settings
        self.tokens, self.usd = 0, 0.0
        prices = (settings.usd_per_million_input, settings.usd_per_million_output)
        if settings.budget_usd is not None and None in prices:
            raise UserError(
                "llm.budget_usd needs prices",
                expected="llm.usd_per_million_input and llm.usd_per_million_output, from the price list of the model",
            )
        self._prices = tuple(price or 0.0 for price in prices)

    def add(self, tokens_in: int, tokens_out: int) -> None:
        """Note tokens that were spent or may have been."""
        self.tokens += tokens_in + tokens_out
        self.usd += self._cost(tokens_in, tokens_out)

    def check(self, tokens_in: int, tokens_out: int) -> None:
        """Stop before a request that could pass the budget."""
        tokens, usd = self.tokens + tokens_in + tokens_out, self.usd + self._cost(tokens_in, tokens_out)
        most_tokens, most_usd = self.settings.budget_tokens, self.settings.budget_usd
        over_tokens = most_tokens is not None and tokens > most_tokens
        if not over_tokens and (most_usd is None or usd <= most_usd):
            return
        key = "budget_tokens" if over_tokens else "budget_usd"
        raise UserError(
            "the next request to the language model could exceed the budget of this style's prompts",
            spent=f"{self.tokens} tokens, {self.usd:.4f} USD",
            request=f"up to {tokens_in + tokens_out} tokens, {self._cost(tokens_in, tokens_out):.4f} USD",
            budget=f"llm.{key} = {getattr(self.settings, key)}",
            hint=f"--set llm.{key}=...; earlier answers are reused. Or --set prompts.backend=builtin",
        )

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self._prices[0] + tokens_out * self._prices[1]) / 1e6


def most_tokens(request: dict[str, Any]) -> tuple[int, int]:
    """Upper bounds of a request's tokens, in and out: no token is shorter than a byte."""
    sent = json.dumps([request["messages"], request.get("response_format")], ensure_ascii=False)
    return len(sent.encode()) + OVERHEAD, int(request.get("max_tokens") or request.get("max_completion_tokens") or 0)


def used_tokens(body: bytes) -> tuple[int, int] | None:
    """Return (in, out) as the server counted them; None if it does not say, or says that there were none."""
    document = parse_json(body.decode("utf-8", errors="replace"))
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (count if type(count) is int else -1 for count in counts)
    return (tokens_in, tokens_out) if min(tokens_in, tokens_out) >= 0 and tokens_in + tokens_out > 0 else None
