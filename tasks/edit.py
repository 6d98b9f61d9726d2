"""Stage edit: the 2D editor turns each portrait into pseudo-labels of a style, or takes edits supplied with it.

Every sample has its own seed, H(portrait, style, prompt, attempt), so that it can be made again alone and does not
depend on its batch or worker. An edit supplied with its portrait has no seed; its prompt is one of the style's, drawn
as for the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.settings import EditSettings, Settings
from data_catalog.config.styles import style_files, styles_folder
from data_catalog.samples.encoding import encode_png
from data_catalog.samples.images import DECODER, Rejected, read_image
from data_catalog.samples.keys import sample_key
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.sources.edits import EDITOR, GivenEdits, Taken, find_edits, named_edits, take_edit
from tasks.tables.edits import EDITS, GIVEN, Edit, Edited
from tasks.tables.faces import FACES, Face

if TYPE_CHECKING:
    from models.editing.editor import Editor

log = logging.getLogger(__name__)

SEEDS_PER_PROMPT = 2  # attempts at a portrait before it gets another prompt


class Origin(NamedTuple):
    """File that an edit came in."""

    file: str | None  # its name below portraits.source
    sha256: str | None


def run(work: Work) -> Summary:
    """Edit the aligned portraits of one block into one style."""
    align, prompts = work.input("align").folder, work.input("prompts").folder
    portraits = FACES.read(align)
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
        return own | limits | {"edits": given.names, "decoder": DECODER}
    return settings.edit.model_dump(mode="json", exclude={"batch_size"})


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    """Return the files of given pseudo-labels; none where the editor makes them."""
    given = find_edits(settings, partition)
    return given.files() if given is not None else {}


def models(settings: Settings) -> tuple[str, ...]:
    """Return the editor, unless all edits are supplied with the portraits."""
    if settings.edit.source == "editor":
        return ("editor",)
    files = (path for path in style_files(styles_folder(settings)) if path.suffix.lower() != ".txt")
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
    """Check that the scheduler of the settings can sample the editor's network."""
    try:
        editor.scheduler(settings.scheduler)
    except ValueError as error:
        raise UserError(
            f"edit.scheduler={settings.scheduler} does not fit the editor",
            cause=error,
            hint="take another; null is the one that the checkpoint ships",
        ) from None


