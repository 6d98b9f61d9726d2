"""The benchmarks compare like with like, count what they say, and a catalog of many samples answers quickly."""

import io
import sys
import time
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest
from rich.console import Console

from benchmarks import __main__, orchestrator, peers, student
from benchmarks.__main__ import LEFT_OUT, MARKS, Bench, read_rows, run, run_all, write_docs
from benchmarks.cost import measure
from benchmarks.distill import Parts
from benchmarks.instant_stages import STAGES
from benchmarks.large import make_samples
from benchmarks.rows import Row
from data_catalog.config.settings import Settings
from data_catalog.plan.plan import make_plan
from data_catalog.products.snapshot import SAMPLES, Snapshot, write_samples
from data_catalog.store.store import Store

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


def test_the_peers_get_the_graph_that_we_plan(tmp_path: Path) -> None:
    styles = ["red-hair", "zombie"]
    plan = make_plan(STAGES, Settings(), Store(tmp_path), styles, [0, 1, 2], lambda name: "")
    steps = {key: step for key, step in plan.steps.items() if step.partition.stage not in ("distill", "evaluate")}
    ours = {key: {name.partition("#")[0] for name in plan.now(step)["inputs"]} for key, step in steps.items()}
    assert {key: set(inputs) for key, inputs in peers.partitions(styles, 3)} == ours


def test_snakemake_gets_a_rule_for_each_stage_with_the_names_of_our_partitions(tmp_path: Path) -> None:
    peers.write_snakemake(tmp_path, ["red-hair"], 2)
    rules = (tmp_path / "Snakefile").read_text().split("\nrule ")[1:]
    outputs = {rule.partition(":")[0]: rule.partition('output: "')[2].partition('"')[0] for rule in rules}
    for key, _ in peers.partitions(["red-hair"], 2):
        name = key.partition("/")[0]
        assert outputs[name].format(style="red-hair", block=key[-4:]) == key


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
    alone = {"editor+teacher, 20 steps": 0.4, "editor+teacher, 100 steps": 2.0, "student": 0.01}
    together = {f"{name}, in a batch of 4": spent / 2 for name, spent in alone.items()}
    seconds = alone | together | {"student, another view": 0.005}
    short, paper, _, batch, view = student.rows_of(seconds, [20, 100], 4)
    assert (short.ratio, short.reached) == (pytest.approx(40), None)
    assert (paper.ratio, paper.reached) == (pytest.approx(200), False)
    assert (batch.ours, batch.theirs) == (pytest.approx(5), pytest.approx(1000))
    assert view.ratio == pytest.approx(2)
    costs = {"stillroom": 2.0, "snakemake": 3.0, "dvc": 9.0}
    tools = {name: {"no-op plan": {"cpu_s": cost}} for name, cost in costs.items()}
    (row,) = orchestrator.rows_of({"compared": {"tools": tools, "partitions": 7}})
    assert (row.alternative, row.theirs, row.ratio, row.reached) == ("snakemake", 3.0, 1.5, True)


def test_a_benchmark_that_is_not_there_is_left_out_with_the_reason() -> None:
    assert Bench("no-such", 1).reason_to_leave_out() == "there is no benchmarks/no-such.py"
    assert Bench("shards", 1).reason_to_leave_out() == ""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose benchmarks are a good one, one that fails and one that never ends."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "good.py").write_text('import sys; open(sys.argv[-1], \'w\').write(\'{"rows": [{"what": "speed"}]}\')')
    (folder / "bad.py").write_text("raise ValueError('no such luck')")
    child = "import time; time.sleep(99)"
    (folder / "endless.py").write_text(
        f"import subprocess, sys, tempfile, time\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "open('child', 'w').write(f'{child.pid} {tempfile.mkdtemp()}')\ntime.sleep(99)"
    )
    monkeypatch.setattr(__main__, "PROJECT", tmp_path)
    monkeypatch.setattr(__main__, "RESULTS", tmp_path)
    return tmp_path


def test_a_benchmark_that_fails_takes_no_other_with_it_and_is_in_the_table(project: Path) -> None:
    benches = [Bench("bad", 1), Bench("gone", 1), Bench("good", 1)]
    said = io.StringIO()
    problems = run_all(benches, Console(file=said, width=200))
    assert problems["bad"].startswith("failed: ValueError: no such luck")
    assert problems["gone"].startswith(LEFT_OUT)
    rows = [row for bench in benches for row in read_rows(bench, problems)]
    assert [(row.what, row.cells()[1]) for row in rows] == [
        ("bad", "failed: ValueError: no such luck"),
        ("gone", "left out, there is no benchmarks/gone.py"),
        ("speed", ""),
    ]
    assert said.getvalue().startswith("seconds: bad 1, good 1; about 0 minutes")


def test_a_benchmark_over_its_time_ends_with_its_children_and_files(project: Path) -> None:
    assert run(Bench("endless", 1), project, limit_s=12.0).startswith("stopped after 12 s")
    pid, temporary = (project / "child").read_text().split()
    assert not psutil.pid_exists(int(pid))
    assert not Path(temporary).exists()


def test_the_table_is_put_between_its_marks_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}after\n")
    rows = [Row("speed", "ms", 1.5, reached=True), Row("video", problem="failed: a|b")]
    write_docs(rows, {"cpu": "a CPU", "cores": 2, "load": 0.5}, page)
    text = page.read_text()
    assert text.startswith(f"before\n{MARKS[0]}`make bench`")
    assert text.endswith(f"{MARKS[1]}after\n")
    assert "| speed | 1.5 ms |" in text
    assert "| video | failed: a/b |" in text
    assert "old" not in text
    assert __main__.DOCS.read_text(encoding="utf-8").count(MARKS[0]) == 1
