"""What would run, and why."""

from typing import Annotated

import typer

from flows.cli import screen
from flows.cli.options import Force, Json, Overrides, Profile

app = typer.Typer(rich_markup_mode=None)


@app.command()
def plan(
    partitions: Annotated[bool, typer.Option("--partitions", help="List every partition with its reasons.")] = False,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what would run, why, and what it costs, without running anything."""
    from flows.ask.memo import recall
    from flows.cli.plan_tables import plan_table

    document = None if force or partitions else recall(profile, overrides or [])
    if document is None:
        from flows.ask.missing import outlook
        from flows.ask.plan import describe_plan

        document = outlook(profile, overrides or []) or describe_plan(profile, overrides or [], force or [], partitions)
    screen.show(document, as_json, screen.outlook_table if "missing" in document else plan_table)


@app.command()
def why(
    partition: Annotated[str, typer.Argument(help="For example edit/bronze-statue/0003.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say why one partition would run: each input of its fingerprint, then and now."""
    from flows.ask.why import explain_partition
    from flows.cli.plan_tables import why_table

    screen.show(explain_partition(partition, profile, overrides or []), as_json, why_table)


@app.command()
def accept(
    stage: Annotated[str, typer.Argument(help="The stage whose partitions stay valid.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Declare a stage's partitions valid for its changed code, as after a refactoring."""
    from flows.ask.why import accept_stage

    screen.show(accept_stage(stage, profile, overrides or []), as_json, screen.fields)
