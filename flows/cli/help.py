"""Help and version of the command line: commands in groups by what a person does."""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

GROUPS = {
    "Make a dataset and a student": ("plan", "build", "distill", "evaluate", "retry", "run"),
    "Use a student": ("edit", "edit-video", "serve", "export"),
    "Bring your own": ("styles", "align", "adapt", "import-student", "models"),
    "Look": ("status", "students", "datasets", "why", "diff"),
    "Keep in order": ("promote", "accept", "verify", "repair", "regen", "gc", "doctor"),
    "Study": ("baselines", "ablate", "pretrain"),
}
EXIT_CODES = "Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage, 130 interrupted."


class Grouped(TyperGroup):
    """Command group that lists its commands by `GROUPS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        return [name for names in GROUPS.values() for name in names]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group; the first sentence of each command."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"stillroom {version('stillroom')}")
        raise typer.Exit


def stillroom(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Distil a 2D diffusion editor and a 3D portrait reconstructor into one real-time student."""
