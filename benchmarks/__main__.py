"""Run all benchmarks that fit into 20 minutes on two cores, and show one table of their results.

    make bench        or     .venv/bin/python -m benchmarks [NAME ...] [--table] [--docs]

Each is a separate process that writes benchmarks/results/NAME.json; its output goes into NAME.log in a temporary
folder. A benchmark without its requirements (a distilled student, the peers' environment) is left out, with the reason.
One that fails or takes too long does not stop the others: the table says so, and the exit code is 1.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.rows import RESULTS, Row, describe_machine, markdown, show_rows

PROJECT = Path(__file__).resolve().parents[1]
PEERS = PROJECT / ".bench-venv" / "bin" / "dvc"
ALL = RESULTS / "all.json"
DOCS = PROJECT / "docs" / "lab" / "benchmarks.md"
MARKS = ("<!-- the table of make bench -->\n", "<!-- its end -->\n")
TOTAL_S = 20 * 60.0
LEFT_OUT = "left out"
LEAST_S = 10.0  # that a benchmark may take, however late it is


@dataclass(frozen=True)
class Bench:
    """Benchmark: the module of its name."""

    name: str
    expected_s: float  # on two quiet cores
    arguments: tuple[str, ...] = ()
    missing: Callable[[], str] = lambda: ""  # why it cannot run here
    result: str = ""  # where its numbers go, if not under its name

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.result or self.name}.json"

    def reason_to_leave_out(self) -> str:
        """Empty if it can run."""
        module = PROJECT / "benchmarks" / f"{self.name}.py"
        return self.missing() if module.exists() else f"there is no {module.relative_to(PROJECT)}"


def no_student() -> str:
    from data_catalog.config.places import data_root

    found = any((data_root() / "store" / "distill").glob("*/*/record.json"))
    return "" if found else "there is no distilled student: stillroom build, stillroom distill"


def no_peers() -> str:
    return "" if PEERS.exists() else "DVC and Snakemake are not installed: make bench does it"


SMALL = ("--parts", "peers", "--styles", "6", "--blocks", "6", "--limit", "60")
BENCHES = (
    Bench("student", 90),
    Bench("editor", 90),
    Bench("shards", 60),
    Bench("waiting", 60),
    Bench("distill", 180),
    Bench("renderer", 150),
    Bench("footprint", 120),
    Bench("orchestrator", 180, SMALL, no_peers, "orchestrator-small"),
    Bench("video", 120, missing=no_student),
)


def run(bench: Bench, folder: Path, limit_s: float) -> str:
    """Run it in a process; returns "" or the problem. Its output and temporary files go into the folder."""
    out = os.path.relpath(bench.path, PROJECT)  # as the command is written down
    command = [sys.executable, "-m", f"benchmarks.{bench.name}", *bench.arguments, "--out", out]
    log, temporary = folder / f"{bench.name}.log", folder / bench.name
    temporary.mkdir()
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=PROJECT, env=quiet, stdout=stream, stderr=stream)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s:.0f} s ({log})"
        finally:
            stop(process)
            shutil.rmtree(temporary, ignore_errors=True)
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"failed: {lines[-1]} ({log})"
    return ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, if it still runs."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in started:
        if child.is_running():
            child.kill()
    psutil.wait_procs(started, LEAST_S)


def run_all(chosen: Sequence[Bench], console: Console) -> dict[str, str]:
    """Run them in turn, within the time limit; returns problems and reasons to leave out, by name."""
    planned = {bench.name: bench.expected_s for bench in chosen if not bench.reason_to_leave_out()}
    each = ", ".join(f"{name} {seconds:.0f}" for name, seconds in planned.items())
    total = sum(planned.values())
    console.print(f"seconds: {each}; about {total / 60:.0f} minutes, {TOTAL_S / 60:.0f} at most")
    folder, problems, end = Path(tempfile.mkdtemp(prefix="stillroom-bench-")), {}, time.monotonic() + TOTAL_S
    for bench in chosen:
        started = time.monotonic()
        if bench.name not in planned:
            problems[bench.name] = f"{LEFT_OUT}, {bench.reason_to_leave_out()}"
        else:
            del planned[bench.name]
            limit_s = max(LEAST_S, end - started - sum(planned.values()))  # the others have their time, too
            problems[bench.name] = run(bench, folder, limit_s)
        console.print(f"{bench.name}: {problems[bench.name] or f'{time.monotonic() - started:.0f} s'}")
    if not any(problems.values()):
        shutil.rmtree(folder)
    return {name: problem for name, problem in problems.items() if problem}


def read_rows(bench: Bench, problems: Mapping[str, str]) -> list[Row]:
    """Read the rows that a benchmark has written; none if it was never run."""
    if bench.name in problems:
        return [Row(bench.name, problem=problems[bench.name].partition(" (")[0])]
    if not bench.path.exists():
        return []
    document: dict[str, Any] = json.loads(bench.path.read_text())
    return [Row(**row) for row in document.get("rows", [])]


def write_docs(rows: Sequence[Row], machine: Mapping[str, Any], docs: Path = DOCS) -> None:
    """Put the table between its marks into the documentation."""
    before, rest = docs.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    load = f"; when it began {machine['load']:g} processes wanted a core"
    about = f"`make bench` on {machine['cores']} cores of {machine['cpu']}{load}:"
    docs.write_text(f"{before}{MARKS[0]}{about}\n\n{markdown(rows)}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [bench.name for bench in BENCHES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--table", action="store_true", help="run nothing; show what is in benchmarks/results")
    parser.add_argument("--docs", action="store_true", help="write the whole table into docs/lab/benchmarks.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [bench for bench in BENCHES if bench.name in (options.names or names)]
    machine, whole = describe_machine(), not options.table and not options.names
    problems = {} if options.table else run_all(chosen, Console(highlight=False, soft_wrap=True))
    show_rows([row for bench in chosen for row in read_rows(bench, problems)])
    rows = [row for bench in BENCHES for row in read_rows(bench, problems)]
    if whole:
        document = {"command": "make bench", "machine": machine, "rows": [asdict(row) for row in rows]}
        ALL.write_text(json.dumps(document, indent=1) + "\n")
    if options.docs:
        write_docs(rows, json.loads(ALL.read_text())["machine"] if ALL.exists() else machine)
    sys.exit(any(not problem.startswith(LEFT_OUT) for problem in problems.values()))


if __name__ == "__main__":
    main()
