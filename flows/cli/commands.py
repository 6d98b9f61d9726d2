"""Commands of the command line.

Flows are imported inside their commands, so that `--help` and `plan` start without torch, Prefect or MLflow.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from flows.cli import (
    adapt,
    baselines,
    care,
    diff,
    models,
    photographs,
    plan,
    pretrain,
    run,
    serve,
    shelf,
    students,
    styles,
    video,
)
from flows.cli.chatter import quiet_libraries
from flows.cli.help import EXIT_CODES as SAID_CODES
from flows.cli.help import Grouped, stillroom
from flows.mistakes import saying_mistakes

# Modules of the extra `pipeline`. Using a student needs none of them.
PIPELINE = {
    "accelerate", "coolname", "dask", "diffusers", "distributed", "fastapi", "httpx", "lpips", "matplotlib", "mlflow",
    "openai", "pandas", "prefect", "pytorch_optimizer", "torchvision", "webdataset",
}  # fmt: skip

app = typer.Typer(
    name="stillroom",
    cls=Grouped,
    callback=stillroom,
    epilog=SAID_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (plan, run, baselines, adapt, shelf, students, photographs, video, serve, diff, pretrain, care):
    app.add_typer(group.app)
app.add_typer(styles.app, name="styles")
app.add_typer(models.app, name="models")


def run_command(arguments: list[str]) -> None:
    """Run a command. A user's mistake is one message and exit 1; a bug keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # An encoding without a letter shows it as an escape.
            stream.reconfigure(errors="backslashreplace")
    quiet_libraries()
    with saying_mistakes(), _needing_packages():
        check_checkout()
        app(args=arguments, prog_name="stillroom")


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
