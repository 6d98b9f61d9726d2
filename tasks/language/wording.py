"""Wording of prompts: cleaning, normalising, comparing."""

from __future__ import annotations

import re

_QUOTES = ('""', "''", "\u201c\u201d", "\u2018\u2019")  # around the whole text


def clean(text: str) -> str:
    """Return the text on one line, without quotation marks around it, list numbers, or a final full stop."""
    line, before = " ".join(text.split()), ""
    while line != before:
        before = line
        line = re.sub(r"^(?:[-*]|\d+[.)])\s+", "", line).removesuffix(".").strip()
        if len(line) > 1 and line[0] + line[-1] in _QUOTES and not set(line[1:-1]) & {line[0], line[-1]}:
            line = line[1:-1].strip()
    return line


def normalise(text: str) -> str:
    """Return lower-case words with single spaces, equal for two spellings of one prompt."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words (Lin 2004)."""
    a, b = normalise(first).split(), normalise(second).split()
    if not a or not b:
        return 0.0
    row = [0] * (len(b) + 1)
    for word in a:
        previous = row
        row = [0]
        for j, other in enumerate(b):
            row.append(previous[j] + 1 if word == other else max(previous[j + 1], row[j]))
    return 2 * row[-1] / (len(a) + len(b))
