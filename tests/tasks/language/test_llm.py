"""A language model writes the prompts, through a real server on loopback that fails in every way it can."""

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_json
from data_catalog.store.stage import Partition, Work
from tasks import prompts
from tasks.language import llm
from tasks.language.budget import most_tokens
from tasks.language.wording import rouge_l
from tests.worlds.fake_llm import (
    GOOD,
    KEY,
    MARBLE,
    FakeServer,
    Move,
    Serve,
    completion,
    cuts,
    listing,
    replies,
    says,
    sends,
    trickles,
)

SHAPE = "the answer is not a chat completion"
NOT_JSON = "the answer is not the JSON that was asked for"


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
    def slow_down(handler: BaseHTTPRequestHandler) -> None:
        replies({"error": {"message": "slow down"}}, 429, Retry_After=header())(handler)

    server = serve(slow_down, says(*GOOD))
    book_of(server.settings(), tmp_path)
    assert 0.95 <= server.times[1] - server.times[0] < 20


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
        assert 0.25 * 2**n <= wait < 0.5 * 2**n + 10.0
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
    assert time.monotonic() - started < 30  # a whole answer takes a minute
    assert len(server.requests) == 2


def test_nobody_at_the_address_is_said(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*GOOD))
    server.stop()
    with pytest.raises(UserError) as caught:
        book_of(server.settings("llm.retries=0"), tmp_path)
    assert "ConnectError" in caught.value.fields["cause"]


# Failures that come with status 200: part of the message that says so.
NO_ANSWER = {
    "an error": (replies({"error": {"message": "Provider returned error", "code": 502}}), "Provider returned error"),
    "an error's own words": (
        replies({"error": {"message": "Provider returned error", "metadata": {"raw": '{"detail": "GPU is lost"}'}}}),
        "Provider returned error: GPU is lost",
    ),
    "an error beside a choice": (
        replies({"choices": [{"message": {"content": ""}, "error": {"message": "upstream broke"}}]}),
        "upstream broke",
    ),
    "a captive portal": (
        sends(b"<!DOCTYPE html><html><head><title>Log in</title><style>a{}</style></head><body>to Wi-Fi</body></html>"),
        "a page came, not an answer: Log in to Wi-Fi",
    ),
    "no choices": (replies({"choices": []}), SHAPE),
    "null for the choices": (replies({"choices": None}), SHAPE),
    "null for a message": (replies({"choices": [{"message": None}]}), SHAPE),
    "a list of another shape": (replies([1, 2, 3]), SHAPE),
    "a text": (sends(b"hello", Content_Type="text/plain"), f"{SHAPE}: hello"),
    "an empty body": (sends(b""), SHAPE),
    "another encoding": (sends('{"é": 1}'.encode("latin-1")), "the answer is not UTF-8"),
    "deep nonsense": (sends(b"[" * 200_000), SHAPE),
    "two megabytes": (sends(json.dumps(completion("a" * 2_000_000)).encode()), "longer than a megabyte"),
}


