"""A language model writes the prompts, through a real server on loopback that fails in every way it can."""

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.config.styles import StyleFile
from data_catalog.store.stage import Partition, Work
from tasks import prompts
from tasks.language import llm
from tasks.language.budget import most_tokens
from tasks.language.wording import rouge_l
from tests.worlds.fake_llm import GOOD, KEY, FakeServer, Move, completion, cuts, listing, replies, says, sends, trickles

Serve = Callable[..., FakeServer]
MARBLE = StyleFile(slug="marble-statue", prompts=["make him a marble statue"])
SHAPE = "the answer is not a chat completion"
NOT_JSON = "the answer is not the JSON that was asked for"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
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


def book_of(settings: Settings, folder: Path) -> tuple[dict[str, Any], list[llm.Exchange]]:
    return prompts.make_book(MARBLE, settings, folder / "answers")


def origins(book: dict[str, Any]) -> dict[str, int]:
    found = [prompt["origin"] for prompt in [*book["train"], *book["test"]]]
    return {origin: found.count(origin) for origin in sorted(set(found))}


def test_a_language_model_writes_the_prompts(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*GOOD))
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert [entry["reason"] for entry in book["rejected"]] == ["not needed"] * 3
    (request,) = server.requests
    assert request["response_format"]["json_schema"]["strict"] is True
    assert (request["model"], request["seed"], request["max_tokens"]) == ("tiny", 0, 2000)
    assert "make him a marble statue" in request["messages"][1]["content"]
    assert (exchanges[0].request, exchanges[0].tokens_in, exchanges[0].tokens_out) == (request, 200, 100)
    for one, other in itertools.combinations([*book["train"], *book["test"]], 2):
        assert rouge_l(one["text"], other["text"]) < 0.7


RETRIED = {
    "429 without retry-after": replies({"error": {"message": "slow down"}}, 429),
    "500": replies({"error": {"message": "overloaded"}}, 500),
    "a proxy's page": sends(b"<html>bad gateway</html>", 502, Content_Type="text/html"),
    "a cut connection": cuts,
}


@pytest.mark.parametrize("move", RETRIED.values(), ids=RETRIED)
def test_a_failure_that_may_pass_is_tried_again(move: Move, serve: Serve, tmp_path: Path) -> None:
    server = serve(move, says(*GOOD))
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert (len(server.requests), len(exchanges)) == (2, 1)
    assert server.times[1] - server.times[0] >= 0.2  # half of the first wait at least


@pytest.mark.parametrize("header", [lambda: "1", lambda: formatdate(time.time() + 3, usegmt=True)], ids=["s", "date"])
def test_the_server_says_how_long_to_wait(header: Callable[[], str], serve: Serve, tmp_path: Path) -> None:
    server = serve(replies({"error": {"message": "slow down"}}, 429, Retry_After=header()), says(*GOOD))
    book_of(server.settings(), tmp_path)
    assert 0.95 <= server.times[1] - server.times[0] < 5


def test_a_server_that_asks_for_too_much_patience_is_given_up(serve: Serve, tmp_path: Path) -> None:
    server = serve(replies({"error": {"message": "come back tomorrow"}}, 429, Retry_After="86400"))
    with pytest.raises(UserError, match="did not answer") as caught:
        book_of(server.settings(), tmp_path)
    assert "it asks to wait 86400 s" in str(caught.value)
    assert len(server.requests) == 1


def test_the_waits_grow(serve: Serve, tmp_path: Path) -> None:
    server = serve(replies({"error": {"message": "overloaded"}}, 503))
    with pytest.raises(UserError) as caught:
        book_of(server.settings("llm.retries=3"), tmp_path)
    waits = [after - before for before, after in itertools.pairwise(server.times)]
    for n, wait in enumerate(waits):
        assert 0.25 * 2**n <= wait < 0.5 * 2**n + 1.0
    assert caught.value.fields["tries"] == "4"


