"""The command line: every command reads its options, calls one function and prints what that returns.

Flows are imported inside their commands, so that `--help` and `plan` start without torch, Prefect or MLflow.
"""

import logging
import signal
import sys
from pathlib import Path
from types import FrameType

import typer

from data_catalog.errors import UserError
from data_catalog.places import PROJECT
from flows.commands import adapt, care, comparing, planning, pretrain, regen, running, serve, students, styles, video
from flows.running.mistakes import MISTAKES

TYPER_INTERRUPTED = 130  # exit status that typer makes of any KeyboardInterrupt

app = typer.Typer(
    name="stillroom",
    help="Distil a 2D diffusion editor and a 3D portrait reconstructor into one real-time student.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (planning, running, adapt, students, video, serve):  # in the order of `--help`
    app.add_typer(group.app)
app.add_typer(styles.app, name="styles")
for group in (comparing, regen, pretrain, care):
    app.add_typer(group.app)


def main(arguments: list[str] | None = None) -> None:
    """The console script. A mistake of the user's is one message and exit 1; a bug keeps its traceback."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    received = end_in_good_order()
    for chatty in ("httpx", "distributed", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        check_checkout()
        app(args=arguments)
    except MISTAKES as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != TYPER_INTERRUPTED:
            raise
        number = received[0] if received else signal.SIGINT
        sys.stderr.write("interrupted; finished partitions are kept, the same command goes on from there\n")
        sys.exit(128 + number)


def end_in_good_order() -> list[int]:
    """Let SIGTERM and a closed terminal end a command as Ctrl-C does, with its workers and its records.

    Returns a list that the signal is put into: Prefect raises an interrupt of its own instead of ours.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, interrupt)
    return received


def check_checkout() -> None:
    """Refuse to work in a copied checkout with the code of the original, which its scripts still name."""
    here = Path.cwd()
    if here != PROJECT and (here / "flows" / "cli.py").is_file() and (here / ".venv" / "bin" / "stillroom").is_file():
        message = "this command runs the code of another checkout than the one you are in"
        raise UserError(message, code=PROJECT, here=here, hint="make setup    (sets the copied .venv to this place)")


if __name__ == "__main__":
    main()
