"""Every benchmark that fits into 20 minutes on two cores, one after the other, and one table of what they found.

    make bench        or     .venv/bin/python -m benchmarks [NAME ...] [--table]

Each is a process of its own that writes benchmarks/results/NAME.json; its words go into NAME.log in a temporary folder.
What a benchmark needs and is not there (a distilled student, the peers' environment) leaves it out, with the reason.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.rows import RESULTS, Row, describe_machine, show_rows

PROJECT = Path(__file__).resolve().parents[1]
PEERS = PROJECT / ".bench-venv" / "bin" / "dvc"
STUDENT_TIMES = 250  # as fast as its teachers at the paper's 100 steps
LIMIT_S = 600.0  # of one benchmark


@dataclass(frozen=True)
class Bench:
    """One benchmark: its module's arguments, and how its document is read when it has no rows of its own."""

    name: str
    arguments: tuple[str, ...] = ()
    rows: Callable[[dict[str, Any]], list[Row]] | None = None
    missing: Callable[[], str] = lambda: ""  # why it cannot run here
    result: str = ""  # where its numbers go, if not under its name

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.result or self.name}.json"

    def reason_to_leave_out(self) -> str:
        """Empty if it can run."""
        module = PROJECT / "benchmarks" / f"{self.name}.py"
        return self.missing() if module.exists() else f"there is no {module.relative_to(PROJECT)}"


def rows_of_student(document: dict[str, Any]) -> list[Row]:
    """Seconds for one picture: the student against its teachers, and another view of a head that is there."""
    seconds: dict[str, float] = document["seconds"]
    student, rows = seconds["student"], []
    for name, spent in seconds.items():
        if name.startswith("editor+teacher"):
            ratio, promised = spent / student, ", 100 steps" in name
            target = f"{STUDENT_TIMES} times" if promised else ""
            rows.append(
                Row("student, portrait to view", "ms", 1e3 * student, name, 1e3 * spent, ratio, target=target,
                    reached=ratio >= STUDENT_TIMES if promised else None)
            )  # fmt: skip
    view = seconds["student, another view"]
    return [*rows, Row("student, another view", "ms", 1e3 * view, "the whole way again", 1e3 * student, student / view)]


def rows_of_orchestrator(document: dict[str, Any]) -> list[Row]:
    """CPU seconds of whole processes: ours against the cheaper of the peers."""
    tools, count = document["compared"]["tools"], document["compared"]["partitions"]
    rows = []
    for what, cost in tools["stillroom"].items():
        spent = {name: costs[what]["cpu_s"] for name, costs in tools.items() if name != "stillroom"}
        peer = min(spent, key=lambda name: spent[name])
        ratio = spent[peer] / cost["cpu_s"]
        rows.append(
            Row(f"{what}, {count} partitions", "s CPU", cost["cpu_s"], peer, spent[peer], ratio,
                target="no dearer than the cheaper peer", reached=ratio >= 1)
        )  # fmt: skip
    return rows


def rows_of_video(document: dict[str, Any]) -> list[Row]:
    """How much of the flicker of frames edited alone is left, and what that costs."""
    other, *_, whole = document["mean"]  # from each frame alone to everything that steadies
    alone, ours = document["mean"][other], document["mean"][whole]
    flicker = Row("video, warp error", "", ours["warp_error"], other, alone["warp_error"],
                  alone["warp_error"] / ours["warp_error"])  # fmt: skip
    return [flicker, Row("video, one frame", "ms", ours["ms"], other, alone["ms"], alone["ms"] / ours["ms"])]


def no_student() -> str:
    from data_catalog.places import data_root

    found = any((data_root() / "store" / "distill").glob("*/*/record.json"))
    return "" if found else "there is no distilled student: stillroom build, stillroom distill"


def no_peers() -> str:
    return "" if PEERS.exists() else "DVC and Snakemake are not installed: make bench does it"


BENCHES = (
    Bench("student", rows=rows_of_student),
    Bench("editor"),
    Bench("distill"),
    Bench("shards"),
    Bench("renderer"),
    Bench("orchestrator", ("--parts", "peers", "--styles", "6", "--blocks", "6", "--limit", "60"), rows_of_orchestrator,
          no_peers, "orchestrator-small"),
    Bench("video", rows=rows_of_video, missing=no_student),
)  # fmt: skip


def run(bench: Bench, log: Path) -> str:
    """Run it, in a process; empty, or what went wrong."""
    out = str(bench.path.relative_to(PROJECT))  # as the command is written down
    command = [sys.executable, "-m", f"benchmarks.{bench.name}", *bench.arguments, "--out", out]
    with log.open("wb") as stream:
        try:
            subprocess.run(
                command, cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=stream, stderr=stream,
                timeout=LIMIT_S, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"stopped after {LIMIT_S:.0f} s"
        except subprocess.CalledProcessError:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            return f"failed: {lines[-1]} ({log})"
    return ""


def read_rows(bench: Bench) -> list[Row]:
    """The rows in a benchmark's document, or those that are made from it; none if it was never run."""
    if not bench.path.exists():
        return []
    document: dict[str, Any] = json.loads(bench.path.read_text())
    if bench.rows is not None and "rows" not in document:
        return bench.rows(document)
    return [Row(**row) for row in document.get("rows", [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [bench.name for bench in BENCHES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--table", action="store_true", help="run nothing; show what is in benchmarks/results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [bench for bench in BENCHES if bench.name in (options.names or names)]
    console, failed = Console(highlight=False), False
    folder = Path(tempfile.mkdtemp(prefix="stillroom-bench-"))
    for bench in () if options.table else chosen:
        started, reason = time.monotonic(), bench.reason_to_leave_out()
        if reason:
            console.print(f"{bench.name}: left out, {reason}")
            continue
        problem = run(bench, folder / f"{bench.name}.log")
        failed = failed or bool(problem)
        console.print(f"{bench.name}: {problem or f'{time.monotonic() - started:.0f} s'}")
    rows = [row for bench in chosen for row in read_rows(bench)]
    show_rows(rows)
    if not options.table and not options.names:
        document = {"command": "make bench", "machine": describe_machine(), "rows": [asdict(row) for row in rows]}
        (RESULTS / "all.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