def plan_edits(portraits: list[Face], book: dict[str, Any], settings: EditSettings, attempt: int = 0) -> list[Edit]:
    """Pair portraits with prompts, sorted by key.

    portraits: rejected ones are passed over.  book: prompts.json. Test portraits get
    test prompts only, so that evaluation meets neither a portrait nor a prompt of the training.  A further attempt is
    of training portraits alone, with other seeds; every other one also goes on to the next prompts of the portrait.
    """
    style, edits = book["style"], []
    first = attempt // SEEDS_PER_PROMPT * settings.prompts_per_portrait
    for portrait in portraits:
        split = str(portrait.split)
        if portrait.status != "ok" or (attempt and split != "train"):
            continue
        portrait_id, prompt_split = portrait.portrait_id, "test" if split == "test" else "train"

        def lot(prompt: dict[str, Any], portrait_id: str = portrait_id) -> int:
            return derive("prompt of a portrait", settings.seed, portrait_id, style, prompt["number"])

        # Each portrait has its own order of the prompts; a further attempt moves on in it.
        in_turn = sorted(book[prompt_split], key=lot)
        start = first % max(1, len(in_turn))
        for prompt in [*in_turn[start:], *in_turn[:start]][: settings.prompts_per_portrait]:
            edits.append(
                Edit(
                    key=sample_key(portrait_id, style, prompt["number"], attempt),
                    portrait_id=portrait_id,
                    split=split,
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
        # Read the portraits of a batch.
        batch: list[Edit] = []
        portraits: list[np.ndarray] = []
        for edit in edits[start : start + size]:
            image = read_image(aligned / f"{edit.portrait_id}.png")
            if isinstance(image, Rejected):
                reasons[edit.key] = f"portrait: {image.reason}"
            else:
                batch.append(edit)
                portraits.append(image.rgb)
        # Edit them, and write each picture with its digest.
        for edit, outcome in zip(batch, edit_batch(editor, portraits, batch, settings), strict=True):
            if isinstance(outcome, Exception):
                failures[edit.key] = outcome
                reasons[edit.key] = f"editor: {type(outcome).__name__}"
                continue
            png = encode_png(outcome)
            (folder / "pseudo_labels" / f"{edit.key}.png").write_bytes(png)
            digests[edit.key] = hashlib.sha256(png).hexdigest()
    if len(failures) == len(edits) > 1:
        raise next(iter(failures.values()))  # Every sample failed: the editor is broken, not the samples.
    return write_rows(folder, edits, digests, reasons)


def take_edits(
    given: GivenEdits, portraits: list[Face], book: dict[str, Any], folder: Path, settings: Settings
) -> Summary:
    """Do as `make_edits` does with edits supplied with the portraits: one of each, whatever its prompt."""
    (folder / "pseudo_labels").mkdir()
    once = settings.edit.model_copy(update={"prompts_per_portrait": 1})
    edits = plan_edits(portraits, book, once)
    aligned = {portrait.portrait_id: portrait for portrait in portraits}
    reasons: dict[str, str] = {}
    digests: dict[str, str] = {}
    origins: dict[str, Origin] = {}
    for edit in edits:
        name = aligned[edit.portrait_id].name
        taken = take_aligned(given, aligned[edit.portrait_id], settings)
        if isinstance(taken, Rejected):
            log.info("%s has no pseudo-label of %s: %s %s", name, edit.style, taken.reason, taken.detail)
            reasons[edit.key] = taken.reason if name not in given.names else f"edit: {taken.reason}"
            continue
        png = encode_png(taken.rgb)
        (folder / "pseudo_labels" / f"{edit.key}.png").write_bytes(png)
        digests[edit.key] = hashlib.sha256(png).hexdigest()
        origins[edit.key] = Origin(given.names[name], taken.sha256)
    return write_rows(folder, edits, digests, reasons, origins)


def take_aligned(given: GivenEdits, portrait: Face, settings: Settings) -> Taken | Rejected:
    """The given edit of a portrait, cut as it was."""
    crop = np.array(portrait.crop).reshape(2, 3)
    return take_edit(given, portrait.name, crop, settings.align.size, settings.portraits)


def write_rows(
    folder: Path,
    edits: list[Edit],
    digests: dict[str, str],
    reasons: dict[str, str],
    origins: dict[str, Origin] | None = None,
) -> Summary:
    """Write edit.parquet.  By key: digests of the PNGs, reasons of the missing ones, origins of given edits."""
    rows = []
    for edit in edits:
        file, sha256 = (origins or {}).get(edit.key, Origin(None, None))
        rows.append(
            Edited(
                **vars(edit),
                pseudo_label_digest=digests.get(edit.key),
                status="ok" if edit.key in digests else "rejected",
                reason=reasons.get(edit.key, ""),
                edit_file=file,
                edit_sha256=sha256,
            )
        )
    EDITS.write(folder, rows, further=() if origins is None else GIVEN)
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


def edit_again(editor: Editor, edit: Edited, aligned: Path, settings: EditSettings) -> bytes:
    """The PNG of one sample, made by itself.  settings: of the sample's style, see `adjust_to_style`."""
    portrait = read_image(aligned / f"{edit.portrait_id}.png")
    if isinstance(portrait, Rejected):
        raise UserError(f"the portrait of {edit.key} cannot be read", cause=portrait.reason, hint="stillroom verify")
    (outcome,) = edit_batch(editor, [portrait.rgb], [edit], settings)
    if isinstance(outcome, Exception):
        raise UserError(f"the editor fails on {edit.key}", cause=outcome, recorded=edit.reason or edit.status)
    return encode_png(outcome)


def take_one(edit: Edited, portrait: Face, partition: Partition, settings: Settings) -> bytes:
    """The PNG of one sample, from the file that came with its portrait."""
    given = find_edits(settings, partition)
    taken = None if given is None else take_aligned(given, portrait, settings)
    if taken is None or isinstance(taken, Rejected):
        cause = "the editor makes its style now" if taken is None else taken.reason
        raise UserError(f"the edit of {edit.key} cannot be taken again", file=edit.edit_file, cause=cause)
    return encode_png(taken.rgb)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device is full, which is no fault of the sample."""
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
