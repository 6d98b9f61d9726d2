"""The way to the server: loopback without a proxy, a proxy that is dead or unusable, addresses that are none."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from tasks.prompts import make_book
from tests.worlds.fake_llm import GOOD, KEY, MARBLE, Serve, says

AWAY = "http://llm.invalid/v1"  # a name that no resolver knows (RFC 6761)
DEAD = "http://name:secret@127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "openai_base_url"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asks(url: str | None) -> Settings:
    own = ["prompts.backend=openai", "llm.retries=0", *([f"prompts.base_url={url}"] if url else [])]
    return load_settings("demo", own)


def said(settings: Settings, folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        make_book(MARBLE, settings, folder / "answers")
    assert "secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
@pytest.mark.parametrize("proxy", [DEAD, "socks5://127.0.0.1:9", "nonsense"])
def test_a_server_of_this_machine_is_reached_past_any_proxy(
    variable: str, proxy: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy)
    server = serve(says(*GOOD))
    for host in ("127.0.0.1", "localhost"):
        url = server.url.replace("127.0.0.1", host)
        make_book(MARBLE, server.settings(f"prompts.base_url={url}"), tmp_path / host)
    assert len(server.requests) == 2


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_dead_proxy_is_named_with_its_variable(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, DEAD)
    error = said(asks(AWAY), tmp_path)
    assert error.fields["proxy"] == f"{variable}=http://127.0.0.1:9"
    assert error.hint == f"unset {variable}, or export NO_PROXY=llm.invalid"
    monkeypatch.setenv("NO_PROXY", "llm.invalid")
    assert "proxy" not in said(asks(AWAY), tmp_path).fields


@pytest.mark.parametrize(("proxy", "cause"), [("socks5://127.0.0.1:9", "socksio"), ("gopher://127.0.0.1:9", "proxy")])
def test_a_proxy_that_cannot_be_used_is_named(
    proxy: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    error = said(asks(AWAY), tmp_path)
    assert error.message == "ALL_PROXY names a proxy that cannot be used"
    assert cause in error.fields["cause"]
    assert error.hint is not None
    assert "unset ALL_PROXY" in error.hint


def test_https_to_a_server_of_http_says_so(serve: Serve, tmp_path: Path) -> None:
    url = serve(says(*GOOD)).url
    error = said(asks(url.replace("http:", "https:")), tmp_path)
    assert error.hint == f"the server does not speak https: --set prompts.base_url={url}"


@pytest.mark.parametrize("url", ["localhost:18080/ok/v1", "127.0.0.1:18080/v1", "llm.example/v1"])
def test_an_address_without_a_scheme_gets_one_in_the_hint(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"prompts\.base_url is not the plain address") as caught:
        asks(url)
    assert caught.value.hint == f"write http://{url}, or https://{url}"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    error = said(asks(None), tmp_path)
    assert error.message == "OPENAI_BASE_URL is not the plain address of a server"
    assert error.hint == caught.value.hint


@pytest.mark.parametrize(
    "url", ["http://x:secret@host/v1", "http://host/v1?key=secret", "http://", "http://[::1/v1", "http://host:secret/v1",
            "http://host:0/v1", "ftp://host/v1", "http://a host/v1"],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused_without_its_secret(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert said(asks(None), tmp_path).message == "OPENAI_BASE_URL is not the plain address of a server"


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes a connection and ends it without a word."""
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                listener.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_server_that_hangs_up_is_a_message(silent: str, tmp_path: Path) -> None:
    error = said(asks(silent), tmp_path)
    assert error.message == "the language model did not answer"
    assert error.fields["server"] == silent
