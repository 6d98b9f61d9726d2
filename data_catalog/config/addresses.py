"""Addresses of servers in settings and in the environment."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from data_catalog.config.errors import UserError


def check_address(url: str, name: str) -> None:
    """Refuse an address of a server that is none, or that holds a secret: settings go into records and reports."""
    # A UserError does not quote the value, a ValueError would.
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_plain = is_server and not parts.query and "@" not in parts.netloc and not re.search(r"[\s#]", url)
    except ValueError:  # a port that is no number, a bracket that is open
        parts, is_plain = None, False
    if not is_plain:
        has_secret = "@" in url or "?" in url or "://" in url or parts is None
        raise UserError(
            f"{name} is not the plain address of a server",
            expected="http:// or https://, host, port and path, without a password or a query",
            hint="the key goes into OPENAI_API_KEY" if has_secret else f"write http://{url}, or https://{url}",
        )
