"""A data root to show on the page: two students and a dataset with rejected samples; an adapted style."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from data_catalog.products.snapshot import SAMPLES, publish, write_snapshot_files
from data_catalog.products.students import ADAPTED, DELTA
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from models.three_d.adaptation import read_delta
from tasks.tables.samples import LOST, LostRow
from tests.worlds import pupil, taught

KNOWN = ("bronze-statue", "lost-style", "red-hair", "zombie")  # of the newest student; one has no file any more


def make(root: Path) -> Path:
    """Returns the root."""
    for seed, styles in ((1, ("neon",)), (0, KNOWN)):
        pupil.store_student(root, seed, styles)
    folder = taught.write_dataset(root, taught.untrained_teacher())
    table = pq.read_table(folder / SAMPLES)
    place = table.schema.get_field_index("score_identity")
    styles = table["style"].to_pylist()
    scores = [0.05 * styles[:number].count(style) for number, style in enumerate(styles)]  # 0, 0.05, ... 0.3
    table = table.set_column(place, "score_identity", pa.array(scores, pa.float64()))
    manifest = {
        "name": "small",
        "profile": "demo",
        "samples": len(table),
        "styles": {style: {} for style in taught.STYLES},
    }
    write_snapshot_files(folder, table, manifest)
    rejected = [
        LostRow(id="p1-clown-0-0", style="clown", split="train", stage="select", reason="identity 0.02 below 0.1"),
        LostRow(id="p2", split="train", stage="align", reason="no landmarks"),
    ]
    LOST.write(folder, rejected)
    fingerprint = folder.name.ljust(64, "0")
    record = Record(
        partition="dataset/all",
        stage="dataset",
        version=1,
        fingerprint=fingerprint,
        fingerprint_inputs={},
        digest="d" * 64,
        files={},
    )
    Store(root).write_record(record)
    publish(root, folder)
    return root


def store_adapted(root: Path, student: str, style: str) -> None:
    """Store an adapted style of a student (its digest): here, the weights of another student."""
    store, partition = Store(root), Partition("adapt", style)
    fingerprint = digest_json(["adapt", style, student])
    folder = store.begin(partition, fingerprint)
    save_file(read_delta(pupil.network(1)), folder / DELTA)
    (folder / ADAPTED).write_bytes(encode_json({"style": style, "student": student}))
    record = Record(
        partition=partition.key,
        stage="adapt",
        version=1,
        fingerprint=fingerprint,
        fingerprint_inputs={},
        digest="",
        files={},
    )
    store.commit(folder, record)
