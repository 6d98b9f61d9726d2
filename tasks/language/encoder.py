"""Notes on a prompt: words that the text encoder does not read, or does not know."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

MARKS = 2  # tokens for begin and end
# A small vocabulary is a list of words. A large one, such as CLIP's, spells any word in parts that it knows.
SMALL = 10_000
SHOWN = 40  # characters of the first words that are not read
END = "</w>"


def prompt_notes(tokens: Sequence[str], length: int, vocabulary: int) -> list[str]:
    """Return warnings about a prompt.

    tokens: of the prompt alone.  length: tokens that the encoder reads.  vocabulary: tokens that it knows.
    """
    notes, room = [], length - MARKS
    if len(tokens) > room:
        rest = "".join(tokens[room:]).replace(END, " ").strip()[:SHOWN]
        shown = f"; not read: {rest} ..." if rest.isascii() else ""
        notes.append(f"the prompt is cut after {length} tokens, it has {len(tokens) + MARKS}{shown}")
    known = any(_is_word(token, before) for token, before in zip(tokens, ["", *tokens], strict=False))
    if vocabulary < SMALL and not known:
        notes.append("the text encoder knows none of these words")
    return notes


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


def _is_word(token: str, before: str) -> bool:
    """Whether a token is a whole word of two letters or more."""
    begins = not before or before.endswith(END)
    return begins and token.endswith(END) and len(token) > len(END) + 1 and token.removesuffix(END).isalnum()
