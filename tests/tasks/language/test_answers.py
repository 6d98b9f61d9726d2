"""Answers of language models are read however they are wrapped; what is no list of paraphrases is not taken for one."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.language.answers import find_texts, numbered_lines, read_answer, start_of
from tests.worlds.fake_llm import completion, listing

TEXTS = ["make him a statue", "turn her to stone", "carve them in marble"]
JSON = listing(TEXTS)
ARGUMENTS = {"name": "answer", "arguments": JSON}

CONTENTS: dict[str, str] = {
    "as asked": JSON,
    "thoughts": f"<think>maybe {listing(['a draft of mine'])}?</think>\n{JSON}",
    "thoughts without a begin": f"maybe {listing(['a draft of mine'])}?\n</think>\n{JSON}",
    "a fence": f"Sure!\n```json\n{JSON}\n```\nDid it help?",
    "a fence that does not end": f"```json\n{JSON}",
    "other words with brackets": f"Here {{as you like}} [1]: {JSON} (see [2] and {{x}})",
    "a comma too many": '{"paraphrases": ["make him a statue", "turn her to stone", "carve them in marble",],}',
    "single quotes": str({"paraphrases": TEXTS}),
    "curly quotes": JSON.replace('"', "\u201d"),
    "a raw line break": JSON.replace(", ", ",\n"),
    "a bare list": json.dumps(TEXTS),
    "another name": json.dumps({"prompts": TEXTS}),
    "another name and words": json.dumps({"note": "three of them", "prompts": TEXTS, "errors": ["none at all"]}),
    "one level deeper": json.dumps({"result": {"paraphrases": TEXTS}}),
    "mappings": json.dumps([{"id": n, "text": text} for n, text in enumerate(TEXTS)]),
    "numbered keys": json.dumps({f"paraphrase_{n}": text for n, text in enumerate(TEXTS)}),
    "JSON in JSON": json.dumps(JSON),
    "lines in JSON": json.dumps({"paraphrases": "\n".join(TEXTS)}),
    "the schema, filled in": json.dumps({"properties": {"paraphrases": TEXTS}, "required": ["paraphrases"]}),
    "a draft and the answer": f"Draft: {listing(['a draft of mine'])}\nFinal: {JSON}",
    "numbered lines": "Here they are:\n\n1. make him a statue\n2) turn her to stone\n3: carve them in marble\n",
    "a byte order mark": f"\ufeff{JSON}",
}  # fmt: skip
MESSAGES: dict[str, dict[str, Any]] = {
    "parts": {"content": [{"type": "thinking", "text": "[]"}, {"type": "text", "text": JSON[:9]}, {"text": JSON[9:]}]},
    "a tool call": {"content": None, "tool_calls": [{"type": "function", "function": ARGUMENTS}]},
    "a function call": {"content": "", "function_call": ARGUMENTS},
    "arguments that are parsed": {"content": "", "tool_calls": [{"function": {"arguments": {"paraphrases": TEXTS}}}]},
    "parsed": {"content": "as you see", "parsed": {"paraphrases": TEXTS}},
}  # fmt: skip


def answer(**message: Any) -> str:
    content = message.pop("content")
    return json.dumps(completion(content, **message))


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_right_answer_is_read_however_it_is_wrapped(content: str) -> None:
    assert read_answer(answer(content=content)) == (TEXTS, "")


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_the_right_answer_is_read_wherever_it_stands(message: dict[str, Any]) -> None:
    assert read_answer(answer(**message)) == (TEXTS, "")


@pytest.mark.parametrize("choice", [{"text": JSON}, {"delta": {"content": JSON}}])
def test_the_right_answer_is_read_from_servers_of_older_forms(choice: dict[str, Any]) -> None:
    assert read_answer(json.dumps({"choices": [choice]})) == (TEXTS, "")


NONE = {
    "words": "no",
    "nothing": "",
    "another shape": '{"other": 1}',
    "numbers": "[1, 2, 3]",
    "an error": '{"error": ["the model is too busy"]}',
    "an error with a comma too many": '{"error": ["the model is too busy"],}',
    "an error in words": '{"error": "the model is too busy", "code": 3}',
    "two lists": json.dumps({"first": TEXTS, "second": TEXTS}),
    "the schema": '{"properties": {"paraphrases": {"type": "array"}}, "required": ["paraphrases"]}',
    "half of it": JSON[:40],
    "a lonely number": "1. make him a statue",
    "numbers with a gap": "1. make him a statue\n3. turn her to stone\n4. carve them in marble",
    "reasons": "I cannot do that:\n1. it is rude\n2. it is unsafe\n3. it is late",
    "steps within a text": "One\nTwo\nThree\n1. a b\n2. c d\n3. e f",
}


@pytest.mark.parametrize("content", NONE.values(), ids=NONE)
def test_what_is_no_list_of_paraphrases_gives_none_and_is_shown(content: str) -> None:
    texts, problem = read_answer(answer(content=content))
    assert texts == []
    assert start_of(content) in problem
    assert problem.startswith("the answer is")


WRAPPINGS: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: f"```\n{text}\n```",
    lambda text: f"<think>hm {{</think>{text}",
    lambda text: f"Sure: {text} Bye {{:",
    lambda text: text.replace("]}", ",]}") if text.count("]}") == 1 else text,
    lambda text: json.dumps(text),
]
SENTENCES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(SENTENCES, st.sampled_from(WRAPPINGS))
def test_every_text_comes_back_as_it_was(texts: list[str], wrap: Callable[[str], str]) -> None:
    assert find_texts(wrap(listing(texts))) == texts


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(st.sampled_from('{}[]",:<think>/ \n1.')))
def test_no_answer_breaks_the_reader_and_nothing_is_invented(content: str) -> None:
    for text in (find_texts(content) or []) + numbered_lines(content):
        assert all(word in content or "\\" in content for word in text.split())


@pytest.mark.parametrize("bad", ["<think>" * 50_000, "1. a\n" * 50_000, '"' * 100_000, ", " * 100_000, "[" * 100_000])
@pytest.mark.timeout(20)
def test_a_long_answer_is_read_in_reasonable_time(bad: str) -> None:
    assert read_answer(answer(content=bad))[0] == []
