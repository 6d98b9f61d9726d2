"""A small dataset of the procedural world as the stages before distill leave it, taught by an untrained teacher."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import torch

from data_catalog.config.settings import Settings, TeachSettings
from data_catalog.products.snapshot import write_snapshot_files
from data_catalog.samples.encoding import encode_array, encode_json, encode_png
from data_catalog.samples.keys import sample_key
from data_catalog.samples.shards import Sample, index_table, write_shard
from data_catalog.store.record import Record
from data_catalog.store.stage import Input, Partition, Work
from models import camera, procedural
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.pixels import to_levels
from models.three_d import live3d, mae
from models.three_d.live3d import Live3D
from models.three_d.mae import Mae, MaeEncoder
from models.three_d.student import Student
from tasks.distill import Networks, make_student
from tasks.tables.samples import SAMPLE_ROWS, SampleRow
from tasks.teach import Teachers, draw_view_cameras, encode_lesson, teach_sample
from tasks.training.batches import Prompts
from tasks.training.data import SampleRef, read_samples
from tests.worlds.tiny import tiny_clip

SIZE = 64
STYLES = ("clown", "red-hair")
SPLITS = ("train", "train", "train", "train", "val", "test", "test")


def untrained_teacher(seed: int = 0) -> Live3D:
    """The embedded teacher with random weights."""
    torch.manual_seed(seed)
    return Live3D(live3d.EMBEDDED).eval().requires_grad_(False)


def untrained_networks() -> Networks:
    """Build the networks that a student learns from."""
    torch.manual_seed(0)
    small = Mae(MaeEncoder(mae.EMBEDDED))
    return Networks(untrained_teacher(), Perceptual.untrained().eval(), tiny_clip(), small)


def begin_lesson(folder: Path, root: Path, networks: Networks) -> tuple[list[SampleRef], Prompts, Student]:
    """The samples of a dataset below `root`, their prompts, and a new student."""
    samples = read_samples(folder, root)
    prompts = Prompts(samples, networks.clip, networks.mae)
    return samples, prompts, make_student(networks.teacher, prompts, Settings())


def write_dataset(root: Path, teacher: Live3D, teach: TeachSettings | None = None) -> Path:
    """Shards below `root`, and the dataset's folder, which is returned. Pseudo-labels are the true edits."""
    teach = teach or TeachSettings(views=2)
    torch.manual_seed(0)
    teachers = Teachers(teacher, Recogniser(IdentityNet().eval()), Perceptual.untrained().eval())
    rows: list[SampleRow] = []
    for style in STYLES:
        shard = root / "store" / "teach" / style / "0000" / "0123456789abcdef" / "shard.tar"
        shard.parent.mkdir(parents=True)
        made = [_sample(teachers, teach, style, seed, split) for seed, split in enumerate(SPLITS)]
        made.sort(key=lambda pair: pair[0].key)
        entries = write_shard(shard, [sample for sample, _ in made])
        pq.write_table(index_table(entries), shard.parent / "index.parquet")
        rows += [replace(row, shard=str(shard.relative_to(root))) for _, row in made]
    folder = root / "store" / "dataset" / "all" / "0123456789abcdef"
    folder.mkdir(parents=True)
    write_snapshot_files(folder, SAMPLE_ROWS.of(rows), {"samples": len(rows)})
    return folder


def _sample(teachers: Teachers, teach: TeachSettings, style: str, seed: int, split: str) -> tuple[Sample, SampleRow]:
    person = procedural.portrait(seed)
    label = camera.orbit_label(0.1 * (seed % 7 - 3), 0.05)[0]
    plain, styled = (picture.rgb for picture in procedural.render_styles(person, label, SIZE, [None, style]))
    portrait, edited = (to_levels(rgb) for rgb in (plain, styled))
    portrait_id, number = f"p{seed:010x}", (8 if split == "test" else seed % 8)
    key = sample_key(portrait_id, style, number)
    lesson = teach_sample(teachers, edited, label.numpy(), draw_view_cameras(portrait_id, teach))
    row = SampleRow(
        key=key,
        style=style,
        prompt=f"prompt {number}: make it {style}",
        prompt_number=number,
        prompt_split="test" if split == "test" else "train",
        portrait_id=portrait_id,
        split=split,
        block=0,
        camera=label.tolist(),
        camera_source="given",
        true_camera=label.double().tolist(),
        portrait_seed=seed,
        seed=seed,
        attempt=0,
        pseudo_label_digest="",
        shard="",
    )
    fields = {
        "portrait.png": encode_png(portrait),
        "pseudo_label.png": encode_png(edited),
        "camera.npy": encode_array(label.numpy()),
        "meta.json": encode_json({"key": key}),
    }
    return Sample(key, fields | encode_lesson(lesson, teach)), row


def work_on(stage: str, root: Path, dataset: Path, settings: Settings, **inputs: Path) -> Work:
    """Return the work of a stage as the plan would pass it."""
    given = {"dataset": dataset, **inputs}
    record: Record = SimpleNamespace()  # type: ignore[assignment]  # the stages here read files alone
    folder = root / "store" / stage / "all" / ".part-0123456789abcdef"
    folder.mkdir(parents=True, exist_ok=True)
    return Work(
        partition=Partition(stage),
        inputs={name: [Input(Partition(name), path, "", record)] for name, path in given.items()},
        settings=settings,
        sources={},
        folder=folder,
        root=root,
    )
