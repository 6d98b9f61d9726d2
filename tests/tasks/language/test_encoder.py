"""Words of a prompt that the text encoder does not read or does not know."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from models import procedural
from tasks.language.encoder import KNOWN, LOOKS, SMALL, prompt_notes, read_notes, shorten

UNKNOWN = f"the text encoder knows none of these words; {KNOWN}"


@pytest.mark.parametrize("text", ["make her a zombie", "ZOMBIE!", "turn her into a bronze statue", "{zombie}"])
def test_a_prompt_with_a_word_that_is_known_has_no_notes(text: str) -> None:
    assert read_notes("embedded")(text) == []


@pytest.mark.parametrize("text", ["🧟🧟", "把他变成僵尸", "xylophone qwerty", "ПРИВЕТ мир", "!?", "a 🧟"])
def test_a_prompt_without_a_known_word_says_so(text: str) -> None:
    assert read_notes("embedded")(text) == [UNKNOWN]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("turn him into a porcelain doll", "porcelain, doll"),
        ("make her a robot", "robot"),
        ("a doll, a doll and a zombie", "doll"),
    ],
)
def test_words_that_the_encoder_spells_in_parts_are_named(text: str, words: str) -> None:
    (note,) = read_notes("embedded")(text)
    assert note == f"the text encoder does not know: {words}; {KNOWN}"
    assert shorten([note]) == [f"the text encoder does not know: {words}"]


def test_a_long_prompt_says_where_it_is_cut() -> None:
    text = "make her a zombie " * 5 + "make it bronze and red"
    (note,) = read_notes("embedded")(text)
    assert note == "the prompt is cut after 24 tokens, it has 27; not read: bronze and red ..."
    assert read_notes("embedded")(text.removesuffix(" bronze and red")) == []
    (cut, unknown) = read_notes("embedded")("僵" * 50)
    assert cut == "the prompt is cut after 24 tokens, it has 152"
    assert unknown == UNKNOWN


def test_a_large_vocabulary_knows_every_word_and_reads_77_tokens(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    words = Tokenizer(models.BPE(vocab=vocabulary, merges=[], end_of_word_suffix="</w>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens = words.encode("把他变成僵尸" * 5).tokens
    assert len(tokens) == 90
    assert prompt_notes(tokens, 77, SMALL) == ["the prompt is cut after 77 tokens, it has 92"]
    assert prompt_notes(tokens[:75], 77, SMALL) == []
    assert len(prompt_notes(tokens[:75], 77, SMALL - 1)) == 1


def test_without_the_encoders_files_there_are_no_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.yaml").write_text(json.dumps({"embedded": {"clip": {"path": str(tmp_path / "gone")}}}))
    monkeypatch.setenv("STILLROOM_MODELS", str(tmp_path / "models.yaml"))
    assert read_notes("embedded")("把他变成僵尸") == []
    (tmp_path / "models.yaml").write_text(json.dumps({"embedded": {"clip": {"hub": "no/such", "revision": "0" * 40}}}))
    assert read_notes("embedded")("把他变成僵尸") == []


def test_the_looks_that_are_named_as_known_are_those_that_the_networks_learned() -> None:
    assert {look.replace(" ", "-") for look in LOOKS} == {*procedural.STYLES}
