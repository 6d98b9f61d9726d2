"""The flows: build, distil, evaluate, here or through Prefect."""

from typing import Annotated

import typer

from flows.cli import screen
from flows.cli.options import Cluster, DatasetName, Force, Json, Overrides, Profile, StudentName

app = typer.Typer(rich_markup_mode=None)


@app.command()
def build(
    force: Force = None,
    cluster: Cluster = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build the dataset in this process: portraits to a snapshot, computing only what changed."""
    with screen.only_results_on_stdout():
        from flows.ask.memo import remember
        from flows.run.engine import run_here

        outcome = run_here("build-dataset", profile, overrides or [], cluster=cluster, force=force)
        remember(profile, overrides or [])
    screen.show(outcome, as_json, screen.fields)


@app.command()
def distill(
    dataset: DatasetName = None,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train the student from a dataset, unless it is there already."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        outcome = run_here("distill", profile, overrides or [], dataset=dataset, force=force)
    screen.show(outcome, as_json, screen.fields)


@app.command()
def evaluate(
    student: StudentName = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name or digest of a dataset of other portraits.  [default: the student's]")
    ] = None,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Evaluate a student on held-out portraits and prompts against its teachers."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        outcome = run_here("evaluate", profile, overrides or [], student=student, dataset=dataset, force=force)
    screen.show(outcome, as_json, screen.evaluation_table)


@app.command()
def run(
    flow: Annotated[str, typer.Argument(help="A deployed flow, such as build-dataset, distill or adapt-style.")],
    parameters: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Of the flow, such as style=bald.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Serve the deployments from here, though another checkout does.")
    ] = False,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Trigger a flow's Prefect deployment of the profile (the server must be up: make up)."""
    with screen.only_results_on_stdout():
        from flows.run.engine import trigger

        outcome = trigger(flow, profile, overrides or [], watch, force or [], parameters or [], take_over)
    screen.show(outcome, as_json, screen.fields)
    if outcome["state"] in ("FAILED", "CRASHED", "CANCELLED"):
        raise typer.Exit(1)


@app.command()
def retry(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Run only what failed in the last run of this profile, and what waited for it."""
    with screen.only_results_on_stdout():
        from flows.care.retry import retry as try_again

        outcome = try_again(profile, overrides or [])
    screen.show(outcome, as_json, screen.evaluation_table if "per_style" in outcome else screen.fields)
