"""Notes on a prompt: words that the text encoder does not read, or does not know."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

MARKS = 2  # tokens for begin and end
# A small vocabulary is a list of words. A large one, such as CLIP's, spells any word in parts that it knows.
SMALL = 10_000
SHOWN = 40  # characters of the first words that are not read
END = "</w>"
# Looks that the networks with the small vocabulary were trained on: those of models.procedural.STYLES.
LOOKS = (
    "afro", "bald", "bronze statue", "clown", "elf ears",
    "marble statue", "neon", "pencil sketch", "red hair", "zombie",
)  # fmt: skip
KNOWN = f"the embedded networks know {', '.join(LOOKS)}, and make something else of other words, whatever the yield"


def prompt_notes(tokens: Sequence[str], length: int, vocabulary: int) -> list[str]:
    """Return warnings about a prompt; where a word is not known, the warning names the looks that are.

    tokens: of the prompt alone.  length: tokens that the encoder reads.  vocabulary: tokens that it knows.
    """
    notes, room = [], length - MARKS
    if len(tokens) > room:
        rest = "".join(tokens[room:]).replace(END, " ").strip()[:SHOWN]
        shown = f"; not read: {rest} ..." if rest.isascii() else ""
        notes.append(f"the prompt is cut after {length} tokens, it has {len(tokens) + MARKS}{shown}")
    if vocabulary < SMALL:
        known, unknown = _words(tokens)
        if not known:
            notes.append(f"the text encoder knows none of these words; {KNOWN}")
        elif unknown:
            notes.append(f"the text encoder does not know: {', '.join(dict.fromkeys(unknown))}; {KNOWN}")
    return notes


def shorten(notes: Sequence[str]) -> list[str]:
    """Return the notes on one of many prompts: what is known instead need not be said with each."""
    return [note.removesuffix(f"; {KNOWN}") for note in notes]


def read_notes(world: str) -> Callable[[str], list[str]]:
    """Return a function that gives the notes on a prompt; without the encoder's files there are none."""
    from tokenizers import Tokenizer

    from models.zoo import zoo

    path = zoo.find_words(world)
    if path is None:
        return lambda text: []
    tokenizer = Tokenizer.from_file(str(path))
    length = json.loads(path.with_name("tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    return lambda text: prompt_notes(
        tokenizer.encode(text, add_special_tokens=False).tokens, length, tokenizer.get_vocab_size()
    )


def _words(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of two letters or more that are a token each, and those that are spelt in parts."""
    known: list[str] = []
    unknown: list[str] = []
    parts: list[str] = []
    for token in tokens:
        parts.append(token.removesuffix(END))
        if token.endswith(END):
            word = "".join(parts)
            if len(word) > 1 and word.isalnum() and word.isascii():
                (known if len(parts) == 1 else unknown).append(word)
            parts = []
    return known, unknown
