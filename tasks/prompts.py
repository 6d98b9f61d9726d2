"""Stage prompts: from a style's instruction to distinct training and test prompts, frozen.

The author's own prompts come first, then paraphrases in the order of their making. A prompt that nearly repeats
another, or that does not fit a face, is rejected with its reason. A hash of its words decides whether a prompt trains
or tests.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.config.settings import PromptsSettings, Settings
from data_catalog.config.styles import StyleFile, read_style, style_path
from data_catalog.samples.encoding import encode_json
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import Partition, Stage, Summary, Work
from tasks.language import llm
from tasks.language.checks import changes_identity, not_face_safe
from tasks.language.collection import Collection, Embed, Prompt
from tasks.language.paraphrase import captions, paraphrases
from tasks.language.wording import normalise

log = logging.getLogger(__name__)

REQUESTS = 3  # to the language model, until there are enough
CANDIDATES = 4  # of the built-in paraphraser, per prompt wanted
ANSWERS = "answers"  # folder below the data root: answers of language models, by request


def run(work: Work) -> Summary:
    """Write prompts.json of a style, and llm.json with the language model's requests and answers."""
    (path,) = work.sources.values()
    style = read_style(path)
    book, exchanges = make_book(style, work.settings, work.root / ANSWERS)
    (work.folder / "prompts.json").write_bytes(encode_json(book))
    if exchanges:
        (work.folder / "llm.json").write_bytes(encode_json([asdict(exchange) for exchange in exchanges]))
    chosen = [*book["train"], *book["test"]]
    origins = Counter(prompt["origin"] for prompt in chosen)
    reasons = Counter(entry["reason"].partition(":")[0] for entry in book["rejected"])
    metrics = {f"prompts_{origin}": float(count) for origin, count in sorted(origins.items())}
    if exchanges:
        metrics["llm_tokens"] = float(sum(exchange.tokens_in + exchange.tokens_out for exchange in exchanges))
    if "missing" in book:
        metrics["prompts_missing"] = float(book["missing"])
    return Summary(samples=len(chosen), rejected=dict(reasons), metrics=metrics)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    prompts = settings.prompts
    own = prompts.model_dump(include={"backend", "train", "test", "seed"})
    if prompts.max_clip_text is not None:
        own |= {"max_clip_text": prompts.max_clip_text, "world": settings.world}
    if prompts.backend == "openai":
        own |= prompts.model_dump(include={"model", "base_url", "temperature", "max_tokens"})
        own["template"] = llm.TEMPLATE
    return own


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    path = style_path(settings, partition.style or "")
    return {path.name: path}


STAGE = Stage(
    name="prompts",
    version=1,
    split_by=("style",),
    reads=reads,
    sources=sources,
    models=lambda settings: ("clip",) if settings.prompts.max_clip_text is not None else (),
    run=run,
    what="prompts",
)


def make_book(style: StyleFile, settings: Settings, answers: Path) -> tuple[dict[str, Any], list[llm.Exchange]]:
    """prompts.json of a style, and the exchanges with the language model, if any.

    answers: the folder of its kept answers.
    """
    given = settings.prompts
    check_written(style)
    wanted = given.train + given.test
    collection = Collection(style, wanted, load_embedding(settings), given.max_clip_text or 1.0)
    collection.offer(style.seed_prompt, "seed")
    for text in (*style.train, *style.test, *style.prompts[1:]):
        if normalise(text) != normalise(style.seed_prompt):
            collection.offer(text, "given")
    exchanges = ask_model(collection, style, settings, answers) if given.backend == "openai" else []
    for text in paraphrases(style.seed_prompt, CANDIDATES * wanted, given.seed):
        # With a language model, this only fills the gaps it left; reporting "not needed" would be noise.
        if given.backend == "builtin" or not collection.full:
            collection.offer(text, "builtin")
    collection.close()
    missing = say_what_is_missing(collection)
    fixed = {normalise(text): "train" for text in style.train} | {normalise(text): "test" for text in style.test}
    train, test = split_prompts(collection, style.slug, fixed, given)
    before, after = captions(style.seed_prompt)
    own = style.model_dump(include={"guidance_scale", "image_guidance_scale"}, exclude_none=True)
    return {
        "style": style.slug,
        "seed_prompt": style.seed_prompt,
        "train": _numbered(train, 0),
        "test": _numbered(test, given.train),
        "rejected": collection.rejected,
        "source_caption": style.source_caption or before,
        "target_caption": style.target_caption or after,
        **own,
        **({"missing": missing} if missing else {}),
    }, exchanges


