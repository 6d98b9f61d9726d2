"""Log lines at a terminal: our own, and the errors of libraries. Whatever else libraries say is for log files."""

import logging
import os
import sys

from data_catalog.config.plain_text import printable
from flows.lines import fitted

OURS = ("data_catalog", "flows", "models", "tasks")
QUIET = {
    "DO_NOT_TRACK": "1",  # Prefect would say at a terminal that it collects data, and do so
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class PrintableFormatter(logging.Formatter):
    """Format of a log line: its message, control characters as escapes, wrapped at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return fitted(printable(super().format(record)))


def for_a_person(record: logging.LogRecord) -> bool:
    """Whether a log line is printed: one of ours, an error of a library, the address of a run's page."""
    package = record.name.partition(".")[0]
    if package == "prefect":  # it repeats the error that the command line prints
        return record.getMessage().startswith("View at ")
    return package in OURS or record.levelno >= logging.ERROR


def quiet_libraries() -> None:
    """Log to stderr what is for a person, and keep libraries and their warnings from printing by themselves."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # before the libraries are imported; worker processes inherit it
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter())
    handler.addFilter(for_a_person)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if not sys.warnoptions:
        logging.captureWarnings(capture=True)