GIVEN_UP = {
    "a wrong key": (replies({"error": {"message": f"Incorrect API key: {KEY}"}}, 401), "401", "OPENAI_API_KEY", 1),
    "no such model": (replies({"error": {"message": "no such model"}}, 404), "404", "prompts.model", 1),
    "no money": (
        replies({"error": {"message": "you exceeded your quota", "code": "insufficient_quota"}}, 429),
        "quota",
        "raise the limit",
        1,
    ),
    "a redirect": (sends(b"", 307, Location="http://elsewhere.example/v1?token=x"), "307", "prompts.base_url", 1),
    "500 for ever": (replies({"error": {"message": "overloaded"}}, 500), "500 overloaded", "builtin", 3),
    "cut for ever": (cuts, "ProtocolError", "builtin", 3),
    "400 whatever is asked": (replies({"error": {"message": "no"}}, 400), "400", "builtin", 2),
}


@pytest.mark.parametrize(("move", "cause", "hint", "tries"), GIVEN_UP.values(), ids=GIVEN_UP)
def test_what_does_not_pass_is_said_and_ends(
    move: Move, cause: str, hint: str, tries: int, serve: Serve, tmp_path: Path
) -> None:
    server = serve(move)
    with pytest.raises(UserError, match="the language model did not answer") as caught:
        book_of(server.settings(), tmp_path)
    assert cause in caught.value.fields["cause"]
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert len(server.requests) == tries
    assert KEY not in str(caught.value)
    assert "token" not in str(caught.value)


def test_an_answer_that_trickles_ends_at_the_deadline(serve: Serve, tmp_path: Path) -> None:
    server = serve(trickles)
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        book_of(server.settings("llm.timeout_s=0.6", "llm.retries=1"), tmp_path)
    assert caught.value.fields["cause"] == "no whole answer within llm.timeout_s = 0.6 s"
    assert time.monotonic() - started < 8
    assert len(server.requests) == 2


def test_nobody_at_the_address_is_said(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*GOOD))
    server.http.server_close()
    with pytest.raises(UserError) as caught:
        book_of(server.settings("llm.retries=0"), tmp_path)
    assert "ConnectError" in caught.value.fields["cause"]


ASKED_AGAIN = {
    "malformed JSON": (replies(completion('{"paraphrases": ["turn him')), NOT_JSON),
    "cut off": (replies(completion('{"paraphrases": ["turn', "length")), f"{NOT_JSON} (it was cut off: raise "),
    "JSON of another shape": (replies(completion('{"ideas": {"a": 1}}')), NOT_JSON),
    "a list of another shape": (replies([1, 2, 3]), SHAPE),
    "a text": (sends(b"hello", Content_Type="text/plain"), SHAPE),
    "no choices": (replies({"choices": []}), SHAPE),
    "null for a message": (replies({"choices": [{"message": None}]}), SHAPE),
    "an empty body": (sends(b""), SHAPE),
    "an empty list": (says(), "the answer holds no paraphrase"),
    "another encoding": (sends('{"é": 1}'.encode("latin-1")), "the answer is not UTF-8"),
    "deep nonsense": (sends(b"[" * 200_000), SHAPE),
    "200 KB of braces": (replies(completion("{" * 200_000)), NOT_JSON),
}


@pytest.mark.parametrize(("move", "problem"), ASKED_AGAIN.values(), ids=ASKED_AGAIN)
def test_an_answer_that_is_none_is_asked_again(move: Move, problem: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(move, says(*GOOD))
    started = time.monotonic()
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert book["rejected"][0]["reason"].startswith(problem)
    assert [exchange.problem != "" for exchange in exchanges] == [True, False]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("move", "problem"), ASKED_AGAIN.values(), ids=ASKED_AGAIN)
def test_a_server_that_never_answers_well_is_left_after_three_times(
    move: Move, problem: str, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(move)
    with caplog.at_level(logging.WARNING):
        book, _ = book_of(server.settings(), tmp_path)
    assert len(server.requests) == prompts.REQUESTS
    assert origins(book) == {"builtin": 12, "seed": 1}
    assert "12 prompts are missing; the built-in paraphraser adds them" in caplog.text


def test_a_text_of_200_kilobytes_is_rejected_and_what_is_good_beside_it_kept(serve: Serve, tmp_path: Path) -> None:
    server = serve(says("marble " * 30_000, *GOOD))
    book, _ = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert book["rejected"][0]["reason"] == "too long: 30000 words"
    assert len(book["rejected"][0]["text"]) == 200


def test_a_thousand_prompts_are_not_all_weighed(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*[f"make him a marble statue {n}" for n in range(5000)]), says(*GOOD))
    book, _ = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert sum(entry["reason"].startswith("too similar") for entry in book["rejected"]) == 4 * 13


