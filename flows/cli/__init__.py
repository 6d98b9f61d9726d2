"""Command line: every command reads its options, calls one function and prints the result."""

import sys

from flows.cli.interrupted import told
from flows.run.signals import LeftRunning, ending_by_signal, saying_interruption


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Ctrl-C and signals have their words before the commands are imported, which takes long."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with saying_interruption(told(given)), ending_by_signal():
            from flows.cli.commands import run_command

            run_command(given)
    except LeftRunning as error:
        sys.stderr.write(f"{error.said}\n")
        raise
