"""Requests to a server with the OpenAI API, repeated until answered or hopeless.

The client's own retries are off: they ignore a long `retry-after`, do not end a trickling answer, follow redirects with
the prompts, and do not report the tokens that failed tries may have cost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from data_catalog.config.errors import UserError
from data_catalog.config.settings import LlmSettings
from tasks.language.budget import Budget, most_tokens

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0  # seconds before a retry, doubling, unless the server says how long
PATIENCE_S = 120.0  # seconds; a server that asks for a longer wait is given up
SHOWN = 300  # characters of a server's message
KEY_VARIABLE = "OPENAI_API_KEY"
HIDDEN = "[key]"
HINTS = {
    401: "check OPENAI_API_KEY",
    403: "check what the key may do",
    404: "check prompts.model and prompts.base_url",
    429: "wait, or raise the limit of the account",
}


class Server:
    """Server, and the cost of its requests. Open it with `with`."""

    def __init__(self, base_url: str | None, settings: LlmSettings, budget: Budget) -> None:
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
        self.settings = settings
        self.budget = budget
        self._jitter = random.Random()
        self._runner = asyncio.Runner()
        self._client: AsyncOpenAI | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._client is not None:
            self._runner.run(self._client.close())
        self._runner.close()

    def send(self, request: dict[str, Any]) -> bytes:
        """Return the answer's body. Raises openai's BadRequestError where the server rejects the request itself."""
        from openai import APIConnectionError, APIStatusError, BadRequestError, UnprocessableEntityError

        tokens = most_tokens(request)
        for attempt in range(self.settings.retries + 1):
            self.budget.check(*tokens)
            try:
                return self._runner.run(self._post(request))
            except (BadRequestError, UnprocessableEntityError):
                raise
            except APIStatusError as error:
                wait, said = _retry_after(error), self._said(error)
                if not _worth_retrying(error) or (wait or 0.0) > PATIENCE_S:
                    raise self._gave_up(said, attempt + 1, error, wait) from None
            except (APIConnectionError, TimeoutError) as error:
                # An answer that did not arrive may have been written and charged: count it.
                self.budget.add(*tokens)
                wait, said = None, self._said(error)
            if attempt == self.settings.retries:
                raise self._gave_up(said, attempt + 1) from None
            if wait is None:
                wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * self._jitter.uniform(0.5, 1.0)
            log.info("the language model did not answer (%s); again in %.1f s", said, wait)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def refused(self, error: APIStatusError) -> UserError:
        """Return the error for a request that the server rejects in every form."""
        return self._gave_up(self._said(error), 1, error)

    def without_key(self, text: str) -> str:
        """Remove the key from a text of the server, which may quote the request."""
        key = os.environ.get(KEY_VARIABLE, "").strip()
        return text.replace(key, HIDDEN) if key else text

    async def _post(self, request: dict[str, Any]) -> bytes:
        # A deadline for the whole answer: the client's own timeout starts again with every byte.
        async with asyncio.timeout(self.settings.timeout_s):
            answer = await self._open().chat.completions.with_raw_response.create(**request)
            body: bytes = answer.http_response.content
        return body

    def _open(self) -> AsyncOpenAI:
        """Return the client, made with the first request: stored answers need no key."""
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            key = os.environ.get(KEY_VARIABLE, "").strip()
            if not key:
                raise UserError(
                    "prompts.backend is 'openai', but there is no key",
                    expected=f"the key of the server in {KEY_VARIABLE} (any text for a local server that wants none)",
                    hint=f"export {KEY_VARIABLE}=..., or --set prompts.backend=builtin",
                )
            http = DefaultAsyncHttpxClient(follow_redirects=False)
            timeout = self.settings.timeout_s
            self._client = AsyncOpenAI(
                api_key=key, base_url=self.base_url, timeout=timeout, max_retries=0, http_client=http
            )
        return self._client

    def _said(self, error: Exception) -> str:
        from openai import APIStatusError, APITimeoutError

        if isinstance(error, APIStatusError):
            message = error.message.removeprefix(f"Error code: {error.status_code} - ")
            location = error.response.headers.get("location")
            if 300 <= error.status_code < 400:
                message = f"it redirects to {_origin(location or '')}"
            return self.without_key(f"{error.status_code} {message}")[:SHOWN]
        if isinstance(error, APITimeoutError | TimeoutError):
            return f"no whole answer within llm.timeout_s = {self.settings.timeout_s:g} s"
        cause = error.__cause__ or error
        return self.without_key(f"{type(cause).__name__}: {cause}")[:SHOWN]

    def _gave_up(
        self, said: str, tries: int, error: APIStatusError | None = None, wait: float | None = None
    ) -> UserError:
        status = error.status_code if error is not None else 0
        hint = HINTS.get(status, "try again, or --set prompts.backend=builtin")
        if 300 <= status < 400:
            hint = "set prompts.base_url to the address that answers; a redirect is not followed with a key"
        waiting = {"wait": f"it asks to wait {wait:.0f} s"} if wait is not None and wait > PATIENCE_S else {}
        return UserError(
            "the language model did not answer",
            server=_origin(self.base_url),
            cause=said,
            tries=tries,
            kept="earlier answers are stored and not requested again",
            **waiting,
            hint=hint,
        )


def _worth_retrying(error: APIStatusError) -> bool:
    if error.code == "insufficient_quota":
        return False
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        given = headers.get("retry-after")
        if given is None:
            return None
        if given.strip().replace(".", "", 1).isdigit():
            return float(given)
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None


def _origin(url: str) -> str:
    """Return server and path of an address, without possible secrets."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}" if host else parts.path
