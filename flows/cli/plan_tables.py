"""What a person sees of a plan and of one partition."""

from typing import Any

from rich.console import Console

from flows.ask.funnels import kept_line
from flows.cli import screen

REASONS_SHOWN = 2  # of a stage, most frequent first


def plan_table(document: dict[str, Any], console: Console) -> None:
    """Stages with their counts and prices, then each partition if asked for, then the sum."""
    table = screen._table("stage", "partitions", "cached", "run", "maybe", "samples", "seconds", "MB", "why")
    for row in document["stages"]:
        counts = [str(row[name]) for name in ("partitions", "cached", "run", "maybe")]
        table.add_row(row["stage"], *counts, *_price_cells(row), "; ".join(row["reasons"][:REASONS_SHOWN]))
    console.print(table)
    for step in document.get("partitions", []):
        why = "; ".join(step["reasons"])
        console.print(f"{step['state']:<7} {step['partition']:<32} {why}".rstrip(), markup=False, highlight=False)
    for note in document.get("notes", []):
        console.print(note, markup=False, highlight=False)
    if document.get("funnels"):
        console.print(kept_line(document["funnels"]), markup=False, highlight=False)
    console.print(_sum(document), markup=False, highlight=False)


def _price_cells(row: dict[str, Any]) -> list[str]:
    """Samples, seconds and MB of what runs; of what only may run, in brackets."""
    price, maybe = row["price"], row["price_maybe"]
    shown, form = (price, "{}") if price["partitions"] else (maybe, "({})")
    if not shown["partitions"]:
        return ["", "", ""]
    cells = [str(shown["samples"]), _seconds(shown), f"{shown['bytes'] / 1e6:.1f}"]
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
    return ", ".join(words) + unknown


def _seconds(price: dict[str, Any]) -> str:
    return f"{price['seconds']:.0f}" if price["seconds"] >= 1 else f"{price['seconds']:.1f}"


def why_table(document: dict[str, Any], console: Console) -> None:
    """What changed first, then every input; an input that is the same on both sides has one value."""
    console.print(f"{document['partition']}: {document['state']}", markup=False, highlight=False)
    for change in document["changed"]:
        pair = "" if change["then"] is None and change["now"] is None else f": {change['then']} -> {change['now']}"
        console.print(f"  {change['what']}{pair}", markup=False, highlight=False)
    if document["note"]:
        console.print(f"  {document['note']}", markup=False, highlight=False)
    past = document["compared_with"]
    if past is not None:
        made = f"made {past['created']} on {past['device']} in {past['seconds']:.1f} s: {past['samples']} samples"
        console.print(
            f"{made}, {past['bytes']} bytes\n  {past['folder']}", markup=False, highlight=False, soft_wrap=True
        )
    table = screen._table("input", "then", "now")
    for row in document["inputs"]:
        now = "same" if row["same"] else _shown(row["now"])
        table.add_row(row["what"], _shown(row["then"]), now)
    console.print(table)


def _shown(value: str | None) -> str:
    return "-" if value is None else value
