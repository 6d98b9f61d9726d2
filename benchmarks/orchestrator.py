"""Cost of the machinery with nothing to compute: stillroom, DVC and Snakemake on the same graph.

    make bench-orchestrator        or, with the peers in .bench-venv (benchmarks/requirements.txt):
    .venv/bin/python -m benchmarks.orchestrator [--parts peers large samples prefect] [--out FILE.json]

The graph is the project's own: 20 styles x 20 blocks in three stages, with what is below and above them; every
partition is one small file. Whole processes are measured, user + system time of all that they start.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.cost import Cost, cheapest, measure
from benchmarks.large import fill_store, query_million
from benchmarks.prefect_run import measure_with_prefect
from benchmarks.rows import RESULTS, Row, write_results

PROJECT = Path(__file__).resolve().parents[1]
PEERS = PROJECT / ".bench-venv" / "bin"
ADDED = "style-n99"
REPEATS = 3
Found = dict[str, Any]


class Stillroom:
    """Our commands on a data root of its own, with instant stages."""

    def __init__(self, folder: Path, styles: list[str], blocks: int) -> None:
        self.folder, self.styles, self.blocks = folder, styles, blocks
        peers.write_styles(folder, styles)
        self.settings = {
            "portraits.count": blocks,
            "portraits.block_size": 1,
            "prompts.styles_dir": folder / "styles",
        }

    @property
    def environment(self) -> dict[str, str]:
        return {"STILLROOM_DATA": str(self.folder / "data"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}

    def run(self, *arguments: str, limit_s: float = 240.0, **more: str) -> Cost:
        """Run a command in its own process."""
        given = [text for name, value in self.settings.items() for text in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "benchmarks.instant", *arguments, *given]
        return measure(command, self.folder, self.environment | more, limit_s)


def compare(work: Path, styles: list[str], blocks: int, limit_s: float) -> Found:
    """No-op plan, no-op build, one style added, by each of the three, on the smaller graph."""
    tools: dict[str, dict[str, Cost]] = {}
    ours = Stillroom(work / "stillroom", styles, blocks)
    first = ours.run("build")
    tools["stillroom"] = {
        "no-op plan": cheapest([ours.run("plan") for _ in range(REPEATS)]),
        "no-op build": cheapest([ours.run("build") for _ in range(REPEATS)]),
    }
    peers.write_styles(ours.folder, [ADDED])
    tools["stillroom"]["one style added"] = ours.run("build")
    say("stillroom", tools["stillroom"])
    for peer in (peers.SNAKEMAKE, peers.DVC):
        tools[peer.name] = compare_peer(work / peer.name, peer, styles, blocks, limit_s)
    count = sum(1 for _ in peers.partitions(styles, blocks))
    one_style = sum(1 for _ in peers.partitions([*styles, ADDED], blocks)) - count + 1
    return {
        "partitions": count,
        "partitions_of_one_style": one_style,
        "first_build": asdict(first),
        "ms_per_dirty_partition": round(1000 * first.wall_s / count, 1),
        "tools": {tool: {name: asdict(cost) for name, cost in costs.items()} for tool, costs in tools.items()},
    }


def compare_peer(folder: Path, peer: peers.Peer, styles: list[str], blocks: int, limit_s: float) -> dict[str, Cost]:
    """The same three for another tool, in a workspace in which everything is up to date."""
    folder.mkdir(parents=True)
    peer.prepare(folder, PEERS, styles, blocks)
    quiet = {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    plan, build = ([str(PEERS / command[0]), *command[1:]] for command in (peer.plan, peer.build))
    costs = {
        "no-op plan": cheapest([measure(plan, folder, quiet, limit_s) for _ in range(2)]),
        "no-op build": cheapest([measure(build, folder, quiet, limit_s) for _ in range(2)]),
    }
    peers.write_styles(folder, [ADDED])
    peer.write(folder, [*styles, ADDED], blocks)
    costs["one style added"] = measure(build, folder, quiet, limit_s)
    say(folder.name, costs)
    return costs


def compare_large(work: Path, styles: list[str], blocks: int) -> Found:
    """The plan of the graph that is 25 times as large, when all of it is made."""
    ours = Stillroom(work / "large", styles, blocks)
    started = time.monotonic()
    count = fill_store(Path(ours.environment["STILLROOM_DATA"]), ours.settings)
    filled = round(time.monotonic() - started, 1)
    cost = cheapest([ours.run("plan") for _ in range(2)])
    say("large", {"no-op plan": cost})
    return {"partitions": count, "fill_s": filled, "no-op plan": asdict(cost)}


def say(name: str, costs: dict[str, Cost]) -> None:
    """Print a line for a tool as soon as its costs are known."""
    print(name, {what: f"{cost.cpu_s} s CPU, {cost.wall_s} s" for what, cost in costs.items()}, flush=True)


def show(document: Found) -> None:
    """The table, with what each peer costs in units of ours."""
    console = Console(width=120)
    if "compared" in document:
        tools = document["compared"]["tools"]
        names = list(next(iter(tools.values())))
        table = Table("tool", *(f"{name}, CPU s (times ours)" for name in names), box=None)
        for tool, costs in tools.items():
            cells = []
            for name in names:
                cpu, own = costs[name]["cpu_s"], tools["stillroom"][name]["cpu_s"]
                more = "" if costs[name]["finished"] else "> "
                cells.append(f"{more}{cpu:.2f} ({more}{cpu / own:.1f})")
            table.add_row(tool, *cells)
        console.print(table)
    for name in ("large", "samples", "prefect"):
        if name in document:
            console.print(f"{name}: {json.dumps(document[name])}", highlight=False)


def rows_of(document: Found) -> list[Row]:
    """CPU seconds of whole processes: ours against the cheaper of the peers."""
    if "compared" not in document:
        return []
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["peers", "large", "samples", "prefect"])
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a command is stopped")
    parser.add_argument("--styles", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--large-blocks", type=int, default=500)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "orchestrator.json")
    options = parser.parse_args()
    os.environ.update(DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true", PREFECT_SERVER_ANALYTICS_ENABLED="false")
    # Parts that are not measured this time stay as they were.
    before: Found = json.loads(options.out.read_text()) if options.out.exists() else {}
    document = {name: value for name, value in before.items() if name not in ("command", "machine", "rows")}
    work = Path(tempfile.mkdtemp(prefix="stillroom-benchmark-"))
    styles = [f"style-n{number:02d}" for number in range(1, options.styles + 1)]
    measures: dict[str, tuple[str, Callable[[], Found]]] = {
        "peers": ("compared", lambda: compare(work, styles, options.blocks, options.limit)),
        "large": ("large", lambda: compare_large(work, styles, options.large_blocks)),
        "samples": ("samples", lambda: query_million(work, options.samples)),
        "prefect": ("prefect", lambda: measure_with_prefect(Stillroom(work / "prefect", styles, options.blocks))),
    }
    try:
        for part in options.parts:
            name, work_on = measures[part]
            document[name] = work_on()
            write_results(options.out, document, rows_of(document))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    show(document)


if __name__ == "__main__":
    main()
