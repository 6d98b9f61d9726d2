"""Requests to a server with the OpenAI API, repeated until answered or hopeless.

The client's own retries are off: they ignore a long `retry-after`, do not end a trickling answer, follow redirects with
the prompts, and do not report the tokens that failed tries may have cost. A failure that comes with status 200 is a
failure.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import ssl
import time
import urllib.request
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from data_catalog.config.addresses import check_address
from data_catalog.config.errors import UserError
from data_catalog.config.settings import LlmSettings
from tasks.language.answers import parse_json
from tasks.language.budget import Budget, most_tokens, used_tokens
from tasks.language.complaints import SHOWN, failure, said_by, status_of
from tasks.language.key import read_key, without_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0  # seconds before a retry, doubling, unless the server says how long
PATIENCE_S = 120.0  # seconds; a server that asks for a longer wait is given up
LONGEST_ANSWER = 1_000_000  # bytes
URL_VARIABLE = "OPENAI_BASE_URL"
BUILTIN = "--set prompts.backend=builtin"
NO_TLS = ("WRONG_VERSION", "RECORD LAYER")  # in OpenSSL's words about an answer in plain HTTP
HINTS = {
    401: "check OPENAI_API_KEY",
    403: "check what the key may do",
    404: "check prompts.model and prompts.base_url",
    429: "wait, or raise the limit of the account",
}


@dataclass(eq=False)
class Failed(Exception):
    """Answer of a server that is none. status: of HTTP, or what the body says; 0: nothing arrived."""

    status: int
    said: str
    hint: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    wait_s: float | None = None  # that the server asks for
    hopeless: bool = False


class Rejected(Failed):
    """Complaint about the request itself: status 400 or 422."""


class Server:
    """Server, and the cost of its requests."""

    def __init__(self, base_url: str | None, settings: LlmSettings, budget: Budget) -> None:
        given = os.environ.get(URL_VARIABLE, "").strip()
        if not base_url and given:
            check_address(given, URL_VARIABLE)
        self.base_url = (base_url or given or "https://api.openai.com/v1").rstrip("/")
        self.settings = settings
        self.budget = budget

    def send(self, request: dict[str, Any]) -> bytes:
        """Return the body of a chat completion. Raises Rejected where the server rejects the request itself."""
        tokens = most_tokens(request)
        for attempt in range(self.settings.retries + 1):
            self.budget.check(*tokens)
            try:
                return self._post(request)
            except Rejected:
                raise
            except Failed as failed:
                wait = failed.wait_s
                if failed.hopeless or (wait or 0.0) > PATIENCE_S or attempt == self.settings.retries:
                    raise self.gave_up(failed, attempt + 1) from None
                if wait is None:
                    wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.SystemRandom().uniform(0.5, 1.0)
                log.info("the language model did not answer (%s); again in %.1f s", failed.said, wait)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def gave_up(self, failed: Failed, tries: int = 1, hint: str = "") -> UserError:
        """Return the error for a request that is not answered."""
        patience = failed.wait_s is not None and failed.wait_s > PATIENCE_S
        return UserError(
            "the language model did not answer",
            server=without_key(_origin(self.base_url)),
            cause=failed.said,
            **failed.fields,
            tries=tries,
            kept="earlier answers are stored and not requested again",
            **({"wait": f"it asks to wait {failed.wait_s:.0f} s"} if patience else {}),
            hint=hint or failed.hint or HINTS.get(failed.status, f"try again, or {BUILTIN}"),
        )

    def _post(self, request: dict[str, Any]) -> bytes:
        """Send once. Raises Failed."""
        from openai import APIConnectionError, APIStatusError

        try:
            body = asyncio.run(self._answer(request))
        except APIStatusError as error:
            raise _failed(error.status_code, error.response.content, error.response.headers) from None
        except (APIConnectionError, TimeoutError) as error:
            # An answer that did not arrive may have been written and charged: count it.
            self.budget.add(*most_tokens(request))
            raise self._unreachable(error) from None
        said = failure(body) if len(body) <= LONGEST_ANSWER else "the answer is longer than a megabyte"
        if not said:
            return body
        if parse_json(body.decode("utf-8", errors="replace")) is not None:  # else it is of no language model
            self.budget.add(*(used_tokens(body) or most_tokens(request)))
        raise _failed(status_of(body), body, {}, said)

    async def _answer(self, request: dict[str, Any]) -> bytes:
        # A deadline for the whole answer: the client's own timeout starts again with every byte.
        async with asyncio.timeout(self.settings.timeout_s), self._open() as client:
            answer = await client.chat.completions.with_raw_response.create(**request)
            body: bytes = answer.http_response.content
        return body

    def _open(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        key, direct, timeout = read_key(), {}, self.settings.timeout_s
        if _is_here(self.base_url):  # No proxy reaches a server of this machine.
            direct = {"trust_env": False, "verify": ssl.create_default_context()}
        try:
            http = DefaultAsyncHttpxClient(follow_redirects=False, **direct)
        except (ImportError, ValueError) as error:
            raise _bad_proxy(self.base_url, error) from None
        return AsyncOpenAI(api_key=key, base_url=self.base_url, timeout=timeout, max_retries=0, http_client=http)

    def _unreachable(self, error: Exception) -> Failed:
        from openai import APITimeoutError

        cause, hint = error.__cause__ or error, ""
        said = without_key(f"{type(cause).__name__}: {cause}")[:SHOWN]
        if isinstance(error, APITimeoutError | TimeoutError):
            said = f"no whole answer within llm.timeout_s = {self.settings.timeout_s:g} s"
        elif self.base_url.startswith("https:") and any(word in said.upper() for word in NO_TLS):
            plain = self.base_url.replace("https:", "http:", 1)
            hint = f"the server does not speak https: --set prompts.base_url={plain}"
        proxy = None if _is_here(self.base_url) else _proxy_of(self.base_url)
        if proxy is None:
            return Failed(0, said, hint)
        hint = hint or f"unset {proxy[0]}, or export NO_PROXY={urlsplit(self.base_url).hostname}"
        return Failed(0, said, hint, {"proxy": without_key(f"{proxy[0]}={_origin(proxy[1])}")})


def _failed(status: int, body: bytes, headers: Mapping[str, str], said: str = "") -> Failed:
    """Return the failure that an answer is."""
    said, hint = without_key(said or said_by(body) or "an empty answer"), ""
    if 300 <= status < 400:
        said = f"it redirects to {without_key(_origin(headers.get('location', '')))}"
        hint = "set prompts.base_url to the address that answers; a redirect is not followed with a key"
    elif "plain HTTP request was sent to HTTPS port" in said:
        hint = "the server speaks https: set prompts.base_url to https://..."
    elif "a page came" in said and status in (200, 502):
        hint = "log in to the network, or check prompts.base_url: a web page answers there"
    # Without headers, it came with status 200, and the status is the body's.
    kind = Rejected if status in (400, 422) else Failed
    quota = b"insufficient_quota" in body
    hopeless = quota or not (status in (408, 409, 429) or status >= 500)
    return kind(status, f"{status} {said}" if headers else said, hint, {}, _retry_after(headers), hopeless)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
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


def _is_here(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _proxy_of(url: str) -> tuple[str, str] | None:
    """Variable and address of the proxy that the environment names for an address."""
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None:
        return None
    names = [name for name in os.environ if name.lower() == f"{kind}_proxy" and os.environ[name]]
    return (sorted(names)[-1], proxies[kind]) if names else None


def _bad_proxy(url: str, error: Exception) -> UserError:
    """Return the error for a proxy of the environment that the client cannot use."""
    variables = sorted(name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
    named = [name for name in variables if isinstance(error, ValueError) or os.environ[name].startswith("socks")]
    variable = (named or variables or ["ALL_PROXY"])[0]
    socks = isinstance(error, ImportError)
    return UserError(
        f"{variable} names a proxy that cannot be used",
        proxy=without_key(_origin(os.environ.get(variable, ""))),
        cause="a SOCKS proxy needs the package socksio" if socks else without_key(str(error)),
        hint=("pip install socksio, or " if socks else "") + f"unset {variable}, or NO_PROXY={urlsplit(url).hostname}",
    )


def _origin(url: str) -> str:
    """Return server and path of an address, without possible secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{host}{port}{parts.path}" if host else parts.path
