"""What students and datasets there are, and names for students."""

from typing import Annotated

import typer

from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

app = typer.Typer(rich_markup_mode=None)


@app.command()
def students(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """List the students: names, settings that differ from the profile, measures, what uses them."""
    from flows.ask.shelf import describe_students
    from flows.cli.shelf_tables import students_table

    screen.show(describe_students(profile, overrides or []), as_json, students_table)


@app.command()
def datasets(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """List the datasets: settings that differ from the profile, samples, students that learned from them."""
    from flows.ask.shelf import describe_datasets
    from flows.cli.shelf_tables import datasets_table

    screen.show(describe_datasets(profile, overrides or []), as_json, datasets_table)


@app.command()
def promote(
    student: Annotated[str, typer.Argument(help="Name or digest of a student (or its beginning), or latest.")],
    name: Annotated[str, typer.Argument(help="Such as champion; another student that has the name loses it.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Give a student a name, which --student takes from then on, and --dataset for what it learned from."""
    with screen.only_results_on_stdout():
        from flows.ask.shelf import promote as give_name
        from flows.cli.shelf_tables import promoted_lines

        document = give_name(student, name, profile, overrides or [])
    screen.show(document, as_json, promoted_lines)
