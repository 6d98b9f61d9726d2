"""A server of a language model on loopback."""

from collections.abc import Callable, Iterator

import pytest

from tests.worlds.fake_llm import KEY, FakeServer, Move


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeServer]]:
    """Start a server with its moves; the key is in the environment."""
    started: list[FakeServer] = []
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def start(*moves: Move) -> FakeServer:
        started.append(FakeServer(list(moves)))
        return started[-1]

    yield start
    for server in started:
        server.stop()
