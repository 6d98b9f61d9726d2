"""The prompts of a style on their way into its book: each is accepted, or rejected with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data_catalog.config.plain_text import not_plain, printable
from data_catalog.config.styles import StyleFile
from tasks.language.checks import unfit
from tasks.language.wording import clean, normalise, rouge_l

MAX_ROUGE = 0.7  # ROUGE-L from which two prompts count as one
MAX_WORDS = 40  # a CLIP text encoder reads 77 tokens
NOT_NEEDED = "not needed"
SHOWN = 200  # characters of a rejected text that are kept
WRITTEN = ("seed", "given")  # by the style's author, and taken as it is

Embed = Callable[[str], np.ndarray]  # a unit vector (D,)


@dataclass(frozen=True)
class Prompt:
    """origin: seed (the style's first line), given (its other lines), builtin or openai."""

    text: str
    origin: str


@dataclass
class Collection:
    """Prompts of one style. `embed`, with `max_cosine`, also compares their meaning (CLIP)."""

    style: StyleFile
    wanted: int
    embed: Embed | None = None
    max_cosine: float = 1.0
    accepted: list[Prompt] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    similar: list[tuple[float, str, str]] = field(default_factory=list)  # how much, text, reason
    _vectors: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return len(self.accepted) >= self.wanted

    def offer(self, text: str, origin: str) -> None:
        """Accept a prompt, or reject it with its reason."""
        prompt = Prompt(clean(text), origin)
        reason = self._refuse(prompt)
        if reason:
            self.rejected.append({"text": printable(prompt.text[:SHOWN]), "reason": reason})
        elif prompt.origin in WRITTEN or not self._is_similar(prompt.text):
            self.accepted.append(prompt)

    def close(self) -> None:
        """List the too similar prompts after the other rejected ones, the most different first."""
        for _, text, reason in sorted(self.similar):
            self.rejected.append({"text": text, "reason": reason})
        self.similar = []

    def _refuse(self, prompt: Prompt) -> str:
        words = normalise(prompt.text).split()
        if not words:
            return "empty"
        if len(words) > MAX_WORDS:
            return f"too long: {len(words)} words"
        unreadable = not_plain(prompt.text)
        if unreadable:
            return f"not plain text: {unreadable}"
        met = [*(other.text for other in self.accepted), *(text for _, text, _ in self.similar)]
        if any(words == normalise(other).split() for other in met):
            return "duplicate"
        if self.full:
            return NOT_NEEDED
        return "" if prompt.origin in WRITTEN else unfit(prompt.text, self.style)

    def _is_similar(self, text: str) -> bool:
        """Whether an accepted prompt is nearly the same; notes which."""
        likeness, other = max(((rouge_l(text, other.text), other.text) for other in self.accepted), default=(0.0, ""))
        measure, most = "ROUGE-L", MAX_ROUGE
        if likeness < most and self.embed is not None:
            own, known = self._vector(text), [other.text for other in self.accepted]
            likeness, other = max(((float(own @ self._vector(each)), each) for each in known), default=(0.0, ""))
            measure, most = "CLIP", self.max_cosine
        if likeness < most:
            return False
        self.similar.append((likeness, text, f"too similar: {measure} {likeness:.2f} to '{other}'"))
        return True

    def _vector(self, text: str) -> np.ndarray:
        if text not in self._vectors:
            assert self.embed is not None
            self._vectors[text] = self.embed(text)
        return self._vectors[text]
