"""The styles of a profile: listed with their state, and added. Imports no engine."""

import json
import re
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.names import allowed_name, check_slug
from data_catalog.config.places import shown_path
from data_catalog.config.styles import (
    StyleFile,
    list_styles,
    read_style,
    style_path,
    style_paths,
    style_text,
    styles_folder,
)
from data_catalog.plan.plan import Plan
from data_catalog.store.fingerprint import write_atomically
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from flows.ask.style_check import line_problems
from flows.mistakes import MISTAKES
from tasks.language.encoder import read_notes
from tasks.language.paraphrase import parse
from tasks.language.wording import clean, normalise


def describe_styles(workspace: Workspace) -> dict[str, Any]:
    """Describe the styles that the settings choose: prompts, state, samples kept and their share."""
    settings = workspace.settings
    paths = [style_path(settings, slug) for slug in list_styles(settings)]
    plan, note = _open_plan(workspace)
    rows = [_style_row(read_style(path), path, plan) for path in paths]
    return {"profile": workspace.profile, "styles": rows} | ({"note": note} if note else {})


def add_style(instruction: str, name: str | None, workspace: Workspace) -> dict[str, Any]:
    """Write the file of a new style; its name comes from what the instruction asks for."""
    settings = workspace.settings
    text, folder = clean(instruction), styles_folder(settings)
    check_slug(slug := slug_of(text) if name is None else name)
    wrong = [what for what, level in line_problems(text, StyleFile(slug=slug, prompts=[text])) if level == "error"]
    if wrong:
        raise UserError(
            f"this is not an instruction for a style: {wrong[0]}",
            found=repr(instruction),
            expected="one edit of a portrait, such as: make her a porcelain doll",
        )
    suffix, written = style_text(text)
    path = folder / f"{slug}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    known = style_paths(folder)
    if slug in known:
        where = shown_path(known[slug])
        raise UserError(f"there is a style '{slug}' already", file=where, hint="choose another name: --name")
    same = [other for other in known.values() if normalise(read_style(other).seed_prompt) == normalise(text)]
    if same:
        raise UserError(f"the style '{same[0].stem}' already has the same instruction", file=shown_path(same[0]))
    write_atomically(path, written.encode())
    chosen = settings.prompts.styles
    listed = chosen is None or slug in chosen
    following = "stillroom build" if listed else f"name it in prompts.styles, which lists {', '.join(chosen or [])}"
    document = {"style": slug, "seed_prompt": text, "file": shown_path(path), "next": following}
    notes = read_notes(settings.world)(text)
    return document | ({"note": "; ".join(notes)} if notes else {})


def slug_of(instruction: str) -> str:
    """Return a slug for an instruction: `porcelain-doll` for "make her a porcelain doll"."""
    phrase = re.sub(r"^(?:an?|the|his|her|their)\s+", "", parse(instruction).phrase, flags=re.IGNORECASE)
    return allowed_name(phrase, prefix="style")


def _open_plan(workspace: Workspace) -> tuple[Plan | None, str]:
    """The plan, or why there is none: styles can be looked at before portraits and weights are there."""
    try:
        return open_plan(workspace.settings, workspace.root), ""
    except MISTAKES as error:
        return None, f"no state: {str(error).splitlines()[0]}"


def _style_row(style: StyleFile, path: Path, plan: Plan | None) -> dict[str, Any]:
    row: dict[str, Any] = {"style": style.slug, "seed_prompt": style.seed_prompt, "given": len(set(_lines(style)))}
    row |= dict.fromkeys(("train", "test", "state", "cached", "partitions", "problem", "kept", "yield"))
    if plan is not None:
        row |= _state(plan, style.slug)
    return row | {"licence": style.licence, "file": shown_path(path)}


def _state(plan: Plan, slug: str) -> dict[str, Any]:
    """Return a style's state (`made`, `failed`, `new` or `outdated`), and prompts and yield of its nearest records."""
    steps = [step for step in plan.steps.values() if step.partition.style == slug]
    made, known = sum(step.made for step in steps), any(step.near is not None for step in steps)
    problem = next((f"{step.key}: {step.failure}" for step in steps if step.failure), None)
    state = "made" if made == len(steps) else "failed" if problem else "outdated" if known else "new"
    row: dict[str, Any] = {"state": state, "cached": made, "partitions": len(steps), "problem": problem}
    prompts, selected = (plan.steps[f"{stage}/{slug}"].near for stage in ("prompts", "select"))
    if prompts is not None:
        book = json.loads((plan.catalog.folder(prompts) / "prompts.json").read_text(encoding="utf-8"))
        row |= {split: len(book[split]) for split in ("train", "test")}
    if selected is not None and not plan.steps[f"select/{slug}"].failure:
        row |= {"kept": selected.samples, "yield": plan.catalog.read(selected).metrics.get("yield")}
    return row


def _lines(style: StyleFile) -> list[str]:
    return [normalise(text) for text in (*style.prompts, *style.train, *style.test)]