def check_written(style: StyleFile) -> None:
    """Refuse an author's prompt that no portrait may be edited by: it is not reworded, its author must change it."""
    for text in (*style.prompts, *style.train, *style.test):
        danger = not_face_safe(text)
        other = "" if style.changes_identity else changes_identity(text)
        if danger or other:
            raise UserError(
                f"the style '{style.slug}' asks for an edit that is not allowed",
                prompt=text,
                cause=danger or f"it asks for another person: '{other}'",
                hint="change the prompt" + ("" if danger else ", or set changes_identity: true in its .yaml file"),
            )


def split_prompts(
    collection: Collection, slug: str, fixed: dict[str, str], settings: PromptsSettings
) -> tuple[list[Prompt], list[Prompt]]:
    """Train and test prompts: those that the style file fixes, then the others by the hash of their words.

    No two prompts of a collection share their words, so that none can be in both. Where prompts are missing, both
    splits go short in proportion.
    """
    by_split: dict[str, list[Prompt]] = {"train": [], "test": []}
    sizes = {"train": settings.train, "test": settings.test}
    count = len(collection.accepted)
    if settings.test and count < settings.train + settings.test:
        fixed_tests = sum(fixed.get(normalise(prompt.text)) == "test" for prompt in collection.accepted)
        few = max(1, count * settings.test // (settings.train + settings.test), fixed_tests)
        sizes = {"train": count - few, "test": few}

    def lot(prompt: Prompt) -> tuple[bool, int]:
        words = normalise(prompt.text)
        return words not in fixed, derive("prompt split", slug, words)

    for prompt in sorted(collection.accepted, key=lot):
        wish = fixed.get(normalise(prompt.text), "train")
        split = next((s for s in (wish, "train", "test") if len(by_split[s]) < sizes[s]), None)
        if split is None or (normalise(prompt.text) in fixed and split != wish):
            raise UserError(
                f"the style '{slug}' fixes more {wish} prompts than allowed",
                expected=f"at most {sizes[wish]} (prompts.{wish})",
            )
        by_split[split].append(prompt)
    return by_split["train"], by_split["test"]


def ask_model(collection: Collection, style: StyleFile, settings: Settings, answers: Path) -> list[llm.Exchange]:
    """Ask the language model until there are enough prompts, or the requests are used up."""
    model, exchanges = llm.LanguageModel(settings, answers), []
    for turn in range(REQUESTS):
        if collection.full:
            break
        avoid = [prompt.text for prompt in collection.accepted if prompt.origin != "seed"]
        exchange = model.ask(style.seed_prompt, 2 * collection.wanted, avoid, turn)
        exchanges.append(exchange)
        if exchange.problem:
            kept = shown_path(answers.parent / exchange.kept)
            log.warning("%s: %s    (all of it: %s)", style.slug, exchange.problem, kept)
            collection.rejected.append({"text": "", "reason": exchange.problem})
        for text in exchange.texts[: 4 * collection.wanted]:
            collection.offer(text, "openai")
    if not collection.full:
        missing = collection.wanted - len(collection.accepted)
        again = f"; to ask again: --force prompts/{style.slug}" if any(each.problem for each in exchanges) else ""
        log.warning("%s: %d prompts are missing; the built-in paraphraser adds them%s", style.slug, missing, again)
    return exchanges


def say_what_is_missing(collection: Collection) -> int:
    """Return the number of missing prompts. Raises UserError if less than half of them were found."""
    style, found = collection.style, len(collection.accepted)
    if 2 * found < collection.wanted:
        raise UserError(
            f"the style '{style.slug}' has only {found} distinct prompts of {collection.wanted}",
            instruction=style.seed_prompt,
            hint="write more lines into its file; each one is a prompt. Or ask a model: --set prompts.backend=openai",
        )
    if not collection.full:
        said = "%s: only %d distinct prompts of %d; write more lines into its file"
        log.warning(said, style.slug, found, collection.wanted)
    return max(0, collection.wanted - found)


def load_embedding(settings: Settings) -> Embed | None:
    """CLIP's text vectors, where the profile compares prompts by them."""
    if settings.prompts.max_clip_text is None:
        return None
    from models.zoo import zoo

    clip = zoo.load("clip", settings.world, settings.run.device)
    return lambda text: clip.embed_texts([text])[0].double().cpu().numpy()


def _numbered(prompts: list[Prompt], first: int) -> list[dict[str, Any]]:
    return [{"number": first + i, **asdict(prompt)} for i, prompt in enumerate(prompts)]
