"""Two datasets, or two runs, beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

app = typer.Typer(rich_markup_mode=None)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="DATASET", help="Its digest (or the beginning), latest, or its folder.")],
    b: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="The other one.  [default: the one of the settings]")
    ] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what differs between two datasets: samples, scores by style, settings."""
    from flows.ask.dataset_comparison import diff_datasets
    from flows.cli.comparison_tables import diff_table

    screen.show(diff_datasets(a, b, page, profile, overrides or []), as_json, diff_table)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help="An MLflow run's id (or its beginning), name, or latest.")],
    b: Annotated[str, typer.Argument(metavar="RUN", help="The other one, which it is compared with.")] = "latest",
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what differs between two runs: settings, datasets, metrics, and what their students draw."""
    with screen.only_results_on_stdout():
        from flows.ask.run_comparison import compare_runs
        from flows.cli.comparison_tables import compare_table

        document = compare_runs(a, b, page, profile, overrides or [])
    screen.show(document, as_json, compare_table)
