"""Commands for the store and this machine: state, verification, repair, deletion, checks."""

import sys
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_catalog.workspace import Workspace
from flows.ask.funnels import Document, told_reasons
from flows.cli import screen
from flows.cli.completion import complete_dataset
from flows.cli.options import Json, Overrides, Profile
from flows.cli.screen import fields, make_table, show_rows

app = typer.Typer(rich_markup_mode=None)


@app.command()
def status(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Show the state: partitions, snapshots, the last runs, services."""
    from flows.care.status import describe_status

    screen.show(describe_status(Workspace.open(profile, overrides)), as_json, status_table)


@app.command()
def verify(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Hash every file of every live record again and check keys, fields and splits."""
    from flows.care.verify import verify_store

    document = verify_store(Workspace.open(profile, overrides))
    screen.show(document, as_json, verify_table)
    if document["damaged"]:
        raise typer.Exit(1)


@app.command()
def repair(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Verify, make exactly the damaged partitions again, and rebuild the index."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        document = run_here("repair", profile, overrides or [])
    screen.show(document, as_json, repair_table)
    if document["left"]:
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
    """List folders that nothing refers to, and delete them: with --yes or, on a terminal, after a question."""
    from flows.care import collect

    workspace = Workspace.open(profile, overrides)
    look = partial(collect.look_for_waste, workspace, last, keep or [])
    findings = look()
    if as_json or yes:
        deleted = collect.delete(workspace, findings) if yes else None
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
        screen.show(collect.describe(findings, collect.delete(workspace, findings)), False, deleted_lines)
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
    """Check this machine: packages, device, weights, disk, services."""
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
    """Print a row for each style. Steps that lost nothing are dim; the most frequent reasons follow at the end."""
    steps = list(dict.fromkeys(each["step"] for funnel in funnels for each in funnel["steps"]))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("style", no_wrap=True)
    for name in [*steps, "yield"]:
        table.add_column(name, justify="right")
    for funnel in funnels:
        left = {each["step"]: each["left"] for each in funnel["steps"]}
        cells = [_count(left.get(name), left.get(before)) for before, name in zip(["", *steps], steps, strict=False)]
        name = funnel["style"] + ("" if funnel["current"] else " *")
        table.add_row(name, *cells, Text(f"{100 * funnel['yield']:.0f} %", style="bold"))
    console.print(table)
    for funnel in funnels:
        if len(funnel.get("attempts", [])) > 1:
            made = " + ".join(str(count) for count in funnel["attempts"])
            console.print(f"{funnel['style']} made in {len(funnel['attempts'])} attempts: {made}")
        if funnel["reasons"]:
            lost = f"{funnel['style']} lost: {told_reasons(funnel)}"
            console.print(lost, soft_wrap=True)
    if not all(funnel["current"] for funnel in funnels):
        console.print("* of an earlier selection; stillroom plan says what is to be made again")


def _count(left: int | None, before: int | None) -> Text:
    return Text("-" if left is None else str(left), style="dim" if left == before else "")


def status_table(document: Document, console: Console) -> None:
    table = make_table("stage", "partitions", "cached", "samples", "rejected", "MB")
    for row in document["stages"]:
        counts = [str(row[name]) for name in ("partitions", "cached", "samples", "rejected")]
        table.add_row(row["stage"], *counts, f"{row['bytes'] / 1e6:.1f}")
    console.print(table)
    if document["funnels"]:
        console.print()
        funnel_table(document["funnels"], console)
        console.print()
    for key, message in document["failed"].items():
        console.print(f"failed: {key}: {message}", soft_wrap=True)
    for state in ("running", "killed"):
        for run in document[state]:
            place = f"at {run['stage'] or 'its start'}, since {run['began']}, process {run['pid']} on {run['host']}"
            console.print(f"{run['flow']:<14} {state:<10} {place}", soft_wrap=True)
    for note in document["runs"]:
        place = f"  at {note['stage']}" if note["stage"] else ""
        console.print(f"{note['flow']:<14} {note['state']:<10} {note['ended']}  {note['seconds']:.0f} s{place}")
    fields({name: document[name] for name in ("data_root", "dataset", "student", "services")}, console)


def verify_table(document: Document, console: Console) -> None:
    console.print(f"{document['checked']} partitions checked, {len(document['damaged'])} damaged")
    if document["damaged"]:
        show_rows(document["damaged"], tuple(document["damaged"][0]), console)


def repair_table(document: Document, console: Console) -> None:
    counts = {name: len(document[name]) for name in ("damaged", "repaired", "snapshots", "changed", "left")}
    fields({"checked": document["checked"], **counts, "seconds": document["seconds"]}, console)
    for key in [*document["repaired"], *document["snapshots"]]:
        changed = "   (other bytes than before: what depends on it runs with the next build)"
        console.print(f"made again  {key}{changed if key in document['changed'] else ''}")
    if document["left"]:
        console.print("left, because these settings do not make it: repair with those that did, or remove it")
        show_rows(document["left"], ("partition", "problem", "folder", "file"), console)


def rehearsal_table(document: Document, console: Console) -> None:
    """Print the time and output of each stage, then the problems."""
    rows = [row | {"CPU s": row["cpu_seconds"], "peak GB": row["peak_gb"]} for row in document["stages"]]
    show_rows(rows, ("stage", "seconds", "CPU s", "peak GB", "made"), console)
    for row in document["stages"]:
        for problem in row["problems"]:
            console.print(f"{row['stage']}: {problem}")
    fields({name: document[name] for name in ("ok", "seconds", "cpu_seconds", "peak_gb")}, console)


def doctor_table(document: Document, console: Console) -> None:
    show_rows(document["checks"], ("check", "state", "found", "hint"), console)


def waste_table(document: Document, console: Console) -> None:
    """Print the deletable folders, a row for each stage and style, and the kept ones."""
    _rows(document["items"], console)
    _kept_lines(document["kept"], console)
    if not document["items"]:
        _line("nothing to delete", console)


def deleted_table(document: Document, console: Console) -> None:
    """Print the deleted folders, a row for each stage and style, and the kept ones."""
    _rows([item for item in document["items"] if item["deleted"]], console)
    _kept_lines(document["kept"], console)
    deleted_lines(document, console)


def deleted_lines(document: Document, console: Console) -> None:
    """Print the numbers of deleted and remaining folders."""
    if not document["items"]:
        _line("nothing to delete", console)
        return
    _line(f"deleted {document['deleted']} folders with {document['deleted_bytes'] / 1e6:.1f} MB", console)
    left = len(document["items"]) - document["deleted"]
    if left:
        _line(f"{left} folders were left: they changed meanwhile, or are being worked on", console)


def amount(document: Document) -> str:
    """Return the number and size of the findings."""
    return f"{len(document['items'])} folders with {document['bytes'] / 1e6:.1f} MB"


def _rows(items: list[Document], console: Console) -> None:
    from flows.care.collect import grouped

    if items:
        screen.show_rows(grouped(items), ("what", "where", "folders", "MB", "why"), console)


def _kept_lines(kept: Document, console: Console) -> None:
    _line(f"kept: {kept['partitions']} partitions, {kept['bytes'] / 1e6:.1f} MB", console)
    for digest in kept["datasets"]:
        _line(f"dataset {digest[:16]} stays: {'; '.join(kept['why'][digest])}", console)


def _line(text: str, console: Console) -> None:
    console.print(text, soft_wrap=True)
