"""Cost of a plan: it grows with partitions, not with the samples in them."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.store.execute import execute
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Summary
from data_catalog.store.stage import Need, Stage, Work
from data_catalog.store.store import Store

BLOCKS = 40


def edit_of(samples: int) -> Callable[[Work], Summary]:
    """A stage's work that writes so many samples."""

    def work_on(work: Work) -> Summary:
        rows = [{"key": f"p{work.partition.block:04d}{number:08d}", "score": number} for number in range(samples)]
        (work.folder / "samples.json").write_text(json.dumps(rows))
        return Summary(samples=samples, rejected={"identity": samples // 3})

    return work_on


def select(work: Work) -> Summary:
    made = {given.partition.place or "": given for given in work.inputs["edit"]}
    kept = {place: json.loads((given.folder / "samples.json").read_text())[::2] for place, given in made.items()}
    (work.folder / "selected.json").write_text(json.dumps(kept))
    return Summary(
        samples=sum(map(len, kept.values())), parts={place: digest_json(keys) for place, keys in kept.items()}
    )


def plan(root: Path, samples: int) -> Plan:
    stages = (
        Stage("edit", 1, edit_of(samples), ("style", "block")),
        Stage("select", 1, select, ("style",), needs=(Need("edit"),)),
    )
    return make_plan(stages, Settings(), Store(root), ["bronze", "zombie"], list(range(BLOCKS)), str)


def build(root: Path, samples: int) -> None:
    made = plan(root, samples)
    for stage in made.stages:
        for job in made.resolve(stage.name):
            made.finish(execute(job, root))
    made.save()


def peak_of_plan(root: Path, samples: int) -> int:
    """Bytes that Python allocates at most while everything is found to be cached."""
    tracemalloc.start()
    try:
        steps = plan(root, samples).steps.values()
        assert {step.state for step in steps} == {"cached"}
        assert sum(step.entry.samples for step in steps if step.entry) == 2 * BLOCKS * (samples + (samples + 1) // 2)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_plan_needs_no_more_memory_for_more_samples(tmp_path: Path) -> None:
    build(tmp_path / "few", 2)
    build(tmp_path / "many", 2000)
    peak_of_plan(tmp_path / "few", 2)  # what is imported and cached by the first plan of a process
    few, many = (peak_of_plan(tmp_path / name, count) for name, count in (("few", 2), ("many", 2000)))
    assert many < 1.05 * few
