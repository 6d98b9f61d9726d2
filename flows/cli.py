"""The command line: every command reads its options, calls one function and prints what that returns.

Flows are imported inside their commands, so that `--help` and `plan` start without torch, Prefect or MLflow.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows import screen
from flows.mistakes import MISTAKES

app = typer.Typer(
    name="stillroom",
    help="Distil a 2D diffusion editor and a 3D portrait reconstructor into one real-time student.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Profile = Annotated[str, typer.Option("--profile", help="A file of configs/profiles.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one setting; may be repeated."),
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME", help="A file of configs/clusters, or tcp://HOST:PORT.")
]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE[/STYLE[/BLOCK]]", help="Make these again; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]


@app.command()
def plan(
    partitions: Annotated[bool, typer.Option("--partitions", help="List every partition with its reasons.")] = False,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what would run, why, and what it costs, without running anything."""
    from flows.plan_memo import recall
    from flows.plan_tables import plan_table

    document = None if force or partitions else recall(profile, overrides or [])
    if document is None:
        from flows.planning import describe_plan

        document = describe_plan(profile, overrides or [], force or [], partitions)
    screen.show(document, as_json, plan_table)


@app.command()
def why(
    partition: Annotated[str, typer.Argument(help="For example edit/bronze-statue/0003.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say why one partition would run: each input of its fingerprint, then and now."""
    from flows.explaining import explain_partition
    from flows.plan_tables import why_table

    screen.show(explain_partition(partition, profile, overrides or []), as_json, why_table)


@app.command()
def accept(
    stage: Annotated[str, typer.Argument(help="The stage whose partitions stay valid.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Declare a stage's partitions valid for its changed code, as after a refactoring."""
    from flows.explaining import accept_stage

    screen.show(accept_stage(stage, profile, overrides or []), as_json, screen.fields)


@app.command()
def gc(
    last: Annotated[int, typer.Option(min=0, help="Newest snapshots to keep, beside the latest.")] = 3,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="DATASET", help="Digest of a snapshot to keep; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it. Without this nothing is deleted.")] = False,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say which partitions nothing refers to any more; with --yes, delete them."""
    from flows import collecting
    from flows.plan_tables import gone_line, waste_table

    findings = collecting.look_for_waste(profile, overrides or [], last, keep or [])
    if not as_json:
        screen.show(collecting.describe(findings, None), False, waste_table)
    deleted = collecting.delete(findings) if yes else None
    if as_json or yes:
        screen.show(collecting.describe(findings, deleted), as_json, gone_line)


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
        from flows.engine import run_here
        from flows.plan_memo import remember

        outcome = run_here("build-dataset", profile, overrides or [], cluster=cluster, force=force)
        remember(profile, overrides or [])
    screen.show(outcome, as_json, screen.fields)


@app.command()
def distill(
    dataset: Annotated[str, typer.Option(help="Digest of a snapshot (or its beginning), or latest.")] = "latest",
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train the student from a dataset."""
    with screen.only_results_on_stdout():
        from flows.engine import run_here

        outcome = run_here("distill", profile, overrides or [], dataset=dataset)
    screen.show(outcome, as_json, screen.fields)


@app.command()
def evaluate(
    student: Annotated[str, typer.Option(help="Digest of a student (or its beginning), or latest.")] = "latest",
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Evaluate a student on held-out portraits and prompts against its teachers."""
    with screen.only_results_on_stdout():
        from flows.engine import run_here

        outcome = run_here("evaluate", profile, overrides or [], student=student)
    screen.show(outcome, as_json, screen.evaluation_table)


@app.command()
def run(
    flow: Annotated[str, typer.Argument(help="build-dataset, distill, evaluate, reproduce or pretrain-embedded.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    force: Force = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Trigger a flow's Prefect deployment of the profile (the server must be up: make up)."""
    with screen.only_results_on_stdout():
        from flows.engine import trigger

        outcome = trigger(flow, profile, overrides or [], watch, force or [])
    screen.show(outcome, as_json, screen.fields)
    if outcome["state"] in ("FAILED", "CRASHED", "CANCELLED"):
        raise typer.Exit(1)


@app.command()
def edit(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Portraits: files, folders, quoted patterns.")
    ],
    prompt: Annotated[str | None, typer.Option(help="What to change, in words.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Or an image that shows it.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures; of several portraits, each gets its own.")] = Path(
        "edited"
    ),
    views: Annotated[int, typer.Option(min=0, help="Novel views, beside the turntable.")] = 4,
    video: Annotated[
        Path | None, typer.Option(help="Write the turntable as this video, such as turntable.mp4.")
    ] = None,
    mesh: Annotated[Path | None, typer.Option(help="Write the head's surface, such as head.ply.")] = None,
    student: Annotated[
        str, typer.Option(help="Digest of a student (or its beginning), a folder, or latest.")
    ] = "latest",
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Edit portraits with a student: the edited portrait, novel views, a turntable, a mesh."""
    if (prompt is None) == (reference is None):
        raise typer.BadParameter("give either --prompt or --reference", param_hint="--prompt")
    with screen.only_results_on_stdout():
        from flows.editing import Products, edit_portraits, show_edit

        products = Products(views, video, mesh)
        outcome = edit_portraits(images, prompt, reference, out, products, student, profile, overrides or [])
    screen.show(outcome, as_json, show_edit)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to; a folder that is not there yet.")],
    form: Annotated[
        str, typer.Option("--format", help="hf: the student in the layout of the Hugging Face hub.")
    ] = "hf",
    student: Annotated[str, typer.Option(help="Digest of a student (or its beginning), or latest.")] = "latest",
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write a student as a folder that stands alone: safetensors, configuration, model card."""
    if form != "hf":
        raise typer.BadParameter(f"'{form}' is not hf", param_hint="--format")
    with screen.only_results_on_stdout():
        from flows.exporting import export_student

        outcome = export_student(folder, student, profile, overrides or [])
    screen.show(outcome, as_json, screen.fields)


@app.command()
def status(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Say what there is: partitions, snapshots, the last runs, services."""
    from flows.planning import describe_status

    screen.show(describe_status(profile, overrides or []), as_json, screen.status_table)


styles_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(styles_app, name="styles")


@styles_app.callback()
def styles(
    context: typer.Context, profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False
) -> None:
    """List the styles of the profile: prompts, state, samples kept and their share; or add one, or check them."""
    if context.invoked_subcommand is not None:
        return
    from flows.styles import describe_styles

    screen.show(describe_styles(profile, overrides or []), as_json, screen.styles_table)


@styles_app.command("add")
def styles_add(
    instruction: Annotated[str, typer.Argument(help='For example "make her a porcelain doll".')],
    name: Annotated[str | None, typer.Option(help="Of the style; without it, taken from the instruction.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write the file of a new style."""
    from flows.styles import add_style

    screen.show(add_style(instruction, name, profile, overrides or []), as_json, screen.fields)


@styles_app.command("check")
def styles_check(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Say what is wrong with the style files; exit 1 if a build would stop or leak."""
    from flows.style_check import check_styles

    document = check_styles(profile, overrides or [])
    screen.show(document, as_json, screen.style_check_table)
    if not document["ok"]:
        raise typer.Exit(1)


@app.command()
def models(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """List the models of the profile's world and whether their weights are there."""
    from flows.planning import describe_models

    screen.show(describe_models(profile, overrides or []), as_json, screen.models_table)


@app.command()
def verify(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Hash every file of every live record again and check keys, fields and splits."""
    from flows.planning import verify_store

    document = verify_store(profile, overrides or [])
    screen.show(document, as_json, screen.verify_table)
    if document["damaged"]:
        raise typer.Exit(1)


@app.command()
def repair(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Verify, make exactly the damaged partitions again, and rebuild the index."""
    with screen.only_results_on_stdout():
        from flows.engine import run_here

        document = run_here("repair", profile, overrides or [])
    screen.show(document, as_json, screen.repair_table)
    if document["left"]:
        raise typer.Exit(1)


@app.command()
def retry(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Run only what failed in the last run of this profile, and what waited for it."""
    with screen.only_results_on_stdout():
        from flows.retry import retry as try_again

        outcome = try_again(profile, overrides or [])
    screen.show(outcome, as_json, screen.fields)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="DATASET", help="Its digest (or the beginning), latest, or its folder.")],
    b: Annotated[str, typer.Argument(metavar="DATASET", help="The other one, which it is compared with.")] = "latest",
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what differs between two datasets: samples, scores by style, settings."""
    from flows.comparing import diff_datasets
    from flows.comparison_tables import diff_table

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
        from flows.comparison_tables import compare_table
        from flows.run_comparison import compare_runs

        document = compare_runs(a, b, page, profile, overrides or [])
    screen.show(document, as_json, compare_table)


@app.command()
def doctor(
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
    parity: Annotated[
        Path | None, typer.Option(help="Instead, run every golden case in this folder: largest relative errors.")
    ] = None,
) -> None:
    """Check this machine: packages, weights, disk, services."""
    if parity is not None:
        with screen.only_results_on_stdout():
            from flows.doctor import run_parity

            errors = run_parity(parity)
        screen.show(errors, as_json, screen.parity_table)
        return
    with screen.only_results_on_stdout():
        from flows.doctor import examine

        document = examine(profile, overrides or [])
    screen.show(document, as_json, screen.doctor_table)
    if not document["ok"]:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """The console script. A mistake of the user's is one message and exit 1; a bug keeps its traceback."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    for chatty in ("httpx", "distributed", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        app(args=arguments)
    except MISTAKES as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished partitions are kept, the same command goes on from there\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
