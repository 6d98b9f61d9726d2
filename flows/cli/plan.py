"""Commands that show the plan and its reasons."""

from typing import Annotated, Any

import typer
from rich.console import Console

from data_catalog.workspace import Workspace
from flows.ask.funnels import kept_line
from flows.cli import screen
from flows.cli.completion import complete_partition, complete_stage
from flows.cli.options import Force, Json, Overrides, Profile
from flows.cli.screen import Document, make_table, show_rows

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
    """Show what would run, why, and what it costs, without running anything."""
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
    """Show why one partition would run: each input of its fingerprint, then and now."""
    from flows.ask.why import explain_partition

    screen.show(explain_partition(partition, Workspace.open(profile, overrides)), as_json, why_table)


@app.command()
def accept(
    stage: Annotated[str, typer.Argument(help="The stage whose partitions stay valid.", autocompletion=complete_stage)],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Declare a stage's partitions valid for its changed code, as after a refactoring."""
    from flows.ask.why import accept_stage

    screen.show(accept_stage(stage, Workspace.open(profile, overrides)), as_json, screen.fields)


def outlook_table(document: Document, console: Console) -> None:
    """Print a forecast, and the files that are missing."""
    table = make_table("stage", "partitions", "samples", "GPU hours", "GB")
    for row in document["stages"]:
        price = row["price"]
        hours, size = f"{price['seconds'] / 3600:.2f}", f"{price['bytes'] / 1e9:.2f}"
        table.add_row(row["stage"], str(price["partitions"]), str(price["samples"]), hours, size)
    console.print(table)
    total = f"{document['gpu_hours']:.0f} GPU hours and {document['estimate']['bytes'] / 1e9:.0f} GB of disk"
    console.print(f"in all about {total}, forecast at {document['forecast']}")
    for note in document["notes"]:
        console.print(note)
    console.print("still missing:")
    show_rows(document["missing"], ("what", "where", "get"), console)


def plan_table(document: dict[str, Any], console: Console) -> None:
    """Print the stages with their counts and prices, then each partition if wanted, then the sum."""
    table = screen.make_table("stage", "partitions", "cached", "run", "maybe", "samples", "seconds", "MB", "why")
    for row in document["stages"]:
        counts = [str(row[name]) for name in ("partitions", "cached", "run", "maybe")]
        table.add_row(row["stage"], *counts, *_price_cells(row), "; ".join(row["reasons"][:REASONS_SHOWN]))
    console.print(table)
    for step in document.get("partitions", []):
        why = "; ".join(step["reasons"])
        console.print(f"{step['state']:<7} {step['partition']:<32} {why}".rstrip())
    for note in document.get("notes", []):
        console.print(note, soft_wrap=True)
    if document.get("funnels"):
        console.print(kept_line(document["funnels"]))
    console.print(_sum(document))


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


def _sum(document: dict[str, Any]) -> str:
    run, most = document["estimate"], document["at_most"]
    if not most["partitions"]:
        return "nothing to run"
    more = most["partitions"] > run["partitions"]
    return f"to run: {_price(run)}" + (f"\nat most, if every maybe runs: {_price(most)}" if more else "")


def _price(price: dict[str, Any]) -> str:
    words = [f"{price['partitions']} partitions", f"{price['samples']} samples"]
    words += [f"{price['llm_tokens']} LLM tokens"] if price["llm_tokens"] else []
    words += [f"about {_seconds(price)} s", f"{price['bytes'] / 1e6:.1f} MB"]
    unknown = f" (without {', '.join(price['unknown'])}: never run on this kind of device)" if price["unknown"] else ""
    guessed = price.get("forecast")
    unknown += f" ({', '.join(guessed)}: a forecast, never run on this kind of device)" if guessed else ""
    scaled = price.get("scaled")
    unknown += f" (~ {', '.join(scaled)}: measured with other settings, scaled by their work)" if scaled else ""
    return ", ".join(words) + unknown


def _seconds(price: dict[str, Any]) -> str:
    return f"{price['seconds']:.0f}" if price["seconds"] >= 1 else f"{price['seconds']:.1f}"


def why_table(document: dict[str, Any], console: Console) -> None:
    """Print the differences first, then every input; an input that is the same on both sides has one value."""
    console.print(f"{document['partition']}: {document['state']}")
    for change in document["changed"]:
        pair = "" if change["then"] is None and change["now"] is None else f": {change['then']} -> {change['now']}"
        console.print(f"  {change['what']}{pair}")
    if document["note"]:
        console.print(f"  {document['note']}")
    past = document["compared_with"]
    if past is not None:
        made = f"made {past['created']} on {past['device']} in {past['seconds']:.1f} s: {past['samples']} samples"
        console.print(f"{made}, {past['bytes']} bytes\n  {past['folder']}", soft_wrap=True)
    table = screen.make_table("input", "then", "now")
    for row in document["inputs"]:
        now = "same" if row["same"] else _shown(row["now"])
        table.add_row(row["what"], _shown(row["then"]), now)
    console.print(table)


def _shown(value: str | None) -> str:
    return "-" if value is None else value
