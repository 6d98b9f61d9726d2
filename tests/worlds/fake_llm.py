"""A loopback server of the OpenAI API that behaves as badly as it is told, and the settings that point there."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.config.styles import StyleFile

KEY = "sk-test-of-stillroom-0123456789"
GOOD = [
    "carve his head from white rock", "what would she look like in marble?", "a marble bust of this person",
    "replace their skin with polished white stone", "sculpt the face out of marble", "make her a Greek sculpture",
    "transform the portrait: cold white marble everywhere", "show them as stone in a museum", "petrify the person",
    "he has become a monument", "as if an ancient master had made her", "change everything to smooth marble",
    "could this head be a classical bust?", "render a statue instead", "give him a chiselled marble body",
]  # fmt: skip

MARBLE = StyleFile(slug="marble-statue", prompts=["make him a marble statue"])

Move = Callable[[BaseHTTPRequestHandler], None]


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """An answer as the API gives it."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}
    whole = {"id": "c1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}
    return whole | {"usage": usage}


def listing(texts: list[str]) -> str:
    return json.dumps({"paraphrases": texts})


def says(*texts: str) -> Move:
    """A good answer."""
    return replies(completion(listing(list(texts))))


def replies(answer: Any, status: int = 200, **headers: str) -> Move:
    """Some JSON."""
    return sends(json.dumps(answer).encode(), status, **headers)


def sends(body: bytes, status: int = 200, **headers: str) -> Move:
    """Any bytes, with their true length."""

    def move(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return move


def cuts(handler: BaseHTTPRequestHandler) -> None:
    """Promise an answer and hang up in the middle of it."""
    body = json.dumps(completion(listing(GOOD))).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def trickles(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for a minute."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "600")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


class FakeServer:
    """Makes its moves one after the other, the last again and again."""

    def __init__(self, moves: list[Move]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                assert self.headers["Authorization"] == f"Bearer {KEY}"
                move = moves[min(len(server.requests), len(moves) - 1)]
                server.requests.append(body)
                server.times.append(time.monotonic())
                with suppress(OSError):  # The client has had enough.
                    move(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def settings(self, *overrides: str) -> Settings:
        """The demo, asking this server."""
        own = ["prompts.backend=openai", f"prompts.base_url={self.url}", "prompts.model=tiny", "llm.retries=2"]
        return load_settings("demo", [*own, *overrides])

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


Serve = Callable[..., FakeServer]  # starts a server with its moves
