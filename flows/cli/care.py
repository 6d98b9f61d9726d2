"""The store: what is there, whether it is whole, what can go; and this machine."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

app = typer.Typer(rich_markup_mode=None)


@app.command()
def status(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Say what there is: partitions, snapshots, the last runs, services."""
    from flows.ask.plan import describe_status

    screen.show(describe_status(profile, overrides or []), as_json, screen.status_table)


@app.command()
def models(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """List the models of the profile's world and whether their weights are there."""
    from flows.ask.plan import describe_models

    screen.show(describe_models(profile, overrides or []), as_json, screen.models_table)


@app.command()
def verify(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Hash every file of every live record again and check keys, fields and splits."""
    from flows.ask.plan import verify_store

    document = verify_store(profile, overrides or [])
    screen.show(document, as_json, screen.verify_table)
    if document["damaged"]:
        raise typer.Exit(1)


@app.command()
def repair(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Verify, make exactly the damaged partitions again, and rebuild the index."""
    with screen.only_results_on_stdout():
        from flows.run.engine import run_here

        document = run_here("repair", profile, overrides or [])
    screen.show(document, as_json, screen.repair_table)
    if document["left"]:
        raise typer.Exit(1)


@app.command()
def gc(
    last: Annotated[int, typer.Option(min=0, help="Newest snapshots to keep, beside the latest.")] = 3,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET", help="Digest of a dataset to keep, or the name of its student; may be repeated."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it, without a question.")] = False,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what nothing refers to any more, and delete it: with --yes, or, on a terminal, after a question."""
    from flows.care import collect
    from flows.cli import waste_tables

    look = partial(collect.look_for_waste, profile, overrides or [], last, keep or [])
    findings = look()
    if as_json or yes:
        deleted = collect.delete(findings) if yes else None
        screen.show(collect.describe(findings, deleted), as_json, waste_tables.deleted_table)
        return
    found = collect.describe(findings, None)
    screen.show(found, False, waste_tables.waste_table)
    if not findings.items:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        typer.echo(f"{waste_tables.amount(found)} may go; delete them with --yes")
    elif typer.confirm(f"Delete {waste_tables.amount(found)}?", default=False):
        findings = collect.both(findings, look())
        screen.show(collect.describe(findings, collect.delete(findings)), False, waste_tables.deleted_lines)
    else:
        typer.echo("nothing was deleted")


@app.command()
def doctor(
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
    parity: Annotated[
        Path | None, typer.Option(help="Instead, run every golden case in this folder: largest relative errors.")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Instead, take two portraits through every stage, on the CPU.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Rehearse with random networks of the paper's size.")
    ] = False,
) -> None:
    """Check this machine: packages, device, weights, disk, services."""
    if parity is not None:
        with screen.only_results_on_stdout():
            from flows.care.doctor import run_parity

            errors = run_parity(parity)
        screen.show(errors, as_json, screen.parity_table)
        return
    if rehearse or random_weights:
        with screen.only_results_on_stdout():
            from flows.care.rehearsal import rehearse as take_portraits_through

            document = take_portraits_through(profile, overrides or [], random_weights)
        screen.show(document, as_json, screen.rehearsal_table)
        raise typer.Exit(0 if document["ok"] else 1)
    with screen.only_results_on_stdout():
        from flows.care.doctor import examine

        document = examine(profile, overrides or [])
    screen.show(document, as_json, screen.doctor_table)
    if not document["ok"]:
        raise typer.Exit(1)