def test_a_refusal_is_kept_and_the_paraphraser_helps_out(serve: Serve, tmp_path: Path) -> None:
    server = serve(replies(completion(None, refusal="I will not turn anyone to stone.")))
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"builtin": 12, "seed": 1}
    assert book["rejected"][0]["reason"] == "the model refused: I will not turn anyone to stone."
    assert (len(server.requests), exchanges[0].refused) == (1, True)


def test_duplicates_only_are_rejected_and_the_paraphraser_helps_out(serve: Serve, tmp_path: Path) -> None:
    same = ["Make him a marble statue.", "make him a MARBLE statue", "make  him a marble statue"]
    server = serve(says(*same, "make her a marble statue"))
    book, _ = book_of(server.settings(), tmp_path)
    assert len(server.requests) == prompts.REQUESTS
    assert origins(book)["builtin"] == 12
    reasons = [entry["reason"] for entry in book["rejected"]]
    assert reasons.count("duplicate") == 11  # three at the first request, four at each other
    assert reasons[-1] == "too similar: ROUGE-L 0.80 to 'make him a marble statue'"


def test_what_is_no_edit_of_this_face_is_rejected(serve: Serve, tmp_path: Path) -> None:
    bad = ["marble, as Michelangelo would", "a nude marble figure", "swap his face for a marble one"]
    book, _ = book_of(serve(says(*bad, *GOOD)).settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert [entry["reason"].partition(":")[0] for entry in book["rejected"][:3]] == [
        "names a person",
        "not face-safe",
        "changes who it is",
    ]


def test_a_rerun_asks_only_what_was_not_answered(serve: Serve, tmp_path: Path) -> None:
    failing = [says(*GOOD[:5]), replies({"error": {"message": "down"}}, 500), says(*GOOD[5:])]
    server = serve(*failing)
    with pytest.raises(UserError):
        book_of(server.settings("llm.retries=0"), tmp_path)
    book, exchanges = book_of(server.settings("llm.retries=0"), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert (len(server.requests), len(exchanges)) == (3, 2)
    assert GOOD[0] in server.requests[2]["messages"][1]["content"]  # not to be repeated
    assert book_of(server.settings(), tmp_path) == (book, exchanges)
    assert len(server.requests) == 3


def test_a_rerun_needs_no_key(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(says(*GOOD))
    book = book_of(server.settings(), tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert book_of(server.settings(), tmp_path) == book


COMPLAINTS = {
    "response_format": "response_format is not supported",
    "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "temperature": "temperature does not support 0.8 with this model",
    "seed": "Unrecognized request argument supplied: seed",
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_server_that_does_not_know_a_parameter_is_asked_without_it(name: str, serve: Serve, tmp_path: Path) -> None:
    content = f"Sure!\n```json\n{listing(GOOD)}\n```"
    server = serve(replies({"error": {"message": COMPLAINTS[name]}}, 400), replies(completion(content)))
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert set(server.requests[0]) - set(server.requests[1]) == {name}
    assert server.requests[1].get("max_completion_tokens") == (2000 if name == "max_tokens" else None)
    assert exchanges[0].request == server.requests[1]


def room_for_one(server: FakeServer) -> str:
    """A budget that one request cannot pass, and two may."""
    request = llm.make_request(MARBLE.seed_prompt, 26, [], 0, server.settings().prompts)
    return f"llm.budget_tokens={sum(most_tokens(request)) + 200}"


def test_the_budget_in_tokens_stops_before_it_is_passed(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*GOOD[:5]))
    with pytest.raises(UserError, match="could exceed the budget") as caught:
        book_of(server.settings(room_for_one(server)), tmp_path)
    assert len(server.requests) == 1
    assert caught.value.fields["spent"].startswith("300 tokens")
    with pytest.raises(UserError, match="could exceed the budget"):
        book_of(server.settings(room_for_one(server)), tmp_path)
    assert len(server.requests) == 1  # what another run paid counts too


def test_the_budget_in_money_stops_before_it_is_passed(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*GOOD))
    prices = ["llm.usd_per_million_input=1", "llm.usd_per_million_output=10"]
    with pytest.raises(UserError, match="could exceed the budget"):
        book_of(server.settings("llm.budget_usd=0.01", *prices), tmp_path)
    assert server.requests == []
    book_of(server.settings("llm.budget_usd=0.05", *prices), tmp_path)
    assert len(server.requests) == 1
    with pytest.raises(UserError, match="needs prices"):
        book_of(server.settings("llm.budget_usd=1"), tmp_path)


def test_an_answer_that_did_not_arrive_counts_against_the_budget(serve: Serve, tmp_path: Path) -> None:
    server = serve(cuts)
    with pytest.raises(UserError, match="could exceed the budget"):
        book_of(server.settings(room_for_one(server), "llm.retries=5"), tmp_path)
    assert len(server.requests) == 1


def test_without_a_key_the_openai_backend_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="there is no key") as caught:
        book_of(load_settings("demo", ["prompts.backend=openai"]), tmp_path)
    assert caught.value.hint is not None


@pytest.mark.parametrize("url", ["http://user:secret@host/v1", "https://host/v1?api_key=secret", "host/v1"])
def test_an_address_with_a_secret_is_not_taken_nor_repeated(url: str) -> None:
    with pytest.raises(UserError, match="not the plain address") as caught:
        load_settings("demo", [f"prompts.base_url={url}"])
    assert "secret" not in str(caught.value)


def test_the_stage_keeps_what_was_said_and_the_key_nowhere(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "marble-statue.txt").write_text("make him a marble statue\n")
    tells = completion(listing([f"marble with {KEY}", *GOOD]), note=KEY)
    server = serve(replies({"error": {"message": f"busy, {KEY}"}}, 503), replies(tells))
    settings = server.settings(f"prompts.styles_dir={tmp_path / 'styles'}")
    partition = Partition("prompts", "marble-statue")
    (tmp_path / "out").mkdir()
    work = Work(partition, {}, settings, prompts.sources(settings, partition), tmp_path / "out", tmp_path)
    with caplog.at_level(logging.DEBUG):
        summary = prompts.run(work)
    assert (summary.samples, summary.metrics["llm_tokens"]) == (13, 300.0)
    (exchange,) = json.loads((tmp_path / "out" / "llm.json").read_text())
    assert exchange["request"] == server.requests[1]
    assert json.loads(exchange["answer"])["usage"]["completion_tokens"] == 100
    assert len(list((tmp_path / "answers").iterdir())) == 1
    for path in tmp_path.rglob("*.*"):
        assert KEY not in path.read_text()
    assert KEY not in caplog.text


def test_the_model_and_the_template_are_in_the_fingerprint_where_they_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(*overrides: str) -> dict[str, Any]:
        return prompts.reads(load_settings("demo", list(overrides)), Partition("prompts", "zombie"))

    assert reads() == reads("prompts.model=other", "prompts.temperature=0.1", "prompts.max_tokens=5")
    own = reads("prompts.backend=openai")
    for change in ("model=other", "temperature=0.1", "max_tokens=5", "base_url=http://localhost/v1"):
        assert own != reads("prompts.backend=openai", f"prompts.{change}")
    assert own == reads("prompts.backend=openai", "llm.timeout_s=5", "llm.budget_tokens=1", "llm.retries=0")
    monkeypatch.setattr(llm, "TEMPLATE", "another")
    assert own != reads("prompts.backend=openai")
    assert "key" not in json.dumps(own)


@pytest.mark.parametrize(
    ("content", "texts"),
    [(listing(["a"]), ["a"]), ('["a", "b"]', ["a", "b"]), ('Here: {"paraphrases": ["a", 3]} :-)', ["a"]), ("no", None),
     ('{"other": 1}', None), ("", None), ('Here: ["a"]', ["a"]), ('```\n["a"]\n```', ["a"])],
)  # fmt: skip
def test_an_answer_is_read_leniently(content: str, texts: list[str] | None) -> None:
    assert llm.parse_answer(content) == texts
