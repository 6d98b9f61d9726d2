"""A small workflow of instant stages with real files, and a world around it that a test may change and damage.

portraits (block) -> edit (style, block) -> select (style) -> teach (style, block; part of select) -> dataset -> distill

Every function writes into `ran.log` beside the data root that it starts, so that a test can count what was computed,
also by processes that were killed. `distill` trains in steps and continues from its last checkpoint.
"""

import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.plan.source import SourceReader
from data_catalog.products.snapshot import publish, write_snapshot_files
from data_catalog.store.execute import Job, execute
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Summary
from data_catalog.store.stage import Need, Partition, Stage, Work
from data_catalog.store.store import Store

SOURCE = SourceReader()  # parses this file once for all worlds
STEPS, CHECKPOINT_EVERY = 12, 4
PENCIL = '''"""The code of one stage, which a test rewrites."""
from tests.worlds.instant import draw

COLOUR = {colour!r}


def make_edit(work):{comment}
    return draw(work, COLOUR)
'''


def note_start(work: Work, what: str) -> None:
    """Write a line to `ran.log`, atomically for several processes."""
    descriptor = os.open(work.root.parent / "ran.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)
    if (work.root.parent / "slow").exists():
        time.sleep(0.004)


def write(path: Path, text: str) -> None:
    """In two pieces: `kill_at` may end the process between them."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as stream:
        stream.write(text[: len(text) // 2])
        stream.flush()
        sys.audit("stillroom.half", str(path))
        stream.write(text[len(text) // 2 :])


def make_portraits(work: Work) -> Summary:
    note_start(work, work.partition.key)
    names = work.sources["faces"].read_text().split()
    for number, name in enumerate(names):
        write(work.folder / "images" / f"{number}.txt", f"portrait of {name} {work.settings.portraits.seed}")
    return Summary(samples=len(names))


def draw(work: Work, colour: str) -> Summary:
    """The pencil's part of edit. The first line of the block `poison` of a style `poison` cannot be drawn at all."""
    note_start(work, work.partition.key)
    if (work.root.parent / f"poison-{work.partition.style}-{work.partition.block}").exists():
        raise ValueError("the pencil broke\nin two")
    prompt = work.sources["style"].read_text().strip()
    lines = [
        f"{path.read_text()}, {prompt}, {work.settings.edit.steps}, {colour}"
        for path in sorted((work.input("portraits").folder / "images").iterdir())
    ]
    write(work.folder / "edit.json", json.dumps(lines))
    return Summary(samples=len(lines))


def make_edit(work: Work) -> Summary:
    return draw(work, "grey")


def make_select(work: Work) -> Summary:
    note_start(work, work.partition.key)
    kept = {}
    for made in work.inputs["edit"]:
        lines = json.loads((made.folder / "edit.json").read_text())
        # Only the second block has a sample that the quantile can take away.
        kept[f"{made.partition.block:04d}"] = keep(lines, made.partition.block or 0, work.settings.select.quantile)
    write(work.folder / "select.json", json.dumps(kept))
    return Summary(
        samples=sum(map(len, kept.values())), parts={block: digest_json(lines) for block, lines in kept.items()}
    )


def keep(lines: list[str], block: int, quantile: float) -> list[str]:
    return lines[1:] if block == 1 and quantile > 0.1 else lines


def make_teach(work: Work) -> Summary:
    note_start(work, work.partition.key)
    kept = json.loads((work.input("select").folder / "select.json").read_text())[f"{work.partition.block:04d}"]
    write(work.folder / "shard.txt", "\n".join(kept))
    write(work.folder / "index.json", json.dumps([digest_json(line) for line in kept]))
    return Summary(samples=len(kept))


def make_dataset(work: Work) -> Summary:
    note_start(work, work.partition.key)
    lines = [
        (made.partition.key, line)
        for made in work.inputs["teach"]
        for line in (made.folder / "shard.txt").read_text().splitlines()
    ]
    rows = [
        {"key": f"s{number:04d}", "line": line, "portrait_id": line, "split": "train"}
        for number, (_, line) in enumerate(lines)
    ]
    schema = pa.schema([(name, pa.string()) for name in ("key", "line", "portrait_id", "split")])
    write_snapshot_files(work.folder, pa.Table.from_pylist(rows, schema=schema), {"samples": len(rows)})
    return Summary(samples=len(rows))


def make_student(work: Work) -> Summary:
    """Each step mixes the last state with the dataset; every fourth leaves a checkpoint."""
    checkpoint = work.working / "checkpoint.json"
    step, state = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, "")
    note_start(work, work.partition.key)
    while step < STEPS:
        step += 1
        note_start(work, f"step {step}")
        state = digest_json([state, step, work.input("dataset").digest])
        if step % CHECKPOINT_EVERY == 0:
            write(work.working / "checkpoint.tmp", json.dumps([step, state]))
            (work.working / "checkpoint.tmp").replace(checkpoint)
    write(work.folder / "student.txt", state)
    return Summary(samples=STEPS)


