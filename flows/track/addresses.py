"""Addresses of services: shown without their password, and asked once before any work whether something answers."""

import base64
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from data_catalog.config.errors import UserError

ANSWER_SECONDS = 4.0  # seconds to wait for one answer, before any work
USERINFO = re.compile(r"(?:(?<=://)|^)\S*@")
FILES = ("sqlite:", "file:")  # addresses of files: they hold no password, and may hold an @
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # servers of databases, and their usual ports


def shown(address: str) -> str:
    """Return the address for messages and notes: without user, password and query, and printable."""
    if not address.startswith(FILES):
        address = USERINFO.sub("***@", address).partition("?")[0]
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in address)


def host_of(address: str) -> str:
    """Return the name of the host; empty where the address has none, or is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def without_password(text: object, address: str) -> str:
    """Return a library's sentence without user and password of the address that it speaks about, nor parts of them."""
    said = str(text)
    if address.startswith(FILES):
        return said
    secret = address.rpartition("@")[0].rpartition("://")[2]
    query = address.partition("?")[2]
    parts = [part for part in re.split(r"[:/?#@&=]", f"{secret}:{query}") if len(part) > 2]
    for form in sorted({secret, secret.partition(":")[2], query, *parts, *map(unquote, parts)}, key=len, reverse=True):
        said = said.replace(form, "***") if form else said
    return USERINFO.sub("***@", said)


def check_answers(name: str, address: str, hint: str) -> None:
    """Raise UserError unless a server answers at an address of the web or of a database.

    name: the variable or setting that names it. Answers that are errors count, and so does a certificate that is not
    trusted here: the client knows more of those.
    """
    kind = address.partition(":")[0].partition("+")[0]
    try:
        if kind in PORTS:
            _connect(address, PORTS[kind])
        elif kind in ("http", "https"):
            _get(address, {})
    except HTTPError:
        return
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            return
        raise _nothing_answers(name, address, error, hint) from None


def check_prefect(address: str) -> None:
    """Raise UserError unless a Prefect API answers at the address in PREFECT_API_URL."""
    hint = "unset PREFECT_API_URL    (build needs no server); or set it to http://HOST:4200/api"
    found = ""
    try:
        said = _get(f"{address.rstrip('/')}/health", _prefect_rights())
        if said.strip() == b"true" or host_of(address).endswith(".prefect.cloud"):
            return
        found = f"an answer that is not Prefect's: {_first_words(said)}"
    except HTTPError as error:
        found = f"{error.code} {error.reason}"
        error.close()
    except (OSError, ValueError, HTTPException) as error:
        raise _nothing_answers("PREFECT_API_URL", address, error, hint) from None
    raise UserError(
        "PREFECT_API_URL is not the API of a Prefect server", address=shown(address), found=found, hint=hint
    )


def _connect(address: str, port: int) -> None:
    parts = urlsplit(address)
    if parts.hostname:  # else a socket of this machine, or a host among the options
        socket.create_connection((parts.hostname, parts.port or port), timeout=ANSWER_SECONDS).close()


def _get(address: str, headers: Mapping[str, str]) -> bytes:
    """Return the first bytes of an answer."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("no address of a web server: http://HOST:PORT was expected")
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    with urlopen(Request(plain, headers=dict(headers)), timeout=ANSWER_SECONDS) as answer:
        return bytes(answer.read(1000))


def _prefect_rights() -> dict[str, str]:
    """Return the header by which Prefect's client shows its rights."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _nothing_answers(name: str, address: str, error: Exception, hint: str) -> UserError:
    cause = error.reason if isinstance(error, URLError) else error
    found = without_password(getattr(cause, "strerror", None) or cause, address)
    if isinstance(cause, ValueError) and "@" in address:
        found = "the address cannot be read; in a password, / is written as %2F, @ as %40, ? as %3F"
    if isinstance(cause, ssl.SSLError):
        found, hint = f"{found} (does this server speak http://?)", f"{hint}; with http:// instead of https://?"
    return UserError(f"no server answers at the address in {name}", address=shown(address), found=found, hint=hint)


def _first_words(said: bytes) -> str:
    text = said.decode("utf-8", "backslashreplace").strip()
    return json.dumps(" ".join(text.split())[:60], ensure_ascii=True)
