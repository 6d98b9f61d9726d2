"""The stages as they are declared (needs, settings, sources, models, code), with one line of text for a picture.

So a plan of the real workflow can be built, changed and built again in moments. The code behind the stages is a copy
of the project that a test may rewrite.
"""

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa

from data_catalog.config.places import PROJECT
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles, read_style
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.plan.source import PACKAGES, SourceReader
from data_catalog.products.snapshot import Snapshot, publish, write_snapshot_files
from data_catalog.samples.encoding import encode_json
from data_catalog.store.execute import execute
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Summary
from data_catalog.store.stage import Work
from data_catalog.store.store import Store
from models.zoo import zoo
from tasks.portraits import blocks
from tasks.stages import STAGES

BY_NAME = {stage.name: stage for stage in STAGES}
SAMPLES = 2  # per block
SOURCE = SourceReader()  # reads the code once for all workshops without a copy of their own


def work_in_words(work: Work) -> Summary:
    """Write down all that the stage may read, as the real one depends on it: comments of a style file do not count."""
    stage = BY_NAME[work.partition.stage]
    told = {
        "partition": work.partition.key,
        "settings": stage.reads(work.settings, work.partition),
        "styles": [read_style(path).prompts for path in work.sources.values()],
        "inputs": {each.partition.key: each.digest for given in work.inputs.values() for each in given},
    }
    (work.folder / "told.json").write_bytes(encode_json(told))
    if work.partition.stage == "dataset":
        styles = sorted({each.partition.style for each in work.inputs["teach"]})
        rows = [{"key": style, "portrait_id": style, "split": "train"} for style in styles]
        manifest = {"samples": len(rows), "partitions": told["inputs"]}
        write_snapshot_files(work.folder, pa.Table.from_pylist(rows), manifest)
    parts = {f"{each.partition.block:04d}": digest_json(each.digest) for each in work.inputs.get("score", ())}
    return Summary(samples=SAMPLES, parts=parts if work.partition.stage == "select" else {})


class Workshop:
    """A data root, style files, settings, weights and code, to change one at a time."""

    def __init__(self, folder: Path, styles: tuple[str, ...] = ("red-hair", "zombie")) -> None:
        self.root, self.styles, self.project = folder / "data", folder / "styles", folder / "project"
        self.styles.mkdir(parents=True)
        for slug in styles:
            self.add_style(slug)
        self.overrides: list[str] = []
        self.weights: dict[str, str] = {}

    def copy_code(self) -> None:
        """Let the stages be made by a copy of the project's code."""
        for package in PACKAGES:
            shutil.copytree(PROJECT / package, self.project / package, ignore=_all_but_code)

    def add_style(self, slug: str) -> None:
        (self.styles / f"{slug}.txt").write_text(f"Turn it into {slug}\nMake it {slug}\n")

    @property
    def settings(self) -> Settings:
        small = ["portraits.count=4", f"portraits.block_size={SAMPLES}", f"prompts.styles_dir={self.styles}"]
        return load_settings("demo", [*small, *self.overrides])

    def plan(self, **options: object) -> Plan:
        settings = self.settings
        memory = self.root / "catalog" / "code" / "analyses.json"
        return make_plan(
            STAGES,
            settings,
            Store(self.root),
            list_styles(settings),
            blocks(settings),
            lambda name: self.weights.get(name, f"weights of {name}"),
            model_modules=zoo.modules,
            source=SourceReader(self.project, memory) if self.project.exists() else SOURCE,
            **options,
        )

    def build(self, until: str = "evaluate", **options: object) -> list[str]:
        """Make what is to be made; returns the keys of what ran."""
        plan, ran = self.plan(**options), []
        for stage in STAGES:
            for job in plan.resolve(stage.name):
                plan.finish(execute(dataclasses.replace(job, run=work_in_words), self.root))
                ran.append(job.key)
            if stage.name == until:
                break
        plan.save()
        return ran

    def publish(self) -> Snapshot:
        """Take a snapshot of the dataset as it is."""
        plan = self.plan()
        entry = plan.steps["dataset/all"].entry
        assert entry is not None
        return publish(self.root, plan.catalog.folder(entry))


def _all_but_code(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()]
