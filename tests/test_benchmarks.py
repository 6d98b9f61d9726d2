"""The orchestrator's benchmark compares like with like, and a catalog of many samples answers quickly."""

import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest

from benchmarks import peers
from benchmarks.cost import measure
from benchmarks.instant_stages import STAGES
from benchmarks.large import make_samples
from data_catalog.plan import make_plan
from data_catalog.settings import Settings
from data_catalog.snapshot import SAMPLES, Snapshot, write_samples
from data_catalog.store import Store

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


def test_the_peers_get_the_graph_that_we_plan(tmp_path: Path) -> None:
    styles = ["red-hair", "zombie"]
    plan = make_plan(STAGES, Settings(), Store(tmp_path), styles, [0, 1, 2], lambda name: "")
    steps = {key: step for key, step in plan.steps.items() if step.partition.stage not in ("distill", "evaluate")}
    ours = {key: {name.partition("#")[0] for name in plan.now(step)["inputs"]} for key, step in steps.items()}
    assert {key: set(inputs) for key, inputs in peers.partitions(styles, 3)} == ours


def test_a_cost_counts_children_that_outlive_their_parent(tmp_path: Path) -> None:
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BUSY!r}])"
    assert measure([sys.executable, "-c", script], tmp_path).cpu_s >= 0.3


def test_a_command_over_its_limit_is_stopped_and_said(tmp_path: Path) -> None:
    cost = measure(["sleep", "60"], tmp_path, limit_s=0.2)
    assert not cost.finished
    assert cost.wall_s < 30


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        measure(["bash", "-c", "echo no such thing; exit 3"], tmp_path)


def test_samples_are_found_by_style_and_score_in_less_than_a_second(tmp_path: Path) -> None:
    table = make_samples(100_000)
    write_samples(tmp_path / SAMPLES, table)
    wanted = (pc.field("style") == "style-07") & (pc.field("score_identity") > 0.9)
    started = time.process_time()
    found = Snapshot("", tmp_path).samples(["key"], wanted)
    assert time.process_time() - started < 1.0  # of CPU, which a busy machine does not change
    rows = zip(table["key"].to_pylist(), table["style"].to_pylist(), table["score_identity"].to_pylist(), strict=True)
    assert found["key"].to_pylist() == sorted(key for key, style, score in rows if style == "style-07" and score > 0.9)
