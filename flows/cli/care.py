"""Commands for the store and this machine: state, verification, repair, one sample again, deletion, checks."""

import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from data_catalog.workspace import Workspace
from flows.ask.funnels import Document, told_reasons
from flows.cli import screen
from flows.cli.completion import complete_dataset
from flows.cli.options import Json, Overrides, Profile
from flows.cli.screen import fields, line, say, show_rows, show_table
from tasks.sources.names import counted

app = typer.Typer(rich_markup_mode=None)


@app.command()
def status(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what is made, the yields, the last runs, services."""
    from flows.care.status import describe_status

    screen.show(describe_status(Workspace.open(profile, overrides)), as_json, status_table)


@app.command()
def verify(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Hash every file again; check keys, fields and splits."""
    from flows.care.verify import verify_store

    document = verify_store(Workspace.open(profile, overrides))
    screen.show(document, as_json, verify_table)
    if document["damaged"]:
        raise typer.Exit(1)


@app.command()
def repair(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Make exactly the damaged partitions again. Verifies before, and rebuilds the index."""
    document = screen.show_flow("repair", profile, overrides, as_json, repair_table)
    if document["left"]:
        raise typer.Exit(1)


@app.command()
def regen(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of a sample, such as p0123456789-zombie-3-0.")],
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("regenerated"),
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Make one pseudo-label again, and compare its bytes."""
    with screen.only_results_on_stdout():
        from flows.care.regen import regenerate

        document = regenerate(key, out, Workspace.open(profile, overrides))
    screen.show(document, as_json, fields)
    if not document["same"]:
        raise typer.Exit(1)


@app.command()
def gc(
    last: Annotated[int, typer.Option(min=0, help="Newest snapshots to keep, beside the latest.")] = 3,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="Digest of a dataset to keep, or the name of its student; may be repeated.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """List what nothing uses any more, and ask before deleting it. With --yes it does not ask."""
    from data_catalog.care.gc import remove_waste
    from flows.care import collect

    workspace = Workspace.open(profile, overrides)
    look = partial(collect.look_for_waste, workspace, last, keep or [])
    findings = look()
    if as_json or yes:
        deleted = remove_waste(workspace.store, findings.items) if yes else None
        screen.show(collect.describe(findings, deleted), as_json, deleted_table)
        return
    found = collect.describe(findings, None)
    screen.show(found, False, waste_table)
    if not findings.items:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        typer.echo(f"{amount(found)} may go; delete them with --yes")
    elif typer.confirm(f"Delete {amount(found)}?", default=False):
        findings = collect.both(findings, look())
        screen.show(collect.describe(findings, remove_waste(workspace.store, findings.items)), False, deleted_lines)
    else:
        typer.echo("nothing was deleted")


@app.command()
def doctor(
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Only take two portraits through every stage, on the CPU.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Rehearse with random networks of the paper's size.")
    ] = False,
) -> None:
    """Check this machine: packages, device, weights, disk."""
    if rehearse or random_weights:
        with screen.only_results_on_stdout():
            from flows.care.rehearsal import rehearse as take_portraits_through

            document = take_portraits_through(Workspace.open(profile, overrides), random_weights)
        screen.show(document, as_json, rehearsal_table)
        raise typer.Exit(0 if document["ok"] else 1)
    with screen.only_results_on_stdout():
        from flows.care.doctor import examine

        document = examine(Workspace.open(profile, overrides))
    screen.show(document, as_json, doctor_table)
    if not document["ok"]:
        raise typer.Exit(1)


def funnel_table(funnels: list[Document], console: Console) -> None:
    """Print a row for each style, a column for each check that lost a sample; the most frequent reasons follow."""
    steps = list(dict.fromkeys(each["step"] for funnel in funnels for each in funnel["steps"]))
    left = [{each["step"]: each["left"] for each in funnel["steps"]} for funnel in funnels]
    pairs = pairwise(steps[:-1])
    idle = [name for before, name in pairs if all(counts.get(name) == counts.get(before) for counts in left)]
    shown = [name for name in steps if name not in idle]
    rows = []
    for funnel, counts in zip(funnels, left, strict=True):
        cells = [_count(counts.get(name), counts.get(before)) for before, name in pairwise(["", *shown])]
        name = funnel["style"] + ("" if funnel["current"] else " *")
        rows.append([name, *cells, Text(f"{100 * funnel['yield']:.0f} %", style="bold")])
    show_table(("style", *shown, "yield"), rows, console)
    if idle:
        say(f"no sample was lost by: {', '.join(idle)}", console)
    for funnel in funnels:
        if len(funnel.get("attempts", [])) > 1:
            made = " + ".join(str(count) for count in funnel["attempts"])
            say(f"{funnel['style']} made in {len(funnel['attempts'])} attempts: {made}", console)
        if funnel["reasons"]:
            say(f"{funnel['style']} lost: {told_reasons(funnel)}", console)
    if not all(funnel["current"] for funnel in funnels):
        say("* of an earlier selection; stillroom plan says what is to be made again", console)


def _count(left: int | None, before: int | None) -> Text:
    return Text("-" if left is None else str(left), style="dim" if left == before else "")


def status_table(document: Document, console: Console) -> None:
    """Print stages, the yield of each style, runs, and where everything is."""
    rows = []
    for row in document["stages"]:
        counts = [str(row[name]) for name in ("partitions", "cached", "samples", "rejected")]
        rows.append([row["stage"], *counts, f"{row['bytes'] / 1e6:.1f}"])
    show_table(("stage", "partitions", "cached", "samples", "rejected", "MB"), rows, console)
    console.print()
    if document["funnels"]:
        funnel_table(document["funnels"], console)
        console.print()
    for key, message in document["failed"].items():
        say(f"failed: {key}: {message}", console)
    runs = [
        [run["flow"], state, screen.when(run["began"]), "", f"at {run['stage'] or 'its start'}"]
        for state in ("running", "killed")
        for run in document[state]
    ]
    runs += [
        [run["flow"], run["state"], screen.when(run["ended"]), f"{run['seconds']:.0f}", run["stage"] or ""]
        for run in document["runs"]
    ]
    below = [
        {"process": f"{run['pid']} on {run['host']}"} for state in ("running", "killed") for run in document[state]
    ] + [{} for _ in document["runs"]]
    if runs:
        show_table(("last run", "state", "time", "seconds", "stage"), runs, console, below)
        console.print()
    up = {name: url for name, url in document["services"].items() if url}
    found = {
        "data root": document["data_root"],
        "dataset": document["dataset"] or "none of these settings yet: stillroom build",
        "student": document["student"] or "none of these settings yet: stillroom distill",
        "services": up or "none is up: make up",
    }
    fields(found, console)


def verify_table(document: Document, console: Console) -> None:
    """Print the counts, and each damaged partition with its files below."""
    console.print(f"{counted(document['checked'], 'partition')} checked, {len(document['damaged'])} damaged")
    _damage(document["damaged"], console)
    if document["damaged"]:
        screen.next_steps(console, {"stillroom repair": "make exactly these again"})


def _damage(rows: list[Document], console: Console) -> None:
    for row in rows:
        say(f"{row['partition']}: {row['problem']}", console)
        for name in ("folder", "file"):
            if row.get(name):
                line(f"    {row[name]}", console)


def repair_table(document: Document, console: Console) -> None:
    counts = {name: len(document[name]) for name in ("damaged", "repaired", "snapshots", "changed", "left")}
    fields({"checked": document["checked"], **counts, "seconds": document["seconds"]}, console)
    for key in [*document["repaired"], *document["snapshots"]]:
        changed = "   (other bytes than before: what depends on it runs with the next build)"
        say(f"made again  {key}{changed if key in document['changed'] else ''}", console)
    if document["left"]:
        say("left, because these settings do not make it: repair with those that did, or remove it", console)
        _damage(document["left"], console)


def rehearsal_table(document: Document, console: Console) -> None:
    """Print the time and output of each stage, then the problems."""
    rows = [row | {"CPU s": row["cpu_seconds"], "peak GB": row["peak_gb"]} for row in document["stages"]]
    show_rows(rows, ("stage", "seconds", "CPU s", "peak GB", "made"), console)
    for row in document["stages"]:
        for problem in row["problems"]:
            say(f"{row['stage']}: {problem}", console)
    fields({name: document[name] for name in ("ok", "seconds", "cpu_seconds", "peak_gb")}, console)


def doctor_table(document: Document, console: Console) -> None:
    """Print a row for each check, and a hint below the row where there is one."""
    rows = [[row[name] for name in ("check", "state", "found")] for row in document["checks"]]
    hints = [{"hint": row["hint"] or ""} for row in document["checks"]]
    show_table(("check", "state", "found"), rows, console, hints)


def waste_table(document: Document, console: Console) -> None:
    """Print the deletable folders, a row for each stage and style, and the kept ones."""
    _rows(document["items"], console)
    _kept_lines(document["kept"], console)
    if not document["items"]:
        say("nothing to delete", console)


def deleted_table(document: Document, console: Console) -> None:
    """Print the deleted folders, a row for each stage and style, and the kept ones."""
    _rows([item for item in document["items"] if item["deleted"]], console)
    _kept_lines(document["kept"], console)
    deleted_lines(document, console)


def deleted_lines(document: Document, console: Console) -> None:
    """Print the numbers of deleted and remaining folders."""
    if not document["items"]:
        say("nothing to delete", console)
        return
    say(f"deleted {document['deleted']} folders with {document['deleted_bytes'] / 1e6:.1f} MB", console)
    left = len(document["items"]) - document["deleted"]
    if left:
        say(f"{left} folders were left: they changed meanwhile, or are being worked on", console)


def amount(document: Document) -> str:
    """Return the number and size of the findings."""
    return f"{len(document['items'])} folders with {document['bytes'] / 1e6:.1f} MB"


def _rows(items: list[Document], console: Console) -> None:
    from flows.care.collect import grouped

    if items:
        screen.show_rows(grouped(items), ("what", "where", "folders", "MB", "why"), console)


def _kept_lines(kept: Document, console: Console) -> None:
    say(f"kept: {counted(kept['partitions'], 'partition')}, {kept['bytes'] / 1e6:.1f} MB", console)
    for digest in kept["datasets"]:
        say(f"dataset {digest[:16]} stays: {'; '.join(kept['why'][digest])}", console)
