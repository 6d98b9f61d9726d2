"""Stage edit: the 2D editor turns each portrait into pseudo-labels of a style, or takes those that came with it.

Every sample has a seed of its own, H(portrait, style, prompt, attempt), so that it can be made again alone
and does not depend on the batch or the worker that made it. An edit that came with its portrait was made by nobody's
seed; its prompt is one of the style's, drawn as for the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.config.settings import EditSettings, Settings
from data_catalog.config.styles import styles_folder
from data_catalog.samples.encoding import encode_png
from data_catalog.samples.images import Rejected, read_image
from data_catalog.samples.keys import sample_key
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.sources.edits import EDITOR, GivenEdits, Taken, find_edits, named_edits, take_edit

if TYPE_CHECKING:
    from models.editing.editor import Editor

log = logging.getLogger(__name__)

SEEDS_PER_PROMPT = 2  # attempts at a portrait before it gets another prompt
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("portrait_id", pa.string()),
        ("split", pa.string()),  # of the portrait: train, val or test
        ("style", pa.string()),
        ("prompt", pa.string()),
        ("prompt_number", pa.int32()),
        ("prompt_split", pa.string()),  # train or test
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        ("pseudo_label_digest", pa.string()),  # sha256 of the PNG; null where there is none
        ("status", pa.string()),  # ok or rejected
        ("reason", pa.string()),
    ]
)
# Further columns, where edits came with their portraits; empty for those of the editor.
GIVEN_FIELDS = (
    ("edit_file", pa.string()),  # its name below portraits.source
    ("edit_sha256", pa.string()),  # of that file
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """One sample to be made."""

    key: str
    portrait_id: str
    split: str
    style: str
    prompt: str
    prompt_number: int
    prompt_split: str
    seed: int
    attempt: int = 0


def run(work: Work) -> Summary:
    """Edit the aligned portraits of one block into one style."""
    align, prompts = work.input("align").folder, work.input("prompts").folder
    portraits = pq.read_table(align / "align.parquet").to_pylist()
    book = json.loads((prompts / "prompts.json").read_text(encoding="utf-8"))
    given = find_edits(work.settings, work.partition)
    if given is not None:
        return take_edits(given, portraits, book, work.folder, work.settings)
    from models.zoo import zoo

    editor = zoo.load("editor", work.settings.world, work.settings.run.device)
    if work.settings.run.compile:
        editor.compile()
    settings = adjust_to_style(work.settings.edit, book)
    check_scheduler(editor, settings)
    edits = plan_edits(portraits, book, settings, work.partition.attempt)
    return make_edits(editor, edits, align / "aligned", work.folder, settings)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    given = find_edits(settings, partition)
    if given is not None:
        limits = settings.portraits.model_dump(include={"max_pixels", "min_side"})
        own = {"source": settings.edit.source, "seed": settings.edit.seed, "size": settings.align.size}
        return own | limits | {"edits": given.names}
    return settings.edit.model_dump(mode="json", exclude={"batch_size"})


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    """The files that the pseudo-labels are taken from; none where the editor makes them."""
    given = find_edits(settings, partition)
    return given.files() if given is not None else {}


def models(settings: Settings) -> tuple[str, ...]:
    """The editor, unless all edits come with the portraits."""
    if settings.edit.source == "editor":
        return ("editor",)
    files = styles_folder(settings).glob("*.yaml")
    return ("editor",) if any(named_edits(path) == EDITOR for path in files) else ()


STAGE = Stage(
    name="edit",
    version=1,
    split_by=("style", "block", "attempt"),
    needs=(Need("align"), Need("prompts")),
    reads=reads,
    sources=sources,
    models=models,
    run=run,
)


def adjust_to_style(settings: EditSettings, book: dict[str, Any]) -> EditSettings:
    """The settings with the guidance scales that the style's file gives, if it gives any."""
    own = {name: book[name] for name in ("guidance_scale", "image_guidance_scale") if book.get(name)}
    return settings.model_copy(update=own)


def check_scheduler(editor: Editor, settings: EditSettings) -> None:
    """That the editor's network can be sampled by the scheduler of the settings."""
    try:
        editor.scheduler(settings.scheduler)
    except ValueError as error:
        raise UserError(
            f"edit.scheduler={settings.scheduler} does not fit the editor",
            cause=error,
            hint="take another; null is the one that the checkpoint ships",
        ) from None


