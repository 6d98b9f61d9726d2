"""The flow baselines: Table 1 and Figure 4 of the paper with all their rows, on held-out portraits and prompts."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import with_profile
from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles
from data_catalog.plan.plan import Plan
from data_catalog.samples.encoding import encode_json
from data_catalog.workspace import Workspace
from flows.ask.plan import PlanShape
from flows.ask.price import Price, Prices
from flows.run.declare import flow
from flows.run.form import (
    Force,
    OtherDataset,
    Overrides,
    Profile,
    RunName,
    RunNote,
    RunTags,
    StudentName,
    listed,
    shown,
)
from flows.run.products import HEADLINE, find_student, name_inputs
from flows.run.run import FlowRun, open_run
from flows.track.labels import labelled
from flows.track.mlflow_runs import numbers
from flows.track.prefect_pages import show_table
from models.zoo import zoo
from tasks import dataset as dataset_stage
from tasks import distill
from tasks.baselines.methods import METHODS, OURS, STAGES
from tasks.baselines.page import SHEET, TABLE, draw_sheet, write_page
from tasks.baselines.table import make_table, read_rows
from tasks.evaluate import choose_references
from tasks.progress import tell_left
from tasks.training.data import read_samples

FOLDER = "baselines"  # below the data root

log = logging.getLogger(__name__)


@flow(name="baselines")
def baselines(
    profile: Profile = "demo",
    overrides: Overrides = None,
    student: StudentName = None,
    dataset: OtherDataset = None,
    portraits: Annotated[int | None, shown("integer", "Number of test portraits; empty: that of the settings.")] = None,
    styles: Annotated[list[str] | None, listed("Styles to edit with; empty: all of the settings.")] = None,
    yes: Annotated[bool, shown("boolean", "Go on without a GPU in the paper world.")] = False,
    force: Force = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Make Table 1 and Figure 4 with every method: PTI, SPI and Live3D steered by CLIP, IP2P + Live3D, and ours.

    What is made is kept by method and style; a method without its weights is left out.
    """
    given = [] if portraits is None else [f"baselines.portraits={portraits}"]
    workspace = Workspace.open(profile, overrides).with_overrides(*given)
    chosen = choose_styles(workspace.settings, styles)
    pins = find_student(student, workspace, dataset)
    check_device(workspace.settings, len(chosen), yes)
    absent = find_absent(workspace.settings.world)
    for title, why in absent.items():
        log.warning("%s is left out: %s", title, why)
    names = [method.name for method in METHODS if method.title not in absent]
    parameters = {"student": student, "dataset": dataset, "portraits": portraits, "styles": styles, "yes": yes}
    with (
        labelled(name, note, tags),
        open_run("baselines", workspace, pins, force or [], None, parameters, shape_of(names, chosen)) as run,
    ):
        make_all(run, names)
        return run.conclude(**publish(run, workspace, names, absent))


def make_all(run: FlowRun, names: Sequence[str]) -> None:
    """Make the missing partitions of each method, and say how long the others will take, if records tell it."""
    for place, name in enumerate(names, start=1):
        run.stage(STAGES[name].name)
        if place < len(names):
            left = tell_left(seconds_left(run.plan, names[place:]))
            log.info("baselines  %d of %d methods%s", place, len(names), left)


def seconds_left(plan: Plan, names: Sequence[str]) -> float | None:
    """Price of methods by their own records: one takes a hundred times as long as another. None without a record."""
    prices = Prices(plan)
    price = sum((prices.price(STAGES[name], state) for name in names for state in ("run", "maybe")), Price())
    return None if price.unknown else price.seconds


def choose_styles(settings: Settings, styles: Sequence[str] | None) -> list[str]:
    """Return the named styles, or all of the settings. Raises UserError for a style that is not among them."""
    known = list_styles(settings)
    unknown = sorted(set(styles or []) - set(known))
    if unknown:
        raise UserError("there is no such style", found=", ".join(unknown), expected=", ".join(known))
    return sorted(set(styles)) if styles else known


def check_device(settings: Settings, styles: int, yes: bool) -> None:
    """Raise UserError where the paper's networks would run without a GPU, unless it was confirmed."""
    import torch

    if settings.world != "paper" or yes or (settings.run.device.startswith("cuda") and torch.cuda.is_available()):
        return
    edits = 2 * styles * settings.baselines.portraits
    raise UserError(
        "there is no GPU, and the paper's networks would take weeks",
        edits=f"{edits} with each method",
        expected="18 minutes an edit of SPI + StyleGAN-NADA on the paper's A6000; many times that on a CPU",
        hint="--yes goes on all the same; without --profile paper the small networks take minutes",
    )


def find_absent(world: str) -> dict[str, str]:
    """Methods whose weights are not there, by title, and how to get them."""
    absent: dict[str, str] = {}
    for method in METHODS:
        for name in method.networks(world):
            why = zoo.missing(name, world)
            if why:
                absent[method.title] = f"no {name}: {' '.join(why.split())}"
                break
    return absent


def shape_of(names: Sequence[str], styles: Sequence[str]) -> Callable[[Settings], PlanShape]:
    """Return a plan of these methods and styles, from a dataset and a student that are made."""

    def shape(settings: Settings) -> PlanShape:
        return PlanShape((dataset_stage.STAGE, distill.STAGE, *(STAGES[name] for name in names)), list(styles), [])

    return shape


def publish(run: FlowRun, workspace: Workspace, names: Sequence[str], absent: dict[str, str]) -> dict[str, Any]:
    """Write table, page and sheet below the data root, and log them. Returns the values that the command prints."""
    run.check()
    folder = run.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    steps = {name: run.plan.by_stage[STAGES[name].name] for name in names}
    folders: dict[tuple[str, str], Path] = {}
    rejected: dict[str, int] = {}
    for name, mine in steps.items():
        for step in mine:
            assert step.entry is not None
            folders[name, str(step.partition.style)] = run.plan.catalog.folder(step.entry)
            rejected[name] = rejected.get(name, 0) + step.entry.rejected
    rows = read_rows([*folders.values()])
    document = make_table(rows, rejected, run.settings) | {"absent": absent}
    (folder / TABLE).write_bytes(encode_json(document))
    samples = read_samples(run.folder("dataset"), run.root)
    by_key = {sample.key: sample for sample in samples}
    sheet = draw_sheet(folder / SHEET, rows, folders, by_key, choose_references(samples))
    page = write_page(folder, tell_command(workspace, document), document, run.settings, absent)
    name_inputs(run)
    run.tracker.table(document["table"], "table.json", "method")
    show_table("baselines", document["table"], "Table 1 of the paper, on held-out portraits and prompts")
    for row in document["table"]:
        values = numbers(row)
        if row["method"] == OURS:
            run.tracker.result({name: values.get(name) for name in HEADLINE})
        method = row["method"].replace(" + ", "_").replace(" ", "_")
        run.tracker.metrics(run.tracker.run_id, {f"baselines.{method}.{key}": value for key, value in values.items()})
    for path in (page, sheet):
        run.tracker.file(path)
    return {**json.loads((folder / TABLE).read_text(encoding="utf-8")), "files": [str(page), str(sheet)]}


def tell_command(workspace: Workspace, document: dict[str, Any]) -> str:
    """Write the command that makes the table again."""
    parts = ["stillroom baselines --styles", *document["styles"], *(f"--set '{each}'" for each in workspace.overrides)]
    return with_profile(" ".join(parts), workspace.profile)
