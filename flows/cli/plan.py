"""Commands that show the plan and its reasons."""

from typing import Annotated, Any

import typer
from rich.console import Console

from data_catalog.workspace import Workspace
from flows.ask.funnels import kept_line
from flows.cli import screen
from flows.cli.completion import complete_partition, complete_stage
from flows.cli.options import Force, Json, Overrides, Profile
from flows.cli.screen import Document, say, show_table
from tasks.sources.names import counted

REASONS_SHOWN = 2  # of a stage, most frequent first

app = typer.Typer(rich_markup_mode=None)


@app.command()
def plan(
    partitions: Annotated[bool, typer.Option("--partitions", help="List every partition with its reasons.")] = False,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show what would run, why, and at what price; run nothing."""
    from flows.ask.missing import outlook
    from flows.ask.plan import describe_plan

    document = outlook(profile, overrides or []) or describe_plan(profile, overrides or [], force or [], partitions)
    screen.show(document, as_json, outlook_table if "missing" in document else plan_table)


@app.command()
def why(
    partition: Annotated[
        str, typer.Argument(help="For example edit/bronze-statue/0003.", autocompletion=complete_partition)
    ],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show why one partition would run: each input, then and now."""
    from flows.ask.why import explain_partition

    screen.show(explain_partition(partition, Workspace.open(profile, overrides)), as_json, why_table)


@app.command()
def accept(
    stage: Annotated[str, typer.Argument(help="The stage whose partitions stay valid.", autocompletion=complete_stage)],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Keep the partitions of a stage whose code changed. They count as made by it, as after a refactoring."""
    from flows.ask.why import accept_stage

    screen.show(accept_stage(stage, Workspace.open(profile, overrides)), as_json, accepted_lines)


def accepted_lines(document: Document, console: Console) -> None:
    """Print how many partitions stay valid, and the code that changed."""
    stage, accepted, already = (document[name] for name in ("stage", "accepted", "already_valid"))
    say(f"{stage}: {counted(accepted, 'partition')} accepted, {already} were valid already", console)
    for change in document["changed"]:
        say(change, console, indent=2)
    screen.next_steps(console, {"stillroom plan": "what is left to make"})


def outlook_table(document: Document, console: Console) -> None:
    """Print a forecast, and the files that are missing."""
    rows = []
    for row in document["stages"]:
        price = row["price"]
        hours, size = f"{price['seconds'] / 3600:.2f}", f"{price['bytes'] / 1e9:.2f}"
        rows.append([row["stage"], str(price["partitions"]), str(price["samples"]), hours, size])
    show_table(("stage", "partitions", "samples", "GPU hours", "GB"), rows, console)
    total = f"{document['gpu_hours']:.0f} GPU hours and {document['estimate']['bytes'] / 1e9:.0f} GB of disk"
    say(f"in all about {total}, forecast at {document['forecast']}", console)
    for note in document["notes"]:
        say(note, console)
    console.print("\nstill missing")
    for row in document["missing"]:
        say(row["what"], console, indent=2)
        say(f"where: {row['where']}", console, indent=4)
        say(f"get: {row['get']}", console, indent=4)


def plan_table(document: dict[str, Any], console: Console) -> None:
    """Print the stages with their counts and prices, the reasons, then each partition if wanted, then the sum."""
    rows = [
        [row["stage"], *(str(row[name]) for name in ("partitions", "cached", "run", "maybe")), *_price_cells(row)]
        for row in document["stages"]
    ]
    show_table(("stage", "partitions", "cached", "run", "maybe", "samples", "seconds", "MB"), rows, console)
    _reasons(document["stages"], console)
    for step in document.get("partitions", []):
        say(f"{step['state']:<7} {step['partition']:<32} {'; '.join(step['reasons'])}", console)
    for note in document.get("notes", []):
        say(note, console)
    if document.get("funnels"):
        say(kept_line(document["funnels"]), console)
    say(document["summary"], console)


def _reasons(stages: list[Document], console: Console) -> None:
    """Print the reasons of each stage, and those that several stages share once."""
    told: dict[str, list[str]] = {}
    for row in stages:
        if row["reasons"]:
            more = len(row["reasons"]) - REASONS_SHOWN
            words = row["reasons"][:REASONS_SHOWN] + ([f"{more} more (--json)"] if more > 0 else [])
            told.setdefault("; ".join(words), []).append(row["stage"])
    if told:
        console.print("why")
    for why, names in told.items():
        say(f"{', '.join(names)}: {why}", console, indent=2)


def _price_cells(row: dict[str, Any]) -> list[str]:
    """Return samples, seconds and MB of the partitions that run; those that may run are in brackets.

    A `~` marks what was measured with other settings.
    """
    price, maybe = row["price"], row["price_maybe"]
    shown, form = (price, "{}") if price["partitions"] else (maybe, "({})")
    if not shown["partitions"]:
        return ["", "", ""]
    about = "~" if shown["scaled"] else ""
    cells = [str(shown["samples"]), f"{about}{_seconds(shown)}", f"{about}{shown['bytes'] / 1e6:.1f}"]
    return [form.format("?" if number and shown["unknown"] else cell) for number, cell in enumerate(cells)]


def _seconds(price: dict[str, Any]) -> str:
    return f"{price['seconds']:.0f}" if price["seconds"] >= 1 else f"{price['seconds']:.1f}"


def why_table(document: dict[str, Any], console: Console) -> None:
    """Print the differences first, then every input; an input that is the same on both sides has one value."""
    console.print(f"{document['partition']}: {document['state']}")
    for change in document["changed"]:
        pair = "" if change["then"] is None and change["now"] is None else f": {change['then']} -> {change['now']}"
        say(f"{change['what']}{pair}", console, indent=2)
    if document["note"]:
        say(document["note"], console, indent=2)
    past = document["compared_with"]
    if past is not None:
        made = f"made {screen.when(past['created'])} on {past['device']} in {past['seconds']:.1f} s"
        say(f"{made}: {counted(past['samples'], 'sample')}, {past['bytes'] / 1e6:.1f} MB", console)
        screen.line(f"  {past['folder']}", console)
    console.print()
    rows = [[row["what"], _value(row)] for row in document["inputs"]]
    show_table(("input", "value"), rows, console)


def _value(row: Document) -> str:
    then, now = screen.shown(row["then"]), screen.shown(row["now"])
    return now if row["same"] else f"{then} -> {now}"
