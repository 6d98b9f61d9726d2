"""Prompts: the built-in paraphraser, a language model behind a real server, deduplication and the frozen split."""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_catalog.errors import UserError
from data_catalog.settings import load_settings
from data_catalog.stage import Partition, Work
from data_catalog.styles import StyleFile, list_styles, read_style, style_path
from tasks import llm, prompts
from tasks.paraphrase import captions, paraphrases, parse

KEY = "sk-test-of-stillroom-0123456789"
GOOD = [
    "carve his head from white rock", "what would she look like in marble?", "a marble bust of this person",
    "replace their skin with polished white stone", "sculpt the face out of marble", "make her a Greek sculpture",
    "transform the portrait: cold white marble everywhere", "show them as stone in a museum", "petrify the person",
    "he has become a monument", "as if Michelangelo had made her", "change everything to smooth marble",
    "could this head be a classical bust?", "render a statue instead", "give him a chiselled marble body",
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "kind", "phrase"),
    [
        ("turn her into a bronze statue", "become", "a bronze statue"),
        ("Turn the person into an old wizard.", "become", "an old wizard"),
        ("make him look like a zombie", "become", "a zombie"),
        ("bronze statue style portrait", "become", "a bronze statue"),
        ("clown", "become", "a clown"),
        ("make it a pencil sketch", "medium", "a pencil sketch"),
        ("make it look like a Van Gogh painting", "medium", "a Van Gogh painting"),
        ("give him red hair", "have", "red hair"),
        ("make her hair blue", "have", "blue hair"),
        ("add elf ears", "have", "elf ears"),
        ("add a hat to him", "have", "a hat"),
        ("remove her glasses", "lose", "glasses"),
        ("make it neon", "adjective", "neon"),
        ("paint her in the style of Van Gogh", "manner", "the style of Van Gogh"),
        ("open his mouth", "other", "open his mouth"),
    ],
)
def test_the_grammar_understands_an_instruction(instruction: str, kind: str, phrase: str) -> None:
    assert parse(instruction) == (kind, phrase)


ASKED = (
    "turn her into a bronze statue", "give him red hair", "make it a pencil sketch", "add elf ears", "make it neon",
    "remove her glasses", "paint her in the style of Van Gogh", "open his mouth", "turn him into an old wizard",
    "give her a clown nose", "make his eyes green", "zombie",
)  # fmt: skip


@pytest.mark.parametrize("instruction", ASKED)
def test_paraphrases_are_distinct_and_well_formed(instruction: str) -> None:
    texts = paraphrases(instruction, 26, seed=0)
    assert len(texts) == 26
    assert len({text.casefold() for text in texts} | {instruction.casefold()}) == 27
    phrase = parse(instruction).phrase.split()[-1]
    for text in texts:
        assert not re.search(r"[{}]|\s\s|^\s|\s$", text), text
        assert not re.search(r"\ba (?=[aeio])|\ban (?=[^aeiou])", text), text
        assert not re.search(r"\b(a|an|the) (a|an|the)\b", text), text
        assert not re.search(r"(?<!would )\b(he|she) (have|look|are)\b|\bthey (has|looks|is)\b", text), text
        assert phrase in text or {"statue", "sketch", "eyes"} & set(instruction.split()), text


@pytest.mark.parametrize("instruction", ASKED)
def test_paraphrases_are_the_same_each_time_and_their_start_does_not_depend_on_the_count(instruction: str) -> None:
    assert paraphrases(instruction, 30, seed=3) == paraphrases(instruction, 30, seed=3)
    assert paraphrases(instruction, 10, seed=3) == paraphrases(instruction, 30, seed=3)[:10]
    assert paraphrases(instruction, 30, seed=3) != paraphrases(instruction, 30, seed=4)


def test_captions_say_what_is_seen_before_and_after() -> None:
    before = "a photo of a person"
    assert captions("turn him into a zombie") == (before, "a photo of a zombie")
    assert captions("give her red hair") == (before, "a photo of a person with red hair")
    assert captions("make it a pencil sketch") == (before, "a pencil sketch of a person")


def builtin_book(style: StyleFile, *overrides: str) -> dict[str, Any]:
    book, exchanges = prompts.make_book(style, load_settings("demo", list(overrides)).prompts)
    assert exchanges == []
    return book


def test_every_shipped_style_has_8_training_and_5_test_prompts_that_differ() -> None:
    settings = load_settings("demo")
    styles = list_styles(settings)
    assert {
        "bronze-statue",
        "marble-statue",
        "zombie",
        "pencil-sketch",
        "neon",
        "red-hair",
        "clown",
        "elf-ears",
    } <= set(styles)
    for slug in styles:
        book = builtin_book(read_style(style_path(settings, slug)))
        chosen = [*book["train"], *book["test"]]
        assert [prompt["number"] for prompt in chosen] == list(range(13))
        assert (len(book["train"]), len(book["test"])) == (8, 5)
        for one, other in itertools.combinations(chosen, 2):
            assert prompts.rouge_l(one["text"], other["text"]) < 0.7
        assert book["seed_prompt"] in [prompt["text"] for prompt in chosen]


