"""What a person sees of `gc`: what nothing refers to, what was deleted, what stays and why."""

from typing import Any

from rich.console import Console

from flows.care.collect import grouped
from flows.cli import screen

Document = dict[str, Any]


def waste_table(document: Document, console: Console) -> None:
    """What nothing refers to, one row a stage and style, and what stays."""
    _rows(document["items"], console)
    _kept_lines(document["kept"], console)
    if not document["items"]:
        _line("nothing to delete", console)


def deleted_table(document: Document, console: Console) -> None:
    """What was deleted, one row a stage and style, and what stays."""
    _rows([item for item in document["items"] if item["deleted"]], console)
    _kept_lines(document["kept"], console)
    deleted_lines(document, console)


def deleted_lines(document: Document, console: Console) -> None:
    """How much was deleted, and how much of what was found was not."""
    if not document["items"]:
        _line("nothing to delete", console)
        return
    _line(f"deleted {document['deleted']} folders with {document['deleted_bytes'] / 1e6:.1f} MB", console)
    left = len(document["items"]) - document["deleted"]
    if left:
        _line(f"{left} folders were left: they changed meanwhile, or are being worked on", console)


def amount(document: Document) -> str:
    """How much was found."""
    return f"{len(document['items'])} folders with {document['bytes'] / 1e6:.1f} MB"


def _rows(items: list[Document], console: Console) -> None:
    if items:
        screen._rows(grouped(items), ("what", "where", "folders", "MB", "why"), console)


def _kept_lines(kept: Document, console: Console) -> None:
    _line(f"kept: {kept['partitions']} partitions, {kept['bytes'] / 1e6:.1f} MB", console)
    for digest in kept["datasets"]:
        _line(f"dataset {digest[:16]} stays: {'; '.join(kept['why'][digest])}", console)


def _line(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
