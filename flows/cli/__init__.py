"""Command line: every command reads its options, calls one function and prints the result.

Flows are imported inside their commands, so that `--help` and `plan` start without torch, Prefect or MLflow.
"""

import logging
import sys
from pathlib import Path
from typing import NoReturn

import typer

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from flows.cli import adapt, baselines, care, diff, plan, pretrain, regen, run, serve, shelf, students, styles, video
from flows.mistakes import MISTAKES
from flows.run.signals import EXIT_CODES, ending_by_signal

# Modules of the extra `pipeline`. Using a student needs none of them.
PIPELINE = {
    *("accelerate", "cv2", "dask", "diffusers", "distributed", "fastapi", "httpx", "lpips", "matplotlib", "mlflow"),
    *("openai", "pandas", "prefect", "pytorch_optimizer", "sklearn", "torchvision", "webdataset"),
}

app = typer.Typer(
    name="stillroom",
    help="Distil a 2D diffusion editor and a 3D portrait reconstructor into one real-time student.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (plan, run, baselines, adapt, shelf, students, video, serve):  # in the order of `--help`
    app.add_typer(group.app)
app.add_typer(styles.app, name="styles")
for group in (diff, regen, pretrain, care):
    app.add_typer(group.app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A user's mistake is one message and exit 1; a bug keeps its traceback."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    for chatty in ("httpx", "distributed", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        with ending_by_signal():
            check_checkout()
            app(args=arguments)
    except MISTAKES as error:
        _stop(error)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in PIPELINE:
            raise
        hint = "pip install 'stillroom[pipeline]'    (in a checkout: make setup)"
        _stop(UserError(f"this command needs {module}, which is not installed", hint=hint))
    except SystemExit as error:  # Typer ends a command with one, also at Ctrl-C
        if error.code in EXIT_CODES:
            sys.stderr.write("interrupted; finished partitions are kept, the same command goes on from there\n")
        raise


def check_checkout() -> None:
    """Refuse to run a copied checkout with the original's code, to which its scripts still point."""
    here = Path.cwd()
    is_checkout = (here / "flows" / "build_dataset.py").is_file() and (here / ".venv" / "bin" / "stillroom").is_file()
    if here != PROJECT and is_checkout:
        message = "this command runs the code of another checkout, not of the one you are in"
        raise UserError(message, code=PROJECT, here=here, hint="make setup    (sets the copied .venv to this place)")


def _stop(error: Exception) -> NoReturn:
    """Print a mistake as one message and exit 1."""
    sys.stderr.write(f"error: {error}\n")
    sys.exit(1)