def test_a_book_is_the_same_each_time() -> None:
    style = StyleFile(slug="zombie", prompts=["turn him into a zombie"])
    assert builtin_book(style) == builtin_book(style)


def test_given_lines_are_taken_as_they_are() -> None:
    lines = ["turn him into a zombie", "turn her into a zombie", "make him a rotten corpse"]
    book = builtin_book(StyleFile(slug="zombie", prompts=lines))
    origins = {prompt["text"]: prompt["origin"] for prompt in [*book["train"], *book["test"]]}
    assert [origins[line] for line in lines] == ["seed", "given", "given"]


def test_a_style_file_can_fix_the_split() -> None:
    style = StyleFile(slug="zombie", prompts=["turn him into a zombie"], train=["rot him"], test=["undead, please"])
    book = builtin_book(style)
    assert book["train"][0] == {"number": 0, "text": "rot him", "origin": "given"}
    assert book["test"][0] == {"number": 8, "text": "undead, please", "origin": "given"}
    with pytest.raises(UserError, match="more test prompts"):
        builtin_book(style.model_copy(update={"test": ["one", "two two", "three"]}), "prompts.test=2")


def test_the_words_of_a_prompt_decide_its_split_not_its_place() -> None:
    lines = [
        f"{word} him into a zombie at once" for word in ["turn", "make", "change", "convert", "push", "pull", "drag"]
    ]
    lines += [f"a {word} zombie portrait of her" for word in ["green", "blue", "rotten", "old", "fresh", "dusty"]]
    one = builtin_book(StyleFile(slug="zombie", prompts=lines))
    other = builtin_book(StyleFile(slug="zombie", prompts=lines[::-1]))
    assert [prompt["text"] for prompt in one["test"]] == [prompt["text"] for prompt in other["test"]]


def test_too_few_distinct_prompts_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="distinct prompts of 400"):
        builtin_book(StyleFile(slug="odd", prompts=["do the thing"]), "prompts.train=395")


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [('"make him old."', "make him old"), ("1. make him old", "make him old"), ("- make\n him old", "make him old"),
     ("what if he were old?", "what if he were old?")],
)  # fmt: skip
def test_a_prompt_is_cleaned(given: str, cleaned: str) -> None:
    assert prompts.clean(given) == cleaned


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    assert prompts.rouge_l("turn him into a zombie", "turn her into a zombie") == pytest.approx(0.8)
    assert prompts.rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)
    assert prompts.rouge_l("one", "two") == 0.0


def completion(content: str | None, **message: Any) -> dict[str, Any]:
    """An answer as the API gives it."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}


def listing(texts: list[str]) -> str:
    return json.dumps({"paraphrases": texts})


class Server:
    """A loopback server of the OpenAI API that gives its answers one after the other, the last again and again."""

    def __init__(self, answers: list[tuple[int, dict[str, Any]]]) -> None:
        self.requests: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                assert self.headers["Authorization"] == f"Bearer {KEY}"
                status, answer = answers[min(len(server.requests), len(answers) - 1)]
                server.requests.append(body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


Serve = Callable[..., Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server with its answers; the key is in the environment."""
    started: list[Server] = []
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def start(*answers: tuple[int, dict[str, Any]]) -> Server:
        started.append(Server(list(answers)))
        return started[-1]

    yield start
    for server in started:
        server.stop()


MARBLE = StyleFile(slug="marble-statue", prompts=["make him a marble statue"])


def ask_server(server: Server) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    settings = load_settings("demo", ["prompts.backend=openai", f"prompts.base_url={server.url}", "prompts.model=tiny"])
    return prompts.make_book(MARBLE, settings.prompts)


def origins(book: dict[str, Any]) -> list[str]:
    return [prompt["origin"] for prompt in [*book["train"], *book["test"]]]


def test_a_language_model_writes_the_prompts(serve: Serve) -> None:
    server = serve((200, completion(listing(GOOD))))
    book, exchanges = ask_server(server)
    assert sorted(origins(book)) == ["openai"] * 12 + ["seed"]
    assert [entry["reason"] for entry in book["rejected"]] == [prompts.NOT_NEEDED] * 3
    (request,) = server.requests
    assert request["response_format"]["json_schema"]["strict"] is True
    assert "make him a marble statue" in request["messages"][1]["content"]
    assert exchanges[0]["request"] == request


def test_a_server_error_is_asked_again_by_the_client(serve: Serve) -> None:
    server = serve((500, {"error": {"message": "overloaded"}}), (200, completion(listing(GOOD))))
    book, exchanges = ask_server(server)
    assert origins(book).count("openai") == 12
    assert (len(server.requests), len(exchanges)) == (2, 1)


