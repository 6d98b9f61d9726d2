"""Commands of the flows: build, distil, evaluate, in this process or through Prefect."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_catalog.config.places import data_root, shown_path
from flows.cli import screen
from flows.cli.adapt import adapted_table
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
    same_settings,
)
from flows.cli.screen import Document, fields, line, next_steps, say, show_table
from flows.lines import fitted

EVALUATION_COLUMNS = ("id", "clip", "three_d", "lpips", "l1_changed", "improvement", "seconds_per_image")
EXAMPLE = "docs/portrait.png"  # portrait that comes with the project

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
    """Build the dataset: make what is missing or outdated. It runs in this process, from portraits to a snapshot."""
    table = partial(build_table, chosen=same_settings(profile, overrides))
    labels = {"name": name, "note": note, "tags": tags}
    screen.show_flow("build-dataset", profile, overrides, as_json, table, **labels, cluster=cluster, force=force)


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
    """Train the student from the dataset, unless it exists."""
    table = partial(student_table, chosen=same_settings(profile, overrides))
    labels = {"name": name, "note": note, "tags": tags}
    screen.show_flow("distill", profile, overrides, as_json, table, **labels, dataset=dataset, force=force)


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
    """Measure a student against its teachers. Portraits and prompts are held out."""
    table = partial(evaluation_table, chosen=same_settings(profile, overrides))
    labels = {"name": name, "note": note, "tags": tags}
    given = {"student": student, "dataset": dataset, "force": force}
    screen.show_flow("evaluate", profile, overrides, as_json, table, **labels, **given)


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
    """Trigger a flow's Prefect deployment; make up starts the server."""
    with screen.only_results_on_stdout():
        from flows.run.engine import trigger

        outcome = trigger(flow, profile, overrides or [], watch, force or [], parameters or [], take_over)
    screen.show(outcome, as_json, run_lines)
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
    """Run what failed in the last run, what it needs and what waited.

    With --set, also what that changes.
    """
    with screen.only_results_on_stdout():
        from flows.care.retry import retry as try_again

        outcome = try_again(profile, overrides or [], name, note, tags)
    screen.show(outcome, as_json, partial(outcome_table, chosen=same_settings(profile, overrides)))


def run_lines(document: Document, console: Console) -> None:
    """Print the state and the page of a triggered run, and what ended it."""
    fields({name: document[name] for name in ("deployment", "state", "page")}, console)
    for each in (document["message"] or "").splitlines():
        line(fitted(each, console.width), console)


def outcome_table(document: Document, console: Console, chosen: str = "") -> None:
    """Print the outcome of any flow as its own command does. chosen: options of the same settings."""
    tables = {"per_style": evaluation_table, "metrics": student_table, "samples": build_table}
    table = next((table for name, table in tables.items() if name in document), None)
    if "curve" in document:
        adapted_table(document, console)
    elif table is None:
        fields(document, console)
    else:
        table(document, console, chosen)


def build_table(document: Document, console: Console, chosen: str = "") -> None:
    """Print the dataset, each kind of what was left out on a line of its own, and where the report is."""
    made, cached = document["partitions_run"], document["partitions_cached"]
    told = {
        "dataset": document["dataset"],
        "samples": f"{document['samples']}, {document['rejected']} rejected",
        "partitions": f"{made} made, {cached} up to date",
    }
    _end(document, told, console)
    report = data_root() / "datasets" / document["dataset"][: screen.SHORT] / "report.html"
    line(f"{'report':<{screen.LABEL}} {shown_path(report)}", console)
    next_steps(
        console,
        {f"stillroom distill{chosen}": "train a student from it", f"stillroom styles{chosen}": "yield of each style"},
    )


