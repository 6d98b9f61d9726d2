"""What a person sees: one table per document. `--json` prints the document itself instead."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.table import Table

Document = dict[str, Any]
EVALUATION_COLUMNS = ("id", "clip", "three_d", "lpips", "l1_changed", "improvement", "seconds_per_image")


def show(document: Document, as_json: bool, render: Callable[[Document, Console], None]) -> None:
    """Print the document as JSON, or as its table."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    else:
        render(document, Console(soft_wrap=False))


@contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Send everything that libraries and child processes print to stderr meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def fields(document: Document, console: Console) -> None:
    """One field a line; nested values as JSON."""
    for name, value in document.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        console.print(f"{name:<18} {text}", markup=False, highlight=False)


def evaluation_table(document: Document, console: Console) -> None:
    """The README's columns, how the student differs, each style; `--json` has the rest."""
    from tasks.evaluation.table import STUDENT, TEACHERS
    from tasks.reports.evaluation import MEASURES, format_value, show_difference

    shown = [measure for measure in MEASURES if measure.name in EVALUATION_COLUMNS]
    table = _table("method", *(measure.title for measure in shown))
    for row in document["table"]:
        table.add_row(row["method"], *(format_value(row.get(measure.name), measure) for measure in shown))
    cells = show_difference(document["difference"], shown)
    for column, cell in zip(table.columns[1:], cells, strict=True):
        column.min_width = max(len("0.0000"), len(cell["text"]) + 1)
    table.add_row("difference *", *(cell["text"] + "?" * bool(cell["text"] and not cell["sure"]) for cell in cells))
    console.print(table)
    console.print("* of the student, edit by edit; ? where its 95 % interval contains 0", highlight=False)
    console.print()
    styles = _table("style", f"{STUDENT} vs no edit", f"{TEACHERS} vs no edit")
    gained = next(measure for measure in MEASURES if measure.name == "improvement")
    for style, rows in sorted(document["per_style"].items()):
        mine = {row["method"]: format_value(row["improvement"], gained) for row in rows}
        styles.add_row(style, mine[STUDENT], mine[TEACHERS])
    console.print(styles)
    names = ("speedup", "timed_editor_steps"), ("speedup_as_edited", "edit_steps")
    times = dict.fromkeys((document[ratio], document[steps]) for ratio, steps in names)
    faster = [f"{ratio:.0f} times at {steps} editor steps" for ratio, steps in times]
    console.print(f"\nas fast as its teachers: {', '.join(faster)}\n", highlight=False)
    told = {name for pair in names for name in pair}
    rest = {name: value for name, value in document.items() if name not in told and not isinstance(value, dict | list)}
    fields(rest, console)


def status_table(document: Document, console: Console) -> None:
    table = _table("stage", "partitions", "cached", "samples", "rejected", "MB")
    for row in document["stages"]:
        counts = [str(row[name]) for name in ("partitions", "cached", "samples", "rejected")]
        table.add_row(row["stage"], *counts, f"{row['bytes'] / 1e6:.1f}")
    console.print(table)
    if document["funnels"]:
        from flows.ask.funnels import funnel_table

        console.print()
        funnel_table(document["funnels"], console)
        console.print()
    for state in ("running", "killed"):
        for run in document[state]:
            place = f"at {run['stage'] or 'its start'}, since {run['began']}, process {run['pid']} on {run['host']}"
            console.print(f"{run['flow']:<14} {state:<10} {place}", highlight=False, soft_wrap=True)
    for note in document["runs"]:
        place = f"  at {note['stage']}" if note["stage"] else ""
        console.print(f"{note['flow']:<14} {note['state']:<10} {note['ended']}  {note['seconds']:.0f} s{place}")
    fields({name: document[name] for name in ("data_root", "dataset", "student", "services")}, console)


def styles_table(document: Document, console: Console) -> None:
    _rows(document["styles"], ("style", "state", "train", "test", "kept", "yield", "seed_prompt"), console)
    if "note" in document:
        console.print(document["note"], markup=False, highlight=False)


def style_check_table(document: Document, console: Console) -> None:
    errors = sum(problem["level"] == "error" for problem in document["problems"])
    console.print(f"{document['checked']} styles in {document['folder']}, {errors} errors", highlight=False)
    if document["problems"]:
        _rows(document["problems"], ("style", "level", "what"), console)


def models_table(document: Document, console: Console) -> None:
    _rows(document["models"], ("model", "state", "bytes", "digest", "source"), console)


def verify_table(document: Document, console: Console) -> None:
    console.print(f"{document['checked']} partitions checked, {len(document['damaged'])} damaged")
    if document["damaged"]:
        _rows(document["damaged"], tuple(document["damaged"][0]), console)


def repair_table(document: Document, console: Console) -> None:
    counts = {name: len(document[name]) for name in ("damaged", "repaired", "snapshots", "changed", "left")}
    fields({"checked": document["checked"], **counts, "seconds": document["seconds"]}, console)
    for key in [*document["repaired"], *document["snapshots"]]:
        changed = "   (other bytes than before: what depends on it runs with the next build)"
        console.print(f"made again  {key}{changed if key in document['changed'] else ''}", highlight=False)
    if document["left"]:
        console.print("left, because these settings do not make it: repair with those that did, or remove it")
        _rows(document["left"], ("partition", "problem", "folder", "file"), console)


def outlook_table(document: Document, console: Console) -> None:
    """A forecast, and what has to be there first."""
    table = _table("stage", "partitions", "samples", "GPU hours", "GB")
    for row in document["stages"]:
        price = row["price"]
        hours, size = f"{price['seconds'] / 3600:.2f}", f"{price['bytes'] / 1e9:.2f}"
        table.add_row(row["stage"], str(price["partitions"]), str(price["samples"]), hours, size)
    console.print(table)
    total = f"{document['gpu_hours']:.0f} GPU hours and {document['estimate']['bytes'] / 1e9:.0f} GB of disk"
    console.print(f"in all about {total}, forecast at {document['forecast']}", markup=False, highlight=False)
    console.print("still missing:", markup=False)
    _rows(document["missing"], ("what", "where", "get"), console)


def rehearsal_table(document: Document, console: Console) -> None:
    """What each stage took and made, then what is wrong."""
    rows = [row | {"CPU s": row["cpu_seconds"], "peak GB": row["peak_gb"]} for row in document["stages"]]
    _rows(rows, ("stage", "seconds", "CPU s", "peak GB", "made"), console)
    for row in document["stages"]:
        for problem in row["problems"]:
            console.print(f"{row['stage']}: {problem}", markup=False, highlight=False)
    fields({name: document[name] for name in ("ok", "seconds", "cpu_seconds", "peak_gb")}, console)


def doctor_table(document: Document, console: Console) -> None:
    _rows(document["checks"], ("check", "state", "found", "hint"), console)


def parity_table(document: Document, console: Console) -> None:
    cases = document["cases"].items()
    rows = [{"case": c, "output": o, "relative error": f"{e:.1e}"} for c, errors in cases for o, e in errors.items()]
    _rows(rows, ("case", "output", "relative error"), console)


def _rows(rows: list[Document], columns: tuple[str, ...], console: Console) -> None:
    table = _table(*columns)
    for row in rows:
        table.add_row(*[_number(row.get(name)) for name in columns])
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    return table


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
