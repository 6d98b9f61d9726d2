"""Stage prompts: from a style's instruction to distinct training and test prompts, frozen.

Given prompts come first, then paraphrases in the order of their making; one that says nearly the same as another
is put aside, and taken after all only when there are not enough. Which prompt trains and which tests is decided by the
hash of its words.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_catalog.encoding import encode_json
from data_catalog.errors import UserError
from data_catalog.seeds import derive
from data_catalog.settings import PromptsSettings, Settings
from data_catalog.stage import Partition, Stage, Summary, Work
from data_catalog.styles import StyleFile, read_style, style_path
from tasks.paraphrase import captions, paraphrases

log = logging.getLogger(__name__)

MAX_WORDS = 40  # a CLIP text encoder reads 77 tokens
REQUESTS = 3  # to the language model, until there are enough
CANDIDATES = 4  # of the built-in paraphraser, per prompt wanted
NOT_NEEDED = "not needed"


@dataclass(frozen=True)
class Prompt:
    """origin: seed (the style's first line), given (its other lines), builtin or openai."""

    text: str
    origin: str


@dataclass
class Collection:
    """Prompts on their way into a style's book."""

    wanted: int
    max_rouge: float
    accepted: list[Prompt] = field(default_factory=list)
    aside: list[tuple[float, Prompt, str]] = field(default_factory=list)  # similarity, prompt, to which
    rejected: list[dict[str, str]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.accepted) >= self.wanted

    def offer(self, text: str, origin: str) -> None:
        """Accept a prompt, put it aside, or reject it with its reason."""
        prompt = Prompt(clean(text), origin)
        reason = self._refuse(prompt)
        if reason:
            self.rejected.append({"text": prompt.text, "reason": reason})
            return
        similar = max(((rouge_l(prompt.text, other.text), other.text) for other in self.accepted), default=(0.0, ""))
        # What a person wrote is taken as it is.
        if origin not in ("seed", "given") and similar[0] >= self.max_rouge:
            self.aside.append((similar[0], prompt, similar[1]))
        else:
            self.accepted.append(prompt)

    def close(self) -> None:
        """Fill up from what was put aside, the most different first; the rest is rejected."""
        self.aside.sort(key=lambda entry: (entry[0], entry[1].text))
        for similarity, prompt, other in self.aside:
            if not self.full:
                self.accepted.append(prompt)
            else:
                reason = f"too similar: ROUGE-L {similarity:.2f} to '{other}'"
                self.rejected.append({"text": prompt.text, "reason": reason})
        self.aside = []

    def _refuse(self, prompt: Prompt) -> str:
        words = normalise(prompt.text).split()
        if not words:
            return "empty"
        if len(words) > MAX_WORDS:
            return f"too long: {len(words)} words"
        met = [*self.accepted, *(other for _, other, _ in self.aside)]
        if any(words == normalise(other.text).split() for other in met):
            return "duplicate"
        return NOT_NEEDED if self.full else ""


def run(work: Work) -> Summary:
    """Write prompts.json of one style, and llm.json of what the language model was asked and said."""
    (path,) = work.sources.values()
    book, exchanges = make_book(read_style(path), work.settings.prompts)
    (work.folder / "prompts.json").write_bytes(encode_json(book))
    if exchanges:
        (work.folder / "llm.json").write_bytes(encode_json(exchanges))
    chosen = [*book["train"], *book["test"]]
    origins = Counter(prompt["origin"] for prompt in chosen)
    reasons = Counter(entry["reason"].partition(":")[0] for entry in book["rejected"])
    metrics = {f"prompts_{origin}": float(count) for origin, count in sorted(origins.items())}
    return Summary(samples=len(chosen), rejected=dict(reasons), metrics=metrics)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    own = settings.prompts.model_dump(include={"backend", "train", "test", "max_rouge", "seed"})
    if settings.prompts.backend == "openai":
        own |= settings.prompts.model_dump(include={"model", "base_url", "temperature"})
    return own


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    path = style_path(settings, partition.style or "")
    return {path.name: path}


STAGE = Stage(name="prompts", version=1, split_by=("style",), reads=reads, sources=sources, run=run)


def make_book(style: StyleFile, settings: PromptsSettings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """prompts.json of a style, and the exchanges with the language model, if any."""
    wanted = settings.train + settings.test
    collection = Collection(wanted, settings.max_rouge)
    fixed = {normalise(text): "train" for text in style.train} | {normalise(text): "test" for text in style.test}
    collection.offer(style.seed_prompt, "seed")
    for text in (*style.train, *style.test, *style.prompts[1:]):
        if normalise(text) != normalise(style.seed_prompt):
            collection.offer(text, "given")
    exchanges = _ask_model(collection, style, settings) if settings.backend == "openai" else []
    for text in paraphrases(style.seed_prompt, CANDIDATES * wanted, settings.seed):
        # With a language model this only fills what it left open; "not needed" of these would be noise.
        if settings.backend == "builtin" or not collection.full:
            collection.offer(text, "builtin")
    collection.close()
    if not collection.full:
        raise UserError(
            f"the style '{style.slug}' has only {len(collection.accepted)} distinct prompts of {wanted}",
            instruction=style.seed_prompt,
            hint="write more lines into its file; each one is a prompt",
        )
    train, test = split_prompts(collection, style.slug, fixed, settings)
    before, after = captions(style.seed_prompt)
    return {
        "style": style.slug,
        "seed_prompt": style.seed_prompt,
        "train": _numbered(train, 0),
        "test": _numbered(test, settings.train),
        "rejected": collection.rejected,
        "source_caption": style.source_caption or before,
        "target_caption": style.target_caption or after,
    }, exchanges


def split_prompts(
    collection: Collection, slug: str, fixed: dict[str, str], settings: PromptsSettings
) -> tuple[list[Prompt], list[Prompt]]:
    """Train and test prompts: those that the style file fixes, then the others by the hash of their words."""
    by_split: dict[str, list[Prompt]] = {"train": [], "test": []}
    sizes = {"train": settings.train, "test": settings.test}

    def lot(prompt: Prompt) -> tuple[bool, int]:
        words = normalise(prompt.text)
        return words not in fixed, derive("prompt split", slug, words)

    for prompt in sorted(collection.accepted, key=lot):
        wish = fixed.get(normalise(prompt.text), "train")
        split = next((s for s in (wish, "train", "test") if len(by_split[s]) < sizes[s]), None)
        if split is None or (normalise(prompt.text) in fixed and split != wish):
            raise UserError(
                f"the style '{slug}' fixes more {wish} prompts than there are places",
                expected=f"at most {sizes[wish]} (prompts.{wish})",
            )
        by_split[split].append(prompt)
    return by_split["train"], by_split["test"]


def clean(text: str) -> str:
    """One line without quotation marks around it, list numbers, or a full stop at its end."""
    line = re.sub(r"^\s*(?:[-*]|\d+[.)])\s+", "", " ".join(text.split()))
    return line.strip(" \"'\u201c\u201d").removesuffix(".").strip(" \"'\u201c\u201d")


def normalise(text: str) -> str:
    """Lower-case words and single spaces: what two spellings of one prompt share."""
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


def _ask_model(collection: Collection, style: StyleFile, settings: PromptsSettings) -> list[dict[str, Any]]:
    from tasks import llm

    exchanges = []
    with llm.connect(settings) as client:
        for _ in range(REQUESTS):
            if collection.full:
                break
            met = [*collection.accepted, *(prompt for _, prompt, _ in collection.aside)]
            avoid = [prompt.text for prompt in met if prompt.origin != "seed"]
            exchange = llm.ask(client, style.seed_prompt, 2 * collection.wanted, avoid, settings)
            exchanges.append(asdict(exchange))
            if exchange.problem:
                log.warning("%s: %s", style.slug, exchange.problem)
                collection.rejected.append({"text": "", "reason": exchange.problem})
            for text in exchange.texts:
                collection.offer(text, "openai")
            if exchange.refused:
                break
    if not collection.full:
        missing = collection.wanted - len(collection.accepted)
        log.warning("%s: %d prompts are missing; the built-in paraphraser helps out", style.slug, missing)
    return exchanges


def _numbered(prompts: list[Prompt], first: int) -> list[dict[str, Any]]:
    return [{"number": first + i, **asdict(prompt)} for i, prompt in enumerate(prompts)]
