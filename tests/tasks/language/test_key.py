"""The key is checked before it is sent, and hidden in every spelling."""

import base64
import html
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_catalog.config.errors import UserError
from tasks.language.key import read_key, without_key
from tasks.prompts import make_book
from tests.worlds.fake_llm import GOOD, MARBLE, Serve, says

BAD = {
    "sk-abc\nX-Evil: yes": "a control character",
    "sk-abc\x7f12345": "a control character",
    '"sk-abc123456"': "a quotation mark",
    "\u201csk-abc123456\u201d": "a quotation mark",
    "'sk-abc123456'": "a quotation mark",
    "sk-äbc123456": "not ASCII",
    "sk-abc123\udce9456": "not ASCII",
}


@pytest.mark.parametrize("key", BAD)
def test_a_key_that_no_header_holds_is_refused_without_being_shown(
    key: str,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(says(*GOOD))
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY cannot be sent") as caught:
        make_book(MARBLE, server.settings(), tmp_path / "answers")
    assert BAD[key] in caught.value.message
    assert "abc" not in str(caught.value)
    assert "äbc" not in str(caught.value)
    assert server.requests == []


KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'`"), min_size=8, max_size=40)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(KEYS, st.text(max_size=8))
def test_the_key_is_hidden_in_every_spelling(monkeypatch: pytest.MonkeyPatch, key: str, before: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert read_key() == key
    spelt = [
        key,
        repr(key),
        json.dumps(key),
        json.dumps(json.dumps(key)),
        quote(key),
        quote(key, safe=""),
        html.escape(key),
    ]
    spelt += [quote(key, safe="").lower(), repr(f"Bearer {key}".encode()), key.encode().hex()]
    for text in spelt:
        shown = without_key(f"{before}{text}{before}")
        assert "[key]" in shown
        assert key not in shown.replace("[key]", "")
    for prefix in ("", "Bearer ", "user:", before):
        encoded = base64.b64encode(f"{prefix}{key}".encode()).decode()
        assert "[key]" in without_key(encoded)


@pytest.mark.parametrize("key", ["a", "none", "ollama", "1"])
def test_a_short_key_of_a_local_server_leaves_answers_alone(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert without_key("make her a statue, none of 1", of_answer=True) == "make her a statue, none of 1"
    assert without_key(f"Bearer {key} is wrong") == "Bearer [key] is wrong"
    assert without_key("because") == "because"