def student_table(document: Document, console: Console, chosen: str = "") -> None:
    """Print a trained student: its measures on the val split, the picture of what it does, where it lies."""
    from data_catalog.products.students import student_entry
    from data_catalog.workspace import Workspace

    catalog = Workspace.open().catalog
    folder = catalog.folder(student_entry(catalog, document["student"]))
    told = {"student": document["student"], "dataset": document["dataset"]}
    told |= {name: value for name, value in document["metrics"].items() if name.startswith("val_")}
    told |= {"training": "made now" if document["partitions_run"] else "up to date"}
    _end(document, told, console)
    for name, path in (("pictures", folder / "samples.png"), ("folder", folder)):
        if path.exists():
            line(f"{name:<{screen.LABEL}} {shown_path(path)}", console)
    image = EXAMPLE if Path(EXAMPLE).is_file() else "IMAGE"
    edit = f'stillroom edit {image} --prompt "make him a clown"{chosen}'
    next_steps(console, {f"stillroom evaluate{chosen}": "measure it against its teachers", edit: "use it"})


def _end(document: Document, told: Document, console: Console) -> None:
    """Print these fields and, below them, those of every run that it has."""
    names = ("reasons", "rejected_list", "left_out", "left_out_list", "mlflow_run_id", "seconds")
    fields(told | {name: document[name] for name in names if document.get(name) is not None}, console)


def evaluation_table(document: Document, console: Console, chosen: str = "") -> None:
    """Print the main columns, the student's differences and each style; `--json` has the rest."""
    from tasks.evaluation.table import STUDENT, TEACHERS
    from tasks.reports.evaluation import MEASURES, format_value, show_difference

    shown = [measure for measure in MEASURES if measure.name in EVALUATION_COLUMNS]
    rows = [
        [row["method"], *(format_value(row.get(measure.name), measure) for measure in shown)]
        for row in document["table"]
    ]
    cells = show_difference(document["difference"], shown)
    unsure = [bool(cell["text"]) and not cell["sure"] for cell in cells]
    rows = [[row[0], *(text + " " * doubt for text, doubt in zip(row[1:], unsure, strict=True))] for row in rows]
    marked = [cell["text"] + "?" * doubt for cell, doubt in zip(cells, unsure, strict=True)]
    rows.append(["difference *", *marked])
    show_table(("method", *(measure.title for measure in shown)), rows, console)
    say("* of the student, edit by edit; ? where its 95 % interval contains 0", console)
    console.print()
    gained = next(measure for measure in MEASURES if measure.name == "improvement")
    by_style = []
    for style, methods in sorted(document["per_style"].items()):
        mine = {row["method"]: format_value(row["improvement"], gained) for row in methods}
        by_style.append([style, mine[STUDENT], mine[TEACHERS]])
    show_table(("style", f"{STUDENT} vs no edit", f"{TEACHERS} vs no edit"), by_style, console)
    names = ("speedup", "timed_editor_steps"), ("speedup_as_edited", "edit_steps")
    times = dict.fromkeys((document[ratio], document[steps]) for ratio, steps in names)
    faster = [f"{ratio:.0f} times at {steps} editor steps" for ratio, steps in times]
    console.print()
    say(f"as fast as its teachers: {', '.join(faster)}", console)
    counted = f"{document['counted_speedup']:.0f} to 1 at {document['timed_editor_steps']} editor steps"
    say(f"of the paper's networks, by counted operations: {counted}", console)
    if pictured := document["image_prompts"]:
        values = (
            f"CLIP {pictured['clip_image']:.3f} to the picture, ID {pictured['id']:.3f}, 3D {pictured['three_d']:.3f}"
        )
        say(f"asked by a picture: {values}", console)
    console.print()
    names_told = ("student", "dataset", "samples", "lpips_to", "pose_pairs", "mlflow_run_id", "seconds")
    fields({name: document[name] for name in names_told if name in document}, console)
    for name in ("report", "sheet"):
        if name in document:
            line(f"{name:<{screen.LABEL}} {shown_path(Path(document[name]))}", console)
    promote = f"stillroom promote {document['student'][: screen.SHORT]} NAME" if "student" in document else ""
    serve = {f"stillroom serve{chosen}": "try it in the browser"}
    next_steps(console, serve | ({promote: "give it a name for --student"} if promote else {}))
