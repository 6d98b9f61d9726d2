"""Filter of the page's server: it answers the requests of this page, within limits, and nothing else of Gradio's."""

import re
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD = 20_000_000  # bytes of one file; portraits are below a tenth of it
TOO_LARGE = b"too large, bytes: "  # sent instead of a larger file; its number of bytes follows
MAX_BODY = MAX_UPLOAD + 100_000  # bytes, with the form around the file
OPEN = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?|/(assets|static)/.*"
    r"|/gradio_api/(startup-events|info/?|heartbeat/\w+|queue/(join|data)|run/\w+/?|cancel|reset/?|upload|upload_progress"
    r"|file=/(?!.*://).*)"
)
# The browser, too, may connect to this server only.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


class Doors:
    """ASGI middleware: 404 for a path that the page does not use, 413 for a body that is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refused = refuse(scope["path"], dict(scope["headers"]).get(b"content-length", b"0"))
        if refused is not None:
            return await refused(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers)
        return None


def refuse(path: str, content_length: bytes) -> Any:
    """Return the answer to a refused request; None for an accepted one."""
    if not OPEN.fullmatch(path):
        return PlainTextResponse("not found", 404)
    if not content_length.isdigit() or int(content_length) > MAX_BODY:
        return PlainTextResponse(f"more than the {MAX_UPLOAD // 1_000_000} MB that are allowed", 413)
    return None
