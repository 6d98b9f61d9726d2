"""The benchmarks compare like with like, count what they say, and a catalog of many samples answers quickly."""

import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest

from benchmarks import peers
from benchmarks.__main__ import BENCHES, rows_of_orchestrator, rows_of_student
from benchmarks.cost import measure
from benchmarks.distill import Parts
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


def test_a_part_of_a_step_does_not_count_what_is_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.distill.now", lambda: next(clock))
        parts = Parts("cpu")
        with parts.part("forward"), parts.part("renderer"):
            pass
        parts.turn()
    spent = {name: seconds for name, seconds in parts.seconds.items() if seconds}
    assert spent == {"other": 1.0 + 16.0, "forward": 2.0 + 8.0, "renderer": 4.0}


def test_the_table_of_all_benchmarks_says_what_was_reached() -> None:
    seconds = {"editor+teacher, 20 steps": 0.4, "editor+teacher, 100 steps": 2.0, "student": 0.01}
    short, paper, view = rows_of_student({"seconds": seconds | {"student, another view": 0.005}})
    assert (short.ratio, short.reached) == (pytest.approx(40), None)
    assert (paper.ratio, paper.reached) == (pytest.approx(200), False)
    assert view.ratio == pytest.approx(2)
    costs = {"stillroom": 2.0, "snakemake": 3.0, "dvc": 9.0}
    tools = {name: {"no-op plan": {"cpu_s": cost}} for name, cost in costs.items()}
    (row,) = rows_of_orchestrator({"compared": {"tools": tools, "partitions": 7}})
    assert (row.alternative, row.theirs, row.ratio, row.reached) == ("snakemake", 3.0, 1.5, True)


def test_a_benchmark_that_is_not_there_is_left_out_with_the_reason() -> None:
    absent = BENCHES[0].__class__("no-such")
    assert absent.reason_to_leave_out() == "there is no benchmarks/no-such.py"
    assert BENCHES[0].reason_to_leave_out() == ""