def plan_edits(
    portraits: list[dict[str, Any]], book: dict[str, Any], settings: EditSettings, attempt: int = 0
) -> list[Edit]:
    """Which portrait gets which prompts, sorted by key.

    portraits: rows of align.parquet; rejected ones are passed over.  book: prompts.json. Test portraits get
    test prompts only, so that evaluation meets neither a portrait nor a prompt of the training.  A further attempt is
    of training portraits alone, with other seeds; every other one also goes on to the next prompts of the portrait.
    """
    style, edits = book["style"], []
    first = attempt // SEEDS_PER_PROMPT * settings.prompts_per_portrait
    for portrait in portraits:
        if portrait["status"] != "ok" or (attempt and portrait["split"] != "train"):
            continue
        portrait_id, prompt_split = (
            portrait["portrait_id"],
            "test" if portrait["split"] == "test" else "train",
        )

        def lot(prompt: dict[str, Any], portrait_id: str = portrait_id) -> int:
            return derive("prompt of a portrait", settings.seed, portrait_id, style, prompt["number"])

        in_turn = sorted(book[prompt_split], key=lot)
        start = first % max(1, len(in_turn))
        for prompt in [*in_turn[start:], *in_turn[:start]][: settings.prompts_per_portrait]:
            edits.append(
                Edit(
                    key=sample_key(portrait_id, style, prompt["number"], attempt),
                    portrait_id=portrait_id,
                    split=portrait["split"],
                    style=style,
                    prompt=prompt["text"],
                    prompt_number=prompt["number"],
                    prompt_split=prompt_split,
                    seed=derive("edit", settings.seed, portrait_id, style, prompt["text"], attempt),
                    attempt=attempt,
                )
            )
    return sorted(edits, key=lambda edit: edit.key)


def make_edits(editor: Editor, edits: list[Edit], aligned: Path, folder: Path, settings: EditSettings) -> Summary:
    """Write edit.parquet and pseudo_labels/. A sample that cannot be made is a row with its reason."""
    from models.editing.batching import MOST

    (folder / "pseudo_labels").mkdir()
    size = MOST if settings.batch_size == "auto" else settings.batch_size
    reasons: dict[str, str] = {}
    failures: dict[str, Exception] = {}
    digests: dict[str, str] = {}
    for start in range(0, len(edits), size):
        batch: list[Edit] = []
        portraits: list[np.ndarray] = []
        for edit in edits[start : start + size]:
            image = read_image(aligned / f"{edit.portrait_id}.png")
            if isinstance(image, Rejected):
                reasons[edit.key] = f"portrait: {image.reason}"
            else:
                batch.append(edit)
                portraits.append(image.rgb)
        for edit, outcome in zip(batch, edit_batch(editor, portraits, batch, settings), strict=True):
            if isinstance(outcome, Exception):
                failures[edit.key] = outcome
                reasons[edit.key] = f"editor: {type(outcome).__name__}"
                continue
            png = encode_png(outcome)
            (folder / "pseudo_labels" / f"{edit.key}.png").write_bytes(png)
            digests[edit.key] = hashlib.sha256(png).hexdigest()
    if len(failures) == len(edits) > 1:
        raise next(iter(failures.values()))  # Nobody was spared: the editor is at fault, not the samples.
    return write_rows(folder, edits, digests, reasons)


def take_edits(given: GivenEdits, portraits: list[Row], book: Row, folder: Path, settings: Settings) -> Summary:
    """As `make_edits`, of the edits that came with the portraits: one of each, whatever it is asked for by."""
    (folder / "pseudo_labels").mkdir()
    once = settings.edit.model_copy(update={"prompts_per_portrait": 1})
    edits = plan_edits(portraits, book, once)
    aligned = {portrait["portrait_id"]: portrait for portrait in portraits}
    reasons: dict[str, str] = {}
    digests: dict[str, str] = {}
    origins: dict[str, Row] = {}
    for edit in edits:
        name = aligned[edit.portrait_id]["name"]
        taken = take_aligned(given, aligned[edit.portrait_id], settings)
        if isinstance(taken, Rejected):
            log.info("%s has no pseudo-label of %s: %s %s", name, edit.style, taken.reason, taken.detail)
            reasons[edit.key] = taken.reason if name not in given.names else f"edit: {taken.reason}"
            continue
        png = encode_png(taken.rgb)
        (folder / "pseudo_labels" / f"{edit.key}.png").write_bytes(png)
        digests[edit.key] = hashlib.sha256(png).hexdigest()
        origins[edit.key] = {"edit_file": given.names[name], "edit_sha256": taken.sha256}
    return write_rows(folder, edits, digests, reasons, origins)


