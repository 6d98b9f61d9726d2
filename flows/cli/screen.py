"""Tables and lines for the terminal, one rendering per document. `--json` prints the document itself instead."""

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.text import Text

from data_catalog.config.plain_text import printable_document

Document = dict[str, Any]
Cell = str | Text
Render = Callable[[Document, Console], None]

GAP = 2  # columns between two cells
WORDS_LEAST = 24  # narrowest column of words, characters; a narrower one goes into a block of its own
LABEL = 18  # characters of a field's name
SHORT = 16  # characters of a digest for a person; all commands take it, and it names the folder
DIGEST = re.compile(r"[0-9a-f]{64}")
NUMBER = re.compile(r"[-+(~]*[\d.,]+( ?%)?[)?]? ?|[-?]| ?")


def show_flow(
    flow_name: str,
    profile: str,
    overrides: list[str] | None,
    as_json: bool,
    render: Render,
    **parameters: Any,
) -> Document:
    """Run a flow in this process and show its outcome, which is returned."""
    with only_results_on_stdout():
        from flows.run.engine import run_here

        outcome = run_here(flow_name, profile, overrides or [], **parameters)
    show(outcome, as_json, render)
    return outcome


def show(document: Document, as_json: bool, render: Render) -> None:
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


def line(text: Cell, console: Console) -> None:
    """Print a line that the program does not break: a path, a digest, a command."""
    console.print(text, soft_wrap=True)


def say(text: str, console: Console, indent: int = 0) -> None:
    """Print a sentence, wrapped between words: a path or a key stays whole. Further lines are indented by 2 more."""
    for each in _wrapped(text, console.width, " " * indent, " " * (indent + 2)):
        line(each, console)


def _wrapped(text: str, width: int, first: str = "", further: str = "") -> list[str]:
    wrapper = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text) or [""]


def fields(document: Document, console: Console) -> None:
    """Print a field a line. Fields of a field are indented, rows become a table, and a digest its beginning."""
    for name, value in document.items():
        _field(name.replace("_", " "), value, console, 0)


def _field(name: str, value: Any, console: Console, indent: int) -> None:
    label = " " * indent + f"{name:<{LABEL - indent}} "
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        line(label.rstrip(), console)
        show_rows(value, tuple(value[0]), console)
    elif isinstance(value, dict) and value:
        line(label.rstrip(), console)
        for key, each in value.items():
            _field(str(key).replace("_", " "), each, console, indent + 2)
    else:
        for number, each in enumerate(value if isinstance(value, list) and value else [value]):
            line((" " * len(label) if number else label) + shown(each), console)


def next_steps(console: Console, commands: dict[str, str]) -> None:
    """Print commands that go on from here, each with what it does."""
    console.print("\nnext")
    width = max(map(len, commands))
    if width + max(map(len, commands.values())) + len("     # ") > console.width:
        width = 0
    for command, does in commands.items():
        line(f"  {command:<{width}}   # {does}", console)


def when(moment: str) -> str:
    """Return an ISO time to the minute."""
    return moment[:16].replace("T", " ")


def show_rows(rows: list[Document], columns: tuple[str, ...], console: Console) -> None:
    """Print these columns of documents as a table."""
    heads = [name.replace("_", " ") for name in columns]
    show_table(heads, [[shown(row.get(name)) for name in columns] for row in rows], console)


def shown(value: Any) -> str:
    """Return a value as a person reads it: a number with four digits, a digest by its beginning."""
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return text[:SHORT] if DIGEST.fullmatch(text) else text


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    console: Console,
    below: Sequence[dict[str, str]] | None = None,
) -> None:
    """Print rows under a head, numbers to the right. No cell is cut or broken within a word.

    Heads, and words of the last column, go on in further lines where the table is too wide. Columns that still find no
    room go on in a block of their own, below, which repeats the first one.  below: named texts under each row.
    """
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    numeric = [all(NUMBER.fullmatch(row[place].plain) for row in cells) for place in range(len(columns))]
    own = [max((row[place].cell_len for row in cells), default=0) for place in range(len(columns))]
    widths = [max(pair) for pair in zip(own, map(len, columns), strict=True)]
    for most in (2, 3):  # lines of a head
        if sum(widths) + GAP * (len(widths) - 1) > console.width:
            widths = [max(width, _narrowest(head, most)) for width, head in zip(own, columns, strict=True)]
    blocks = _blocks(widths, numeric, console.width)
    heads = [_lines(Text(head, "bold"), width) for head, width in zip(columns, widths, strict=True)]
    deep = max(map(len, heads))
    heads = [[Text()] * (deep - len(head)) + head for head in heads]
    for number, block in enumerate(blocks):
        if number:
            console.print()
        _row(heads, block, widths, numeric, console)
        for place, row in enumerate(cells):
            lines = [_lines(cell, width) for cell, width in zip(row, widths, strict=True)]
            _row(lines, block, widths, numeric, console)
            for name, text in (below[place] if below and number == len(blocks) - 1 else {}).items():
                if text:
                    say(f"{name}: {text}", console, indent=4)


def _narrowest(head: str, lines: int) -> int:
    """Return the width of a head that is broken between words into so many lines at most."""
    least = max(map(len, head.split()), default=0)
    return next(width for width in range(least, len(head) + 1) if len(_wrapped(head, max(width, 1))) <= lines)


def _blocks(widths: list[int], numeric: list[bool], room: int) -> list[list[int]]:
    """Return the places of the columns that stand beside each other; a last column of words gets the width left."""
    blocks, used = [[0]], widths[0]
    for place in range(1, len(widths)):
        if place == len(widths) - 1 and not numeric[place] and room - used - GAP >= WORDS_LEAST:
            widths[place] = min(widths[place], room - used - GAP)
        elif used + GAP + widths[place] > room and blocks[-1] != [0]:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(place)
        used += GAP + widths[place]
    return blocks


def _lines(cell: Text, width: int) -> list[Text]:
    return [cell] if cell.cell_len <= width else [Text(each, cell.style) for each in _wrapped(cell.plain, width)]


def _row(cells: list[list[Text]], block: list[int], widths: list[int], numeric: list[bool], console: Console) -> None:
    for number in range(max(len(cells[place]) for place in block)):
        text = Text()
        for place in block:
            cell = cells[place][number] if number < len(cells[place]) else Text()
            space = Text(" " * (widths[place] - cell.cell_len))
            text += (space + cell if numeric[place] else cell + space) + " " * GAP
        text.rstrip()
        line(text, console)