def style_source(settings: Settings, partition: Partition) -> dict[str, Path]:
    return {"style": Path(settings.prompts.styles_dir) / f"{partition.style}.txt"}


def faces_source(settings: Settings, partition: Partition) -> dict[str, Path]:
    return {"faces": Path(settings.portraits.source) / f"{partition.block}.txt"}


def stages(edit: Callable[[Work], Summary] = make_edit) -> tuple[Stage, ...]:
    """The workflow, with this function as its edit stage."""
    return (
        Stage(
            "portraits",
            1,
            make_portraits,
            ("block",),
            reads=lambda s, p: {"seed": s.portraits.seed},
            sources=faces_source,
        ),
        Stage(
            "edit",
            1,
            edit,
            ("style", "block"),
            needs=(Need("portraits"),),
            reads=lambda s, p: {"steps": s.edit.steps},
            sources=style_source,
        ),
        Stage(
            "select",
            1,
            make_select,
            ("style",),
            needs=(Need("edit"),),
            reads=lambda s, p: {"quantile": s.select.quantile},
        ),
        Stage("teach", 1, make_teach, ("style", "block"), (Need("edit"), Need("select", part=True))),
        Stage("dataset", 1, make_dataset, (), (Need("teach"),)),
        Stage("distill", 1, make_student, (), (Need("dataset"),), resumes=True),
    )


class World:
    """A data root with styles, portraits, settings and code beside it, to change one at a time."""

    def __init__(self, place: Path, blocks: int = 2, styles: Sequence[str] = ("zombie", "red-hair")) -> None:
        self.place, self.root = place, place / "data"
        for folder in ("styles", "faces"):
            (place / folder).mkdir(parents=True)
        for style in styles:
            self.set_style(style, f"Turn it into {style}")
        for block in range(blocks):
            self.set_faces(block, f"ann{block} bob{block} cyd{block}")
        self.changes: dict[str, dict[str, object]] = {}
        self.stages = stages()
        self.source = SOURCE

    def set_style(self, slug: str, prompt: str) -> None:
        self._source(self.place / "styles" / f"{slug}.txt", prompt)

    def set_faces(self, block: int, names: str) -> None:
        self._source(self.place / "faces" / f"{block}.txt", names)

    def _source(self, path: Path, text: str) -> None:
        path.write_text(text)
        # Long ago, as a user's files are; the content's own second, so that another content has another mtime.
        second = 10**9 + int(digest_json(text)[:6], 16)
        os.utime(path, (second, second))

    def set_code(self, colour: str, comment: str = "") -> None:
        """Rewrite the edit stage's module and load it, as another process would find it."""
        path = self.place / "pencil.py"
        path.write_text(PENCIL.format(colour=colour, comment=f"  # {comment}" if comment else ""))
        spec = importlib.util.spec_from_file_location(f"pencil_{digest_json(str(self.place))[:8]}", path)
        assert spec is not None
        assert spec.loader is not None
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)  # past the bytecode cache
        self.stages, self.source = stages(module.make_edit), SourceReader()

    @property
    def slugs(self) -> list[str]:
        return sorted(path.stem for path in (self.place / "styles").glob("*.txt"))

    @property
    def blocks(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.place / "faces").glob("*.txt"))

    def settings(self) -> Settings:
        places: dict[str, dict[str, Any]] = {
            "prompts": {"styles_dir": str(self.place / "styles")},
            "portraits": {"source": str(self.place / "faces")},
        }
        for section, values in self.changes.items():
            places.setdefault(section, {}).update(values)
        return Settings.model_validate(places)

    def plan(self) -> Plan:
        store = Store(self.root)
        return make_plan(
            self.stages, self.settings(), store, self.slugs, self.blocks, lambda name: name, source=self.source
        )

    def build(self, carry_out: Callable[[list[Job], Path], list[Any]] | None = None) -> list[str]:
        """All stages and a snapshot, as the flows do it. Returns what was made; `carry_out` runs a stage's jobs."""
        plan, made = self.plan(), []
        for stage in plan.stages:
            jobs = plan.resolve(stage.name)
            for record in carry_out(jobs, self.root) if carry_out else [execute(job, self.root) for job in jobs]:
                plan.finish(record)
            made += [job.key for job in jobs]
            plan.save()
        (dataset,) = plan.by_stage["dataset"]
        assert dataset.entry is not None
        publish(self.root, plan.catalog.folder(dataset.entry), {"README.md": b"a card\n"})
        return made

    def digests(self) -> dict[str, str]:
        """Digests of partitions that the plan takes as made, by key."""
        return {key: step.entry.digest for key, step in self.plan().steps.items() if step.made and step.entry}

    def folder(self, key: str) -> Path:
        """Return the folder of a made partition."""
        plan = self.plan()
        entry = plan.steps[key].entry
        assert entry is not None, key
        return plan.catalog.folder(entry)

    def ran(self) -> Counter[str]:
        """Count the starts of each partition and training step so far, by all processes."""
        log = self.place / "ran.log"
        return Counter(log.read_text().splitlines() if log.exists() else [])