def take_aligned(given: GivenEdits, portrait: Row, settings: Settings) -> Taken | Rejected:
    """The given edit of a portrait, cut as it was.  portrait: row of align.parquet."""
    crop = np.array(portrait["crop"]).reshape(2, 3)
    return take_edit(given, portrait["name"], crop, settings.align.size, settings.portraits)


def write_rows(
    folder: Path,
    edits: list[Edit],
    digests: dict[str, str],
    reasons: dict[str, str],
    origins: dict[str, Row] | None = None,
) -> Summary:
    """Write edit.parquet.  By key: digests of the PNGs that there are, reasons of the others, where edits came from."""
    rows = [
        asdict(edit)
        | {
            "pseudo_label_digest": digests.get(edit.key),
            "status": "ok" if edit.key in digests else "rejected",
            "reason": reasons.get(edit.key, ""),
        }
        | (origins or {}).get(edit.key, {})
        for edit in edits
    ]
    schema = SCHEMA if origins is None else pa.schema([*SCHEMA, *GIVEN_FIELDS])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "edit.parquet")
    return Summary(samples=len(digests), rejected=dict(Counter(reasons.values())))


def edit_batch(
    editor: Editor, portraits: list[np.ndarray], edits: list[Edit], settings: EditSettings
) -> list[np.ndarray | Exception]:
    """A pseudo-label (H, W, 3) uint8 for each portrait (H, W, 3) uint8, or the error that came instead.

    When a batch fails, its samples are made one by one: the others do not pay for a bad one.
    """
    if not portraits:
        return []
    try:
        return list(
            editor.edit(
                np.stack(portraits),
                [edit.prompt for edit in edits],
                [edit.seed for edit in edits],
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                image_guidance_scale=settings.image_guidance_scale,
                guidance_interval=settings.guidance_interval,
                keep_portraits=True,  # the next style's partition edits them too
                scheduler=settings.scheduler,
                batch_size=settings.batch_size,
            )
        )
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        log.warning("the editor failed on %s: %s", ", ".join(edit.key for edit in edits), error)
        if len(edits) == 1:
            return [error]
    alone = (edit_batch(editor, [one], [edit], settings) for one, edit in zip(portraits, edits, strict=True))
    return [outcome for (outcome,) in alone]


def edit_again(editor: Editor, row: dict[str, Any], aligned: Path, settings: EditSettings) -> bytes:
    """The PNG of one sample, made by itself.

    row: of edit.parquet.  settings: of the sample's style, see `adjust_to_style`.
    """
    edit = Edit(**{name: row[name] for name in Edit.__dataclass_fields__})
    portrait = read_image(aligned / f"{edit.portrait_id}.png")
    if isinstance(portrait, Rejected):
        raise UserError(f"the portrait of {edit.key} cannot be read", cause=portrait.reason, hint="stillroom verify")
    (outcome,) = edit_batch(editor, [portrait.rgb], [edit], settings)
    if isinstance(outcome, Exception):
        raise UserError(f"the editor fails on {edit.key}", cause=outcome, recorded=row["reason"] or row["status"])
    return encode_png(outcome)


def take_one(row: Row, portrait: Row, partition: Partition, settings: Settings) -> bytes:
    """The PNG of one sample, from the file that came with its portrait.

    row: of edit.parquet.  portrait: of align.parquet.
    """
    given = find_edits(settings, partition)
    taken = None if given is None else take_aligned(given, portrait, settings)
    if taken is None or isinstance(taken, Rejected):
        cause = "the editor makes its style now" if taken is None else taken.reason
        raise UserError(f"the edit of {row['key']} cannot be taken again", file=row["edit_file"], cause=cause)
    return encode_png(taken.rgb)


def is_out_of_memory(error: Exception) -> bool:
    """A full device says nothing about a sample."""
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
