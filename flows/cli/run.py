"""Commands of the flows: build, distil, evaluate, in this process or through Prefect."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli import screen
from flows.cli.options import (
    Cluster,
    DatasetName,
    Force,
    Json,
    OtherDataset,
    Overrides,
    Profile,
    RunName,
    RunNote,
    RunTags,
    StudentName,
)
from flows.cli.screen import Document, fields, make_table
from flows.track.labels import read_labels

EVALUATION_COLUMNS = ("id", "clip", "three_d", "lpips", "l1_changed", "improvement", "seconds_per_image")

app = typer.Typer(rich_markup_mode=None)


@app.command()
def build(
    force: Force = None,
    cluster: Cluster = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build the dataset in this process, from portraits to a snapshot; only outdated partitions are computed."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        outcome = run_here(
            "build-dataset",
            profile,
            overrides or [],
            labels=read_labels(name, note, tags),
            cluster=cluster,
            force=force,
        )
    screen.show(outcome, as_json, build_table)


@app.command()
def distill(
    dataset: DatasetName = None,
    force: Force = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train the student from a dataset, unless it exists."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        outcome = run_here(
            "distill", profile, overrides or [], labels=read_labels(name, note, tags), dataset=dataset, force=force
        )
    screen.show(outcome, as_json, screen.fields)


@app.command()
def evaluate(
    student: StudentName = None,
    dataset: OtherDataset = None,
    force: Force = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Evaluate a student on held-out portraits and prompts against its teachers."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        outcome = run_here(
            "evaluate",
            profile,
            overrides or [],
            labels=read_labels(name, note, tags),
            student=student,
            dataset=dataset,
            force=force,
        )
    screen.show(outcome, as_json, evaluation_table)


@app.command()
def run(
    flow: Annotated[str, typer.Argument(help="A deployed flow, such as build-dataset, distill or adapt-style.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Parameter of the flow, such as style=bald."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Serve the deployments from here, even if another checkout does.")
    ] = False,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Trigger a flow's Prefect deployment of the profile (the server must be up: make up)."""
    with screen.only_results_on_stdout():
        from flows.run.engine import trigger

        outcome = trigger(flow, profile, overrides or [], watch, force or [], parameters or [], take_over)
    screen.show(outcome, as_json, screen.fields)
    if outcome["state"] in ("FAILED", "CRASHED", "CANCELLED"):
        raise typer.Exit(1)


@app.command()
def retry(
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run only the failed partitions of this profile's last run, and those that waited for them."""
    with screen.only_results_on_stdout():
        from flows.care.retry import retry as try_again

        outcome = try_again(profile, overrides or [], read_labels(name, note, tags))
    screen.show(outcome, as_json, evaluation_table if "per_style" in outcome else screen.fields)


def build_table(document: Document, console: Console) -> None:
    """Print a field a line, and each kind of what was left out on a line of its own."""
    for name, value in document.items():
        for each in value if isinstance(value, list) else [value]:
            fields({name: each}, console)


def evaluation_table(document: Document, console: Console) -> None:
    """Print the main columns, the student's differences and each style; `--json` has the rest."""
    from tasks.evaluation.table import STUDENT, TEACHERS
    from tasks.reports.evaluation import MEASURES, format_value, show_difference

    shown = [measure for measure in MEASURES if measure.name in EVALUATION_COLUMNS]
    table = make_table("method", *(measure.title for measure in shown))
    for row in document["table"]:
        table.add_row(row["method"], *(format_value(row.get(measure.name), measure) for measure in shown))
    cells = show_difference(document["difference"], shown)
    for column, cell in zip(table.columns[1:], cells, strict=True):
        column.min_width = max(len("0.0000"), len(cell["text"]) + 1)
    table.add_row("difference *", *(cell["text"] + "?" * bool(cell["text"] and not cell["sure"]) for cell in cells))
    console.print(table)
    console.print("* of the student, edit by edit; ? where its 95 % interval contains 0")
    console.print()
    styles = make_table("style", f"{STUDENT} vs no edit", f"{TEACHERS} vs no edit")
    gained = next(measure for measure in MEASURES if measure.name == "improvement")
    for style, rows in sorted(document["per_style"].items()):
        mine = {row["method"]: format_value(row["improvement"], gained) for row in rows}
        styles.add_row(style, mine[STUDENT], mine[TEACHERS])
    console.print(styles)
    names = ("speedup", "timed_editor_steps"), ("speedup_as_edited", "edit_steps")
    times = dict.fromkeys((document[ratio], document[steps]) for ratio, steps in names)
    faster = [f"{ratio:.0f} times at {steps} editor steps" for ratio, steps in times]
    console.print(f"\nas fast as its teachers: {', '.join(faster)}")
    counted = f"{document['counted_speedup']:.0f} to 1 at {document['timed_editor_steps']} editor steps"
    console.print(f"of the paper's networks, by counted operations: {counted}")
    if pictured := document["image_prompts"]:
        values = (
            f"CLIP {pictured['clip_image']:.3f} to the picture, ID {pictured['id']:.3f}, 3D {pictured['three_d']:.3f}"
        )
        console.print(f"asked by a picture: {values}")
    console.print()
    told = {name for pair in names for name in pair}
    rest = {name: value for name, value in document.items() if name not in told and not isinstance(value, dict | list)}
    fields(rest, console)
