"""Commands that list students and datasets, and name students."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.completion import complete_student
from flows.cli.options import Json, Overrides, Profile
from flows.cli.screen import SHORT, Document, line, show_table, when

SETTINGS_SHOWN = 8  # settings listed per row
MEASURES = ("id", "clip", "three_d", "lpips")  # measures of an evaluation, as in the paper's table

app = typer.Typer(rich_markup_mode=None)


@app.command()
def students(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """List the students: names, measures, settings, uses. Settings are those that differ from the profile."""
    from flows.ask.shelf import describe_students

    screen.show(describe_students(Workspace.open(profile, overrides)), as_json, students_table)


@app.command()
def datasets(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """List the datasets: samples, styles, settings, students. Settings are those that differ from the profile."""
    from flows.ask.shelf import describe_datasets

    screen.show(describe_datasets(Workspace.open(profile, overrides)), as_json, datasets_table)


@app.command()
def promote(
    student: Annotated[
        str,
        typer.Argument(
            help="Name or digest of a student (or its beginning), or latest.", autocompletion=complete_student
        ),
    ],
    name: Annotated[str, typer.Argument(help="Name, such as champion; a student that has it loses it.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Give a student a name. For --dataset it stands for the student's dataset."""
    with screen.only_results_on_stdout():
        from flows.ask.shelf import promote as give_name

        document = give_name(student, name, Workspace.open(profile, overrides))
    screen.show(document, as_json, promoted_lines)


def students_table(document: Document, console: Console) -> None:
    """Print a row for each student, the newest first, with its details below."""
    rows = [
        {
            "student": row["digest"][:SHORT],
            "created": when(row["created"]),
            "dataset": row["imported"] or (row["dataset"] or "gone")[:SHORT],
            "names": ", ".join(row["names"]),
        }
        for row in document["students"]
    ]
    below = [
        {"measures": _measures(row), "settings": _settings(row["settings"]), "used by": _uses_of_student(row)}
        for row in document["students"]
    ]
    _show(rows, below, console, document["profile"], none="there is no student yet: stillroom distill")


def datasets_table(document: Document, console: Console) -> None:
    """Print a row for each dataset, the newest first, with its details below."""
    rows = [
        {
            "dataset": row["digest"][:SHORT],
            "created": when(row["created"]),
            "samples": "-" if row["samples"] is None else str(row["samples"]),
            "names": ", ".join(row["names"]),
        }
        for row in document["datasets"]
    ]
    below = [
        {"styles": _styles(row["styles"]), "settings": _settings(row["settings"]), "used by": _uses_of_dataset(row)}
        for row in document["datasets"]
    ]
    _show(rows, below, console, document["profile"], none="there is no dataset yet: stillroom build")


def promoted_lines(document: Document, console: Console) -> None:
    """Print the old and new student of a name, and the change of MLflow's alias."""
    digest, before = document["student"][:SHORT], document["before"]
    moved = (
        f"{document['name']} was {before[:SHORT]} and is now {digest}" if before else f"{document['name']} is {digest}"
    )
    same = f"{document['name']} is {digest}, as before"
    for each in (same if before == document["student"] else moved, *document["mlflow"]):
        line(each, console)


def _show(
    rows: list[dict[str, str]], below: list[dict[str, list[str]]], console: Console, profile: str, none: str
) -> None:
    """Print rows under one head, each followed by its details."""
    if not rows:
        console.print(none)
        return
    details = [{name: ", ".join(words) for name, words in lines.items()} for lines in below]
    show_table(tuple(rows[0]), [list(row.values()) for row in rows], console, details)
    console.print(f"settings: those that differ from the profile {profile}")


def _settings(rows: list[Document]) -> list[str]:
    told = [f"{row['setting']}: {_value(row['value'])} (profile {_value(row['profile'])})" for row in rows]
    more = [f"and {len(told) - SETTINGS_SHOWN} more (--json)"] if len(told) > SETTINGS_SHOWN else []
    return told[:SETTINGS_SHOWN] + more


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _measures(row: Document) -> list[str]:
    """Return the measures of the evaluation, if there is one, then the last ones on the val split."""
    found = row["evaluation"] or {}
    words = [f"{name} {found[name]:.3f}" for name in MEASURES if isinstance(found.get(name), int | float)]
    return words + [f"{name} {value:.3g}" for name, value in row["metrics"].items() if name.startswith("val_")]


def _styles(styles: list[str]) -> list[str]:
    return [f"{len(styles)} ({', '.join(styles)})"] if styles else []


def _uses_of_student(row: Document) -> list[str]:
    words = [f"adapted to {style}" for style in row["adapted_styles"]]
    words += ["evaluation"] if row["evaluation"] else []
    for each in row["model_versions"]:
        words.append(f"{each['name']} version {each['version']}" + "".join(f" @{alias}" for alias in each["aliases"]))
    return words + [f"exported to {folder}" for folder in row["exports"]]


def _uses_of_dataset(row: Document) -> list[str]:
    return ["datasets/latest"] * row["latest"] + [f"student {digest[:SHORT]}" for digest in row["students"]]
