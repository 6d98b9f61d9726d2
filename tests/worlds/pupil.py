"""A student that is quick to make: the shipped teacher's head and companions, its prompt encoder untrained but felt."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.products.snapshot import write_snapshot_files
from data_catalog.samples.encoding import encode_json, encode_png
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from models import procedural
from models.camera import orbit_label
from models.pixels import to_levels
from models.procedural.photo import raw_photo
from models.three_d.student import EMBEDDED
from models.three_d.student import Student as Network
from models.zoo import zoo
from tasks.datasets.made import dataset_settings, student_settings
from tasks.student.api import Student
from tasks.student.companions import find_companions
from tasks.training.student_files import save_student

SIZE = 64


@cache
def network(seed: int = 0) -> Network:
    """Its prompts turn the triplane a little, each its own way."""
    with torch.random.fork_rng(devices=[]):
        teacher = zoo.load("teacher", "embedded")  # the first time it is loaded, it draws numbers
        torch.manual_seed(seed)
        made = Network.from_teacher(teacher, EMBEDDED)
        torch.nn.init.normal_(made.encoder.Ref_encoder.proj_tail.weight, std=0.02)
    return made.eval().requires_grad_(False)


def network_with_encoders() -> Network:
    """The same, with encoders of prompts that have moved away from the frozen ones."""
    clip, mae = zoo.load("clip", "embedded"), zoo.load("mae", "embedded")
    config = replace(EMBEDDED, text=clip.text_config(), mae=mae.encoder.config)
    made = Network.from_teacher(zoo.load("teacher", "embedded"), config)
    part = made.encoder.Ref_encoder
    part.load_state_dict(network().encoder.Ref_encoder.state_dict(), strict=False)
    part.text_encoder.load_state_dict(clip.model.text_model.state_dict())
    part.mae_encoder.load_state_dict(mae.encoder.state_dict())
    with torch.no_grad():
        part.text_encoder.final_layer_norm.weight *= torch.linspace(-1, 1, 96)
        part.mae_encoder.norm.weight *= torch.linspace(-1, 1, 96)
    return made.eval().requires_grad_(False)


def student_with_encoders() -> Student:
    """A student whose prompts its own encoders read."""
    return Student(network_with_encoders(), find_companions(Settings()), Settings())


def student() -> Student:
    """A new one, so that it remembers no edits."""
    return Student(network(), find_companions(Settings()), Settings())


def aligned_portrait(seed: int = 0) -> np.ndarray:
    """(64, 64, 3) uint8."""
    rgb = procedural.render(procedural.portrait(seed), orbit_label(0.1, 0.0)[0], SIZE).rgb
    return to_levels(rgb)


def write_photos(folder: Path, count: int) -> list[Path]:
    """Raw photographs, not aligned: photo_0.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo_{seed}.png" for seed in range(count)]
    for seed, path in enumerate(paths):
        path.write_bytes(encode_png(raw_photo(seed).rgb))
    return paths


def store_dataset(root: Path) -> Record:
    """A dataset without samples, made by the profile demo."""
    store, partition = Store(root), Partition("dataset")
    inputs = {"stage": "dataset", "settings": dataset_settings(load_settings("demo")), "inputs": {}}
    fingerprint = digest_json(inputs)
    if (found := store.find(partition, fingerprint)) is not None:
        return found
    folder = store.begin(partition, fingerprint)
    row = {"key": "a", "style": "lost-style", "prompt_number": 0, "prompt": "make her look lost"}
    write_snapshot_files(folder, pa.Table.from_pylist([row]), {"samples": 1})
    record = Record(
        partition=partition.key,
        stage="dataset",
        version=1,
        fingerprint=fingerprint,
        fingerprint_inputs=inputs,
        digest="",
        files={},
    )
    return store.commit(folder, record)


def store_student(root: Path, seed: int = 0, styles: Sequence[str] = ("zombie",)) -> Record:
    """The student as the stage distill leaves it in the store of a data root. Another seed is another student."""
    store, partition = Store(root), Partition("distill")
    weights = {name: zoo.digest(name, "embedded") for name in ("clip", "mae")}
    learned = {"dataset/all": store_dataset(root).digest}
    chosen = student_settings(load_settings("demo"))["distill"]
    inputs = {"stage": "distill", "settings": chosen, "inputs": learned, "weights": weights, "seed": seed}
    folder = store.begin(partition, digest_json(inputs))
    save_student(network(seed), folder)
    settings = Settings().distill.model_dump(mode="json")
    (folder / "training.json").write_bytes(encode_json({"settings": settings, "styles": list(styles)}))
    record = Record(
        partition=partition.key,
        stage="distill",
        version=1,
        fingerprint=digest_json(inputs),
        fingerprint_inputs=inputs,
        digest="",
        files={},
        metrics={"val_l1": 0.25},
    )
    return store.commit(folder, record)
