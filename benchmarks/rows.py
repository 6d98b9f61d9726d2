"""Rows of the table of all benchmarks: our value, the usual alternative, the machine's limit, the target."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"
HEADERS = ("measure", "ours", "alternative", "theirs", "times", "limit", "to reach", "")


@dataclass(frozen=True)
class Row:
    """`ratio` says how many times better ours is than the alternative; `limit` is the best this machine could do."""

    what: str
    unit: str = ""
    ours: float | None = None
    alternative: str = ""
    theirs: float | None = None
    ratio: float | None = None
    limit: float | None = None
    target: str = ""  # what is to be reached, in words
    reached: bool | None = None  # None: nothing was promised
    problem: str = ""  # why there are no numbers

    def cells(self) -> tuple[str, ...]:
        """Return the cells, one for each header."""
        return (
            self.what,
            self.problem or f"{_short(self.ours)} {self.unit}".strip(),
            self.alternative,
            _short(self.theirs),
            _short(self.ratio),
            _short(self.limit),
            self.target,
            {True: "reached", False: "not reached", None: ""}[self.reached],
        )


def write_results(path: Path, document: dict[str, Any], rows: Sequence[Row], command: Sequence[str] = ()) -> None:
    """The document with its rows, the machine and the command that measured it."""
    given = list(command) or ["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
    about = {"command": " ".join(given), "machine": describe_machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about | document | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def describe_machine() -> dict[str, Any]:
    """Describe the machine and its load, which the numbers depend on."""
    cpus = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    busy = round(os.getloadavg()[0], 1)  # processes that wanted a core in the last minute; ours is one
    return {"cpu": name, "cores": os.cpu_count(), "python": platform.python_version(), "load": busy}


def show_rows(rows: Sequence[Row], title: str = "") -> None:
    """The table, as wide as the terminal allows, 120 columns at least."""
    table = Table(*HEADERS, title=title, box=None)
    for row in rows:
        table.add_row(*row.cells())
    console = Console()
    Console(width=max(120, console.width)).print(table)


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [HEADERS, ("---",) * len(HEADERS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
