"""Command line: every command reads its options, calls one function and prints the result.

Flows are imported inside their commands, so that `--help` and `plan` start without torch, Prefect or MLflow.
"""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.plain_text import printable
from flows.cli import (
    adapt,
    baselines,
    care,
    diff,
    models,
    photographs,
    plan,
    pretrain,
    regen,
    run,
    serve,
    shelf,
    students,
    styles,
    video,
)
from flows.mistakes import saying_mistakes
from flows.run.signals import EXIT_CODES, LeftRunning, ending_by_signal

# Modules of the extra `pipeline`. Using a student needs none of them.
PIPELINE = {
    *(
        "accelerate",
        "coolname",
        "dask",
        "diffusers",
        "distributed",
        "fastapi",
        "httpx",
        "lpips",
        "matplotlib",
        "mlflow",
    ),
    *("coolname", "openai", "pandas", "prefect", "pytorch_optimizer", "sklearn", "torchvision", "webdataset"),
}

app = typer.Typer(
    name="stillroom",
    help="Distil a 2D diffusion editor and a 3D portrait reconstructor into one real-time student.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (plan, run, baselines, adapt, shelf, students, photographs, video, serve):  # in the order of `--help`
    app.add_typer(group.app)
app.add_typer(styles.app, name="styles")
app.add_typer(models.app, name="models")
for group in (diff, regen, pretrain, care):
    app.add_typer(group.app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A user's mistake is one message and exit 1; a bug keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # An encoding without a letter shows it as an escape.
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx", "distributed", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        with saying_mistakes(), ending_by_signal(), _needing_packages():
            check_checkout()
            app(args=arguments)
    except LeftRunning as error:
        sys.stderr.write(f"{error.said}\n")
        raise
    except SystemExit as error:  # Typer ends a command with one, also at Ctrl-C
        if error.code in EXIT_CODES:
            sys.stderr.write("interrupted; finished partitions are kept, the same command goes on from there\n")
        raise


class PrintableFormatter(logging.Formatter):
    """Format of a log line: its message, control characters as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def check_checkout() -> None:
    """Refuse to run a copied checkout with the original's code, to which its scripts still point."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder was removed", hint="cd to a folder that exists") from None
    is_checkout = (here / "flows" / "build_dataset.py").is_file() and (here / ".venv" / "bin" / "stillroom").is_file()
    if here != PROJECT and is_checkout:
        message = "this command runs the code of another checkout, not of the one you are in"
        raise UserError(message, code=PROJECT, here=here, hint="make setup    (sets the copied .venv to this place)")


@contextmanager
def _needing_packages() -> Iterator[None]:
    """Turn a missing package of the extra `pipeline` into a mistake."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in PIPELINE:
            raise
        hint = "pip install 'stillroom[pipeline]'    (in a checkout: make setup)"
        raise UserError(f"this command needs {module}, which is not installed", hint=hint) from None
