"""Check of the style files, before anything is made of them."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.config.plain_text import not_plain
from data_catalog.config.settings import Settings
from data_catalog.config.styles import SUFFIXES, StyleFile, read_style, style_files, styles_folder
from data_catalog.samples.images import Rejected, read_image
from data_catalog.workspace import Workspace
from tasks.language.checks import changes_identity, not_face_safe, people_named
from tasks.language.collection import MAX_WORDS
from tasks.language.encoder import KNOWN, read_notes, shorten
from tasks.language.wording import normalise
from tasks.prompts import ANSWERS, make_book

Book = dict[str, Any]
Finding = tuple[str, str]  # finding, and its level: error (the build would stop or leak) or note


def check_styles(workspace: Workspace) -> dict[str, Any]:
    """Look at every file of the styles folder; `ok` if none holds an error."""
    settings = workspace.settings
    folder = styles_folder(settings)
    styles: dict[str, StyleFile] = {}
    problems: list[dict[str, str]] = []

    def add(name: str, findings: list[Finding]) -> None:
        problems.extend({"style": name, "level": level, "what": what} for what, level in findings)

    notes = read_notes(settings.world)
    for path in style_files(folder):
        style, findings = _read(path)
        if style is not None:
            findings += [("there are two files for this style", "error")] if path.stem in styles else []
            findings += _file_findings(style, path, settings, notes)
            styles[path.stem] = style
        add(path.stem, findings)
    for name in _strays(folder, styles):
        add(name, [("no style file: its name ends neither in .txt nor in .yaml", "note")])
    if not styles and not problems:
        raise UserError(f"there is no style file in {shown_path(folder)}", hint='stillroom styles add "..."')
    wrong = {problem["style"] for problem in problems if problem["level"] == "error"}
    sound = {slug: style for slug, style in styles.items() if slug not in wrong}
    books: dict[str, Book] = {}
    if settings.prompts.backend == "builtin":  # A check must not pay a language model.
        for slug, style in sound.items():
            book, findings = _book_of(style, workspace)
            books |= {slug: book} if book else {}
            add(slug, findings)
    for slug, findings in _shared(sound, books).items():
        add(slug, findings)
    errors = sum(problem["level"] == "error" for problem in problems)
    strange = any(KNOWN in note for style in styles.values() for line in _lines(style) for note in notes(line))
    return {
        "profile": workspace.profile,
        "folder": shown_path(folder),
        "checked": len(styles),
        "problems": problems,
        "known": KNOWN if strange else None,
        "ok": errors == 0,
    }


def line_problems(text: str, style: StyleFile) -> list[Finding]:
    """List the problems of one line of a style file."""
    words = len(normalise(text).split())
    wrong, danger = not_plain(text), not_face_safe(text)
    other = "" if style.changes_identity else changes_identity(text)
    names = people_named(text)
    found = {
        "a prompt has no word": words == 0,
        f"a prompt is not plain text: {wrong}": bool(wrong),
        f"{words} words are more than {MAX_WORDS}, all that CLIP reads: {text[:60]}...": words > MAX_WORDS,
        f"not face-safe, {danger}: {text}": bool(danger),
        f"asks for another person ('{other}'); say changes_identity: true in a .yaml file: {text}": bool(other),
    }
    notes = [(f"may name a person ({', '.join(names)}); paraphrases may too: {text}", "note")] if names else []
    return [(what, "error") for what, wrong in found.items() if wrong] + notes


def _read(path: Path) -> tuple[StyleFile | None, list[Finding]]:
    try:
        return read_style(path), []
    except UserError as error:
        return None, [(str(error), "error")]


def _strays(folder: Path, styles: dict[str, StyleFile]) -> list[str]:
    """List the other files of the folder, without the pictures of its styles and what is about the folder."""
    shown = {(folder / name).resolve() for style in styles.values() for name in style.reference_images}
    about = re.compile(r"\.|(?:readme|licen[cs]e|notice|schema)\b", re.IGNORECASE)
    others = (path for path in sorted(folder.iterdir()) if path.suffix.lower() not in SUFFIXES and not path.is_dir())
    return [path.name for path in others if not about.match(path.name) and path.resolve() not in shown]


def _file_findings(
    style: StyleFile, path: Path, settings: Settings, notes: Callable[[str], list[str]]
) -> list[Finding]:
    lines = _lines(style)
    findings = [finding for line in lines for finding in line_problems(line, style)]
    findings += [(f"{note}: {line}", "note") for line in lines for note in shorten(notes(line))]
    twice = [words for words, count in Counter(normalise(line) for line in lines).items() if count > 1]
    findings += [(f"two lines are one prompt: {words}", "note") for words in twice]
    both = {normalise(text) for text in style.train} & {normalise(text) for text in style.test}
    findings += [(f"train and test share a prompt: {words}", "error") for words in sorted(both)]
    for split in ("train", "test"):
        places, fixed = getattr(settings.prompts, split), len(getattr(style, split))
        if fixed > places:
            findings.append((f"fixes {fixed} {split} prompts for {places} places (prompts.{split})", "error"))
    for name in style.reference_images:
        image = read_image(path.parent / name)
        findings += [(f"{name}: {image}", "error")] if isinstance(image, Rejected) else []
    return findings


def _lines(style: StyleFile) -> list[str]:
    return list(dict.fromkeys((*style.prompts, *style.train, *style.test)))


def _book_of(style: StyleFile, workspace: Workspace) -> tuple[Book | None, list[Finding]]:
    """The prompts as the built-in paraphraser would make them, by words alone: no network is loaded."""
    settings = workspace.settings
    plain = settings.model_copy(update={"prompts": settings.prompts.model_copy(update={"max_clip_text": None})})
    try:
        book, _ = make_book(style, plain, workspace.root / ANSWERS)
    except UserError as error:
        return None, [(str(error), "error")]
    wanted = settings.prompts.train + settings.prompts.test
    short = f"only {wanted - book.get('missing', 0)} distinct prompts of {wanted}; write more lines"
    return book, [(short, "note")] if "missing" in book else []


def _shared(styles: dict[str, StyleFile], books: dict[str, Book]) -> dict[str, list[Finding]]:
    """Find overlaps between styles: a shared instruction, or a prompt trained in one style and tested in another."""
    found: dict[str, list[Finding]] = {}
    first: dict[str, str] = {}
    for slug, style in styles.items():
        other = first.setdefault(normalise(style.seed_prompt), slug)
        if other != slug:
            found.setdefault(slug, []).append((f"asks for the same as the style '{other}'", "note"))
    trained = {normalise(prompt["text"]): slug for slug, book in books.items() for prompt in book["train"]}
    for slug, book in books.items():
        for prompt in book["test"]:
            other = trained.get(normalise(prompt["text"]), "")
            if other:
                what = f"tests a prompt that the style '{other}' trains on: {prompt['text']}"
                found.setdefault(slug, []).append((what, "error"))
    return found
