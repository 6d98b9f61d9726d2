"""Remake of one pseudo-label, alone, and comparison of its bytes with the store's."""

import hashlib
import json
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.samples.keys import KEY
from data_catalog.store.fingerprint import write_atomically
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from tasks.tables.edits import EDITS, Edited
from tasks.tables.faces import FACES


def regenerate(key: str, out: Path, workspace: Workspace) -> dict[str, Any]:
    """Edit the portrait of one sample again, by its own seed; the picture is written to `out`."""
    plan = open_plan(workspace.settings, workspace.root)
    step, row = find_sample(plan, key)
    settings = plan.settings
    png = take_again(plan, step, row) if row.edit_file else edit_alone(plan, step, row)
    path = out / f"{key}.png"
    write_atomically(path, png)
    assert step.entry is not None
    made, recorded = hashlib.sha256(png).hexdigest(), row.pseudo_label_digest
    document = {"key": key, "file": str(path), "same": made == recorded, "digest": made, "recorded": recorded}
    document |= {name: getattr(row, name) for name in ("style", "prompt", "split", "seed", "attempt")}
    return document | {"partition": step.key, "device": settings.run.device, "made_on": step.entry.device}


def edit_alone(plan: Plan, step: Step, row: Edited) -> bytes:
    """The PNG of a sample, by the editor."""
    from models.zoo import zoo
    from tasks.edit import adjust_to_style, edit_again

    settings = plan.settings
    book = json.loads((_folder(plan, step, "prompts") / "prompts.json").read_text(encoding="utf-8"))
    editor = zoo.load("editor", settings.world, settings.run.device)
    aligned = _folder(plan, step, "align") / "aligned"
    return edit_again(editor, row, aligned, adjust_to_style(settings.edit, book))


def take_again(plan: Plan, step: Step, row: Edited) -> bytes:
    """Return the PNG of a sample whose edit was supplied with its portrait, from the supplied file."""
    from tasks.edit import take_one

    portraits = FACES.read(_folder(plan, step, "align"))
    (portrait,) = [each for each in portraits if each.portrait_id == row.portrait_id]
    return take_one(row, portrait, step.partition, plan.settings)


def find_sample(plan: Plan, key: str) -> tuple[Step, Edited]:
    """The partition of edit that holds a sample, and the sample's row."""
    portrait, style, attempt = split_key(key)
    steps = [s for s in plan.by_stage["edit"] if (s.partition.style, s.partition.attempt) == (style, attempt)]
    made = [step for step in steps if step.entry is not None]
    close: list[str] = []
    for step in made:
        assert step.entry is not None
        rows = EDITS.read(plan.catalog.folder(step.entry))
        for row in rows:
            if row.key == key:
                return step, row
        close += [row.key for row in rows if row.portrait_id == portrait]
    if not made:
        raise UserError(f"no partition of edit that could hold {key} is made yet", style=style, hint="stillroom build")
    raise UserError(
        f"there is no sample {key} with these settings",
        looked_in=", ".join(step.key for step in made),
        of_this_portrait=", ".join(close) or "none",
        hint="keys are in samples.parquet and rejected.parquet of a dataset",
    )


def split_key(key: str) -> tuple[str, str, int]:
    """(portrait, style, attempt) of a sample's key."""
    portrait, _, rest = key.partition("-")
    parts = rest.rsplit("-", 2)
    if not KEY.fullmatch(key) or len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        raise UserError(
            f"'{key}' is not a sample's key",
            expected="<portrait>-<style>-<prompt number>-<attempt>, such as p0123456789-zombie-3-0",
        )
    return portrait, parts[0], int(parts[2])


def _folder(plan: Plan, step: Step, stage: str) -> Path:
    """Return the folder of another stage's partition that a step was made from."""
    (up,) = plan.upstream(step, stage)
    if up.entry is None:
        raise UserError(f"{up.key} is not made with these settings", hint="stillroom build")
    return plan.catalog.folder(up.entry)