def test_a_server_without_structured_output_is_asked_in_plain_words(serve: Serve) -> None:
    refuse = (400, {"error": {"message": "response_format is not supported"}})
    server = serve(refuse, (200, completion(f"Sure!\n```json\n{listing(GOOD)}\n```")))
    book, _ = ask_server(server)
    assert origins(book).count("openai") == 12
    assert "response_format" not in server.requests[1]


def test_malformed_json_is_asked_again_and_kept_with_its_reason(serve: Serve) -> None:
    server = serve((200, completion('{"paraphrases": ["turn him')), (200, completion(listing(GOOD))))
    book, exchanges = ask_server(server)
    assert origins(book).count("openai") == 12
    assert book["rejected"][0]["reason"] == "the answer is not the JSON that was asked for"
    assert [exchange["problem"] != "" for exchange in exchanges] == [True, False]


def test_a_refusal_is_kept_and_the_paraphraser_helps_out(serve: Serve) -> None:
    server = serve((200, completion(None, refusal="I will not turn anyone to stone.")))
    book, exchanges = ask_server(server)
    assert sorted(origins(book)) == ["builtin"] * 12 + ["seed"]
    assert book["rejected"][0]["reason"] == "the model refused: I will not turn anyone to stone."
    assert (len(server.requests), exchanges[0]["refused"]) == (1, True)


def test_duplicates_only_are_refused_and_the_paraphraser_helps_out(serve: Serve) -> None:
    same = [
        "Make him a marble statue.",
        "make him a MARBLE statue",
        "make  him a marble statue",
        "make her a marble statue",
    ]
    server = serve((200, completion(listing(same))))
    book, _ = ask_server(server)
    assert len(server.requests) == prompts.REQUESTS
    assert origins(book).count("builtin") == 12
    reasons = [entry["reason"] for entry in book["rejected"]]
    assert reasons.count("duplicate") == 11  # three at the first request, four at each other
    assert reasons[-1] == "too similar: ROUGE-L 0.80 to 'make him a marble statue'"


def test_an_answer_that_is_not_chat_is_no_crash(serve: Serve) -> None:
    server = serve((200, {"id": "c", "object": "chat.completion", "created": 1, "model": "tiny", "choices": []}))
    book, _ = ask_server(server)
    assert book["rejected"][0]["reason"] == "the answer is empty"


def test_a_wrong_key_says_what_to_check(serve: Serve) -> None:
    with pytest.raises(UserError, match="did not answer") as caught:
        ask_server(serve((401, {"error": {"message": "Incorrect API key"}})))
    assert "OPENAI_API_KEY" in str(caught.value)
    assert KEY not in str(caught.value)


def test_without_a_key_the_openai_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="there is no key") as caught:
        prompts.make_book(MARBLE, load_settings("demo", ["prompts.backend=openai"]).prompts)
    assert caught.value.hint is not None


def test_the_stage_writes_the_book_and_the_exchange_without_the_key(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "marble-statue.txt").write_text("make him a marble statue\n")
    server = serve((200, completion(listing(GOOD))))
    overrides = [
        f"prompts.styles_dir={tmp_path / 'styles'}",
        "prompts.backend=openai",
        f"prompts.base_url={server.url}",
    ]
    settings, partition = load_settings("demo", overrides), Partition("prompts", "marble-statue")
    (tmp_path / "out").mkdir()
    work = Work(partition, {}, settings, prompts.sources(settings, partition), tmp_path / "out")
    summary = prompts.run(work)
    assert (summary.samples, summary.rejected) == (13, {"not needed": 3})
    assert summary.metrics == {"prompts_openai": 12.0, "prompts_seed": 1.0}
    assert json.loads((tmp_path / "out" / "prompts.json").read_text())["style"] == "marble-statue"
    for path in (tmp_path / "out").iterdir():
        assert KEY not in path.read_text()
    assert (tmp_path / "out" / "llm.json").exists()


def test_the_key_is_in_no_fingerprint_and_the_model_only_where_it_writes() -> None:
    def reads(*overrides: str) -> dict[str, Any]:
        return prompts.reads(load_settings("demo", list(overrides)), Partition("prompts", "zombie"))

    assert reads() == reads("prompts.model=other", "prompts.temperature=0.1")
    assert reads("prompts.backend=openai") != reads("prompts.backend=openai", "prompts.model=other")
    assert "key" not in json.dumps(reads("prompts.backend=openai"))


@pytest.mark.parametrize(
    ("content", "texts"),
    [(listing(["a"]), ["a"]), ('["a", "b"]', ["a", "b"]), ('Here: {"paraphrases": ["a", 3]} :-)', ["a"]), ("no", None),
     ('{"other": 1}', None), ("", None)],
)  # fmt: skip
def test_an_answer_is_read_leniently(content: str, texts: list[str] | None) -> None:
    assert llm.parse_answer(content) == texts
