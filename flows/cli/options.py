"""Options shared by many commands."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import completion

Profile = Annotated[
    str,
    typer.Option("--profile", help="Profile: a file of configs/profiles.", autocompletion=completion.complete_profile),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.KEY=VALUE",
        help="Change one setting; may be repeated.",
        autocompletion=completion.complete_setting,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Cluster: a file of configs/clusters, or tcp://HOST:PORT.",
        autocompletion=completion.complete_cluster,
    ),
]
Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE[/STYLE[/BLOCK]]",
        help="Make these again; may be repeated.",
        autocompletion=completion.complete_partition,
    ),
]
RunName = Annotated[
    str | None, typer.Option("--name", metavar="TEXT", help="Name of the run in MLflow, instead of its settings.")
]
RunTags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Tag of the run in MLflow; may be repeated.")
]
RunNote = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Description of the run in MLflow.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="What to change, in words.")]
Reference = Annotated[Path | None, typer.Option("--reference", help="Picture of the change, instead of --prompt.")]
StudentName = Annotated[
    str | None,
    typer.Option(
        "--student",
        help="Name or digest (or its beginning) of a student, a folder, or latest.  [default: of the settings]",
        autocompletion=completion.complete_student,
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Name or digest (or its beginning) of a dataset, or latest.  [default: of the settings]",
        autocompletion=completion.complete_dataset,
    ),
]
OtherDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Name or digest of a dataset of other portraits.  [default: the student's]",
        autocompletion=completion.complete_dataset,
    ),
]
AdaptedStyle = Annotated[
    str | None,
    typer.Option(
        "--style",
        help="A style that the student was adapted to (stillroom adapt), or its digest.",
        autocompletion=completion.complete_style,
    ),
]


def same_settings(profile: str, overrides: list[str] | None) -> str:
    """Return the options that give another command the same settings, each behind a space."""
    chosen = [] if profile == "demo" else ["--profile", profile]
    chosen += [word for each in overrides or [] for word in ("--set", each)]
    return "".join(f" {shlex.quote(word)}" for word in chosen)


def check_one_asks(prompt: str | None, reference: Path | None) -> None:
    """Check that an edit has either a text or a reference picture."""
    if (prompt is None) == (reference is None):
        raise typer.BadParameter("give either --prompt or --reference", param_hint="--prompt")
