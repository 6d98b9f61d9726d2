"""Tables for the terminal, one per document. `--json` prints the document itself instead."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.table import Table

from data_catalog.config.plain_text import printable_document

Document = dict[str, Any]


def show(document: Document, as_json: bool, render: Callable[[Document, Console], None]) -> None:
    """Print the document as JSON, or as its table."""
    if as_json:
        in_ascii = "utf" not in (sys.stdout.encoding or "utf").lower()
        sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=in_ascii) + "\n")
    else:
        render(printable_document(document), plain_console())


def plain_console(**options: Any) -> Console:
    """Return a console on which text is text: a user's brackets are no markup, and nothing is coloured by its look."""
    return Console(soft_wrap=False, emoji=False, markup=False, highlight=False, **options)


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
    """Print a field a line; nested values as JSON."""
    for name, value in document.items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        console.print(f"{name:<18} {text}", soft_wrap=True)


def show_rows(rows: list[Document], columns: tuple[str, ...], console: Console) -> None:
    table = make_table(*columns)
    for row in rows:
        table.add_row(*[_number(row.get(name)) for name in columns])
    console.print(table)


def make_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    return table


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