@pytest.mark.parametrize(("move", "said"), NO_ANSWER.values(), ids=NO_ANSWER)
def test_a_failure_with_status_200_is_said_tried_again_and_never_kept(
    move: Move, said: str, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(move, move, says(*GOOD))
    with pytest.raises(UserError, match="did not answer") as caught:
        book_of(server.settings("llm.retries=1"), tmp_path)
    assert said in caught.value.fields["cause"]
    assert len(server.requests) == 2
    assert not (tmp_path / "answers").exists()
    caplog.clear()  # the lines of the first build, where an earlier test has turned them on
    with caplog.at_level(logging.WARNING):
        book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert (len(server.requests), len(exchanges), caplog.text) == (3, 1, "")


def test_a_failure_with_status_200_counts_by_the_status_that_it_names(serve: Serve, tmp_path: Path) -> None:
    server = serve(replies({"error": {"message": "no such key", "code": 401}}))
    with pytest.raises(UserError, match="did not answer") as caught:
        book_of(server.settings(), tmp_path)
    assert (caught.value.hint, len(server.requests)) == ("check OPENAI_API_KEY", 1)


# Chat completions without a paraphrase: the beginning of the message.
USELESS = {
    "malformed JSON": (replies(completion('{"paraphrases": ["turn him')), f'{NOT_JSON}: {{"paraphrases": ["turn him'),
    "cut off": (replies(completion('{"paraphrases": ["turn', "length")), "the answer was cut off, raise prompts.max_t"),
    "cut off before its first word": (replies(completion("", "length")), "the answer was cut off, raise prompts.max_t"),
    "JSON of another shape": (replies(completion('{"ideas": {"a": 1}}')), NOT_JSON),
    "an empty list": (says(), "the answer holds no paraphrase"),
    "an empty text": (replies(completion("")), "the answer is empty (finish_reason stop)"),
    "no text": (replies(completion(None)), "the answer is empty"),
    "200 KB of braces": (replies(completion("{" * 200_000)), NOT_JSON),
    "only thoughts": (replies(completion(f"<think>{listing(GOOD)}")), NOT_JSON),
    "an apology": (
        replies(completion("I am sorry:\n1. no face\n2. no stone\n3. not today")),
        f"{NOT_JSON}: I am sorry",
    ),
    "a refusal": (
        replies(completion(None, refusal="I will not turn anyone to stone.")),
        "the model refused: I will not turn anyone to stone.",
    ),
    "a filter": (replies(completion("", "content_filter")), "the model refused: finish_reason content_filter"),
}


@pytest.mark.parametrize(("move", "problem"), USELESS.values(), ids=USELESS)
def test_a_useless_answer_is_shown_asked_again_and_not_used_again(
    move: Move, problem: str, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(move, move, move, says(*GOOD))
    with caplog.at_level(logging.WARNING):
        book, exchanges = book_of(server.settings(), tmp_path)
    assert len(server.requests) == prompts.REQUESTS
    assert origins(book) == {"builtin": 12, "seed": 1}
    assert book["rejected"][0]["reason"].startswith(problem)
    assert f"marble-statue: {problem}" in caplog.text
    assert (
        "12 prompts are missing; the built-in paraphraser adds them; to ask again: --force prompts/mar" in caplog.text
    )
    for exchange in exchanges:
        assert exchange.kept in caplog.text
        assert json.loads((tmp_path / exchange.kept).read_text())["answer"] == exchange.answer
    assert not (tmp_path / "answers").exists()
    assert origins(book_of(server.settings(), tmp_path)[0]) == {"openai": 12, "seed": 1}
    assert len(server.requests) == prompts.REQUESTS + 1


def test_what_an_older_version_kept_of_a_failure_is_not_used(serve: Serve, tmp_path: Path) -> None:
    server = serve(says(*GOOD))
    book_of(server.settings(), tmp_path)
    (kept,) = (tmp_path / "answers").iterdir()
    for answer in (json.dumps({"error": {"message": "down"}}), "<html>", json.dumps(completion("no"))):
        kept.write_text(json.dumps({"request": {}, "answer": answer, "whole": True}))
        assert origins(book_of(server.settings(), tmp_path)[0]) == {"openai": 12, "seed": 1}
    kept.write_text("[]")
    book_of(server.settings(), tmp_path)
    assert len(server.requests) == 5


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


def test_duplicates_only_are_rejected_and_the_paraphraser_helps_out(serve: Serve, tmp_path: Path) -> None:
    same = ["Make him a marble statue.", "make him a MARBLE statue", "make  him a marble statue"]
    server = serve(says(*same, "make her a marble statue"))
    book, _ = book_of(server.settings(), tmp_path)
    assert len(server.requests) == prompts.REQUESTS
    assert origins(book)["builtin"] == 12
    reasons = [entry["reason"] for entry in book["rejected"]]
    assert reasons.count("duplicate") == 11  # three at the first request, four at each other
    assert reasons[-1] == "too similar: ROUGE-L 0.80 to 'make him a marble statue'"


def test_what_is_no_plain_text_is_rejected_by_its_reason(serve: Serve, tmp_path: Path) -> None:
    bad = [
        "marble " + "a" * 5000,
        "mar\0ble it",
        "make <b>her</b> stone",
        "turn **him** grey",
        "\ud800 marble",
        "a\x1b[1mb",
    ]
    book, exchanges = book_of(serve(says(*bad, *GOOD)).settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert [entry["reason"].partition(":")[0] for entry in book["rejected"][:6]] == [
        *(["not plain text"] * 2),
        *(["markup"] * 2),
        *(["not plain text"] * 2),
    ]
    for document in (book, [dataclasses.asdict(exchange) for exchange in exchanges]):
        assert json.loads(encode_json(document)) == document


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


# Bodies of a complaint about one parameter, as servers send them.
SHAPES: dict[str, Callable[[str], Any]] = {
    "OpenAI's": lambda said: {"error": {"message": said, "type": "invalid_request_error"}},
    "a list, as Gemini's": lambda said: [{"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}],
    "detail": lambda said: {"detail": said},
    "details of fields": lambda said: {"detail": [{"loc": ["body", "x"], "msg": said, "type": "value_error"}]},
    "a message": lambda said: {"object": "error", "message": said, "code": 400},
    "a text": lambda said: {"error": said},
    "JSON in a text": lambda said: {"error": {"message": f"upstream said: {json.dumps({'error': {'message': said}})}"}},
    "JSON in JSON": lambda said: json.dumps({"message": said}),
}

COMPLAINTS = {
    "response_format": "response_format is not supported",
    "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "temperature": "temperature does not support 0.8 with this model",
    "seed": "Unrecognized request argument supplied: seed",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_server_that_does_not_know_a_parameter_is_asked_without_it(
    name: str, shape: str, serve: Serve, tmp_path: Path
) -> None:
    content = f"Sure!\n```json\n{listing(GOOD)}\n```"
    server = serve(replies(SHAPES[shape](COMPLAINTS[name]), 400), replies(completion(content)))
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert set(server.requests[0]) - set(server.requests[1]) == {name}
    assert server.requests[1].get("max_completion_tokens") == (2000 if name == "max_tokens" else None)
    assert exchanges[0].request == server.requests[1]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"message": "Unsupported value", "param": "temperature"}, "temperature"),
        ([{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}], "seed"),
        ({"message": "Unknown name 'responseSchema': Cannot find field."}, "response_format"),
    ],
)
def test_a_complaint_may_name_its_parameter_beside_its_words(
    error: Any, name: str, serve: Serve, tmp_path: Path
) -> None:
    server = serve(replies({"error": error}, 400), says(*GOOD))
    book_of(server.settings(), tmp_path)
    assert set(server.requests[0]) - set(server.requests[1]) == {name}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_servers_sentence_is_found_in_every_shape(shape: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(replies(SHAPES[shape]("the hamster is tired"), 500))
    with pytest.raises(UserError) as caught:
        book_of(server.settings("llm.retries=0"), tmp_path)
    cause = caught.value.fields["cause"]
    assert cause.startswith("500 ")
    assert "the hamster is tired" in cause
    assert not set(cause) & set("{}[]")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [(b"<html><body><h1>Bad Gateway</h1><hr>nginx</body></html>", "502 a page came, not an answer: Bad Gateway"),
     (b"upstream connect error\n  or disconnect", "502 upstream connect error or disconnect"), (b"", "502 an empty"),
     (b'{"error": {"code": 3}}', '502 {"error": {"code": 3}}'),
     (b'{"title": "Teapot", "status": 502}', "502 Teapot"),
     (b'{"error": "a\\u001b[31mb\\nc"}', "502 a\\x1b[31mb c")],
)  # fmt: skip
def test_a_body_that_is_no_json_gives_its_words(body: bytes, sentence: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(sends(body, 502))
    with pytest.raises(UserError) as caught:
        book_of(server.settings("llm.retries=0"), tmp_path)
    assert caught.value.fields["cause"].startswith(sentence)


def test_a_server_that_contradicts_itself_ends_soon(serve: Serve, tmp_path: Path) -> None:
    server = serve(replies({"error": {"message": TOO_MANY["vLLM"][0]}}, 400))
    with pytest.raises(UserError, match="did not answer"):
        book_of(server.settings(), tmp_path)
    assert [request["max_tokens"] for request in server.requests] == [2000, 724, 362, 181]


TOO_MANY = {
    "vLLM": (
        "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 1024 "
        "tokens and your request has 300 input tokens (2000 > 1024 - 300).",
        724,
    ),
    "a context of long ago": (
        "This model's maximum context length is 2048 tokens. However, you requested 2300 tokens (300 in the messages, "
        "2000 in the completion). Please reduce the length of the messages or completion.",
        1748,
    ),
    "OpenAI": (
        "max_tokens is too large: 2000. This model supports at most 1,600 completion tokens, whereas you "
        "provided 2000.",
        1600,
    ),
    "Anthropic": ("max_tokens: 2000 > 1024, which is the maximum allowed number of output tokens", 1024),
    "Gemini": (
        "Unable to submit request because it has a maxOutputTokens value of 2000 but the supported range is from 1 "
        "(inclusive) to 1025 (exclusive).",
        1024,
    ),
    "DeepSeek": ("Invalid max_tokens value, the valid range of max_tokens is [1, 1024]", 1024),
    "TGI": (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1500. Given: 300 `inputs` tokens and "
        "2000 `max_new_tokens`",
        1200,
    ),
    "a context without the rest": ("the context length of 4096 tokens is exceeded", 1000),
}


@pytest.mark.parametrize(("said", "limit"), TOO_MANY.values(), ids=TOO_MANY)
def test_the_limit_of_tokens_is_lowered_to_what_the_server_says(
    said: str, limit: int, serve: Serve, tmp_path: Path
) -> None:
    server = serve(replies({"error": {"message": said}}, 400), says(*GOOD[:5]), says(*GOOD[5:]))
    book, exchanges = book_of(server.settings(), tmp_path)
    assert origins(book) == {"openai": 12, "seed": 1}
    assert [request["max_tokens"] for request in server.requests] == [2000, limit, limit]
    assert exchanges[0].request == server.requests[1]


@pytest.mark.parametrize(
    "said", ["max_tokens is too large", "max_tokens is unsupported", "context window: 50 tokens", "max_tokens: 3"]
)
def test_a_limit_that_cannot_be_lowered_is_never_dropped(said: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(replies({"error": {"message": said}}, 400))
    with pytest.raises(UserError, match="did not answer") as caught:
        book_of(server.settings(), tmp_path)
    assert said in caught.value.fields["cause"]
    assert caught.value.hint is not None
    assert "lower prompts.max_tokens" in caught.value.hint
    for request in server.requests:
        assert request.get("max_tokens") or request.get("max_completion_tokens")


def test_an_answer_counts_whether_or_not_the_server_says_its_tokens(serve: Serve, tmp_path: Path) -> None:
    few = completion(listing(GOOD[:5]))
    usages: list[Any] = [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": -5}, [], "x"]
    for number, usage in enumerate(usages):
        server = serve(replies(few | {"usage": usage}))
        with pytest.raises(UserError, match="could exceed the budget") as caught:
            book_of(server.settings(room_for_one(server)), tmp_path / str(number))
        assert caught.value.fields["spent"].startswith(f"{sum(most_tokens(server.requests[0]))} tokens")
        assert len(server.requests) == 1


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
