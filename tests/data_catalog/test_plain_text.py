"""Text on a terminal, and text of a prompt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.config.plain_text import markup_in, not_plain, printable, printable_document
from data_catalog.samples.encoding import encode_json

ANY = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@given(ANY)
def test_whatever_is_printed_is_safe_for_a_terminal_and_any_text_is_kept(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not [letter for letter in shown if ord(letter) < 32 and letter not in "\n\t"]
    assert not {"\x7f", "\x9b", "\u202e"} & set(shown)
    if not not_plain(text.replace("\n", " ").replace("\t", " ")):
        assert shown == text


@given(ANY)
def test_json_of_any_text_reads_back_the_same(text: str) -> None:
    assert json.loads(encode_json({"name": text})) == {"name": text}


def test_a_document_is_printable_throughout() -> None:
    assert printable_document({"a\x1b": ["\x00", ("\udce9", 1, None)]}) == {"a\\x1b": ["\\x00", ["\\udce9", 1, None]]}


@pytest.mark.parametrize(
    "text",
    [
        "make her {a doll}",
        '100 % $gold [1] <3 it\'s "so"',
        "把他变成僵尸",
        "🧟🧟 👩\u200d🚀",
        "e\u0301té",
        "a_b ** c",
        "x < y > z",
    ],
)
def test_plain_text_of_any_script_is_plain(text: str) -> None:
    assert (not_plain(text), markup_in(text)) == ("", [])


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31mb", "a\x85b", "\ud800 x", "a \u202e b", "caf\ufffd", "a\x7f"])
def test_a_character_that_no_text_has_is_named(text: str) -> None:
    reason = not_plain(text)
    assert reason.startswith("a character that no text has: \\")
    assert reason.isprintable()


def test_a_word_has_at_most_a_hundred_letters() -> None:
    assert not_plain(f"a {'b' * 100}") == ""
    assert not_plain(f"a {'b' * 5000}") == "a word of 5000 letters; at most 100"


@pytest.mark.parametrize(
    ("text", "found"),
    [("make <b>her</b> gold", "<b>"), ("make **her** gold", "**her**"), ("`make` her gold", "`make`"), ("# Make", "# "),
     ("a &amp; b", "&amp;"), ("a [bold]b[/bold]", "[bold]"), ("see [here](http://x)", "[here](http://x)"),
     ("<br/>x", "<br/>"), ('<a href="x">y', '<a href="x">'), ("__so__ gold", "__so__"), ("[/b] arms", "[/b]")],
)  # fmt: skip
def test_markup_is_found(text: str, found: str) -> None:
    assert markup_in(text)[0] == found
