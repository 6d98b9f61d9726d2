"""The stages from align to dataset, run one after another on a few heads, as the plan would have them run.

Portraits and pseudo-labels are true pictures of the procedural world; the networks that judge and teach are the
real classes, untrained.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_catalog.config.settings import SelectSettings, Settings, TeachSettings
from data_catalog.samples.encoding import encode_json, encode_png
from data_catalog.store.fingerprint import digest_file, digest_files
from data_catalog.store.record import Record
from data_catalog.store.stage import Input, Partition, Stage, Summary, Work
from models import procedural
from models.camera import orbit_label
from models.faces.landmarks import LandmarkNet
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.pixels import to_levels
from tasks import align, dataset, edit, portraits, score, select, teach
from tasks.tables.edits import EDITS
from tasks.tables.faces import FACES
from tasks.tables.portraits import PORTRAITS
from tests.worlds.taught import SIZE, untrained_teacher
from tests.worlds.tiny import tiny_clip

STYLES = ("red-hair", "zombie")
SPLITS = ("train", "train", "val", "train", "train", "test")
BLOCK_SIZE = 3
SETTINGS = Settings(
    select=SelectSettings(min_clip_direction=None, max_ssim=None, min_yield=0.2),
    teach=TeachSettings(views=2),
)


@dataclass
class Chain:
    """A data root with what has been made in it. `fingerprint` names the folders, as the store would."""

    root: Path
    settings: Settings
    fingerprint: str = "0123456789abcdef"
    made: dict[str, Input] = field(default_factory=dict)

    def work(self, stage: Stage, style: str | None = None, block: int | None = None) -> Work:
        """The partition's work, with its inputs as the plan gives them."""
        partition = Partition(stage.name, style, block)
        folder = self.root / "store" / partition.key / self.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        inputs: dict[str, list[Input]] = {}
        for need in stage.needs:
            inputs[need.stage] = [
                made
                for made in self.made.values()
                if made.partition.stage == need.stage
                and style in (None, made.partition.style or style)
                and block in (None, block if made.partition.block is None else made.partition.block)
            ]
        return Work(partition, inputs, self.settings, {}, folder, self.root)

    def keep(self, work: Work, summary: Summary | None = None) -> Summary:
        """Take what was made into the inputs of later stages."""
        files = {path.name: digest_file(path) for path in sorted(work.folder.iterdir()) if path.is_file()}
        digest, given = digest_files(files), summary or Summary()
        record = Record(
            partition=work.partition.key,
            stage=work.partition.stage,
            version=1,
            fingerprint=self.fingerprint * 4,
            fingerprint_inputs={},
            digest=digest,
            files={},
            parts=given.parts,
        )
        self.made[work.partition.key] = Input(work.partition, work.folder, digest, record)
        return given

    def folder(self, key: str) -> Path:
        return self.made[key].folder


@cache
def shared_chain(folder: Path) -> Chain:
    """Write the chain for all tests that only read it."""
    return write_chain(folder / "chain")


def write_chain(root: Path) -> Chain:
    """All stages for two styles and two blocks."""
    chain = Chain(root, SETTINGS)
    judges, teachers = networks()
    blocks = range(len(SPLITS) // BLOCK_SIZE)
    for block in blocks:
        write_portraits(chain, block)
    for style in STYLES:
        write_prompts(chain, style)
        for block in blocks:
            write_edits(chain, style, block)
            scored = chain.work(score.STAGE, style, block)
            chain.keep(scored, score.score(scored, judges))
        selected = chain.work(select.STAGE, style)
        chain.keep(selected, select.run(selected))
        for block in blocks:
            taught = chain.work(teach.STAGE, style, block)
            chain.keep(taught, teach.teach(taught, teachers))
    joined = chain.work(dataset.STAGE)
    chain.keep(joined, dataset.run(joined))
    return chain


def networks() -> tuple[score.Judges, teach.Teachers]:
    """Build untrained networks that judge and teach, the same each time."""
    torch.manual_seed(0)
    identity, lpips = Recogniser(IdentityNet().eval()), Perceptual.untrained().eval()
    judges = score.Judges(tiny_clip(), identity, LandmarkNet().eval(), lpips)
    return judges, teach.Teachers(untrained_teacher(), identity, lpips)


def write_portraits(chain: Chain, block: int) -> None:
    """Portraits that are aligned already, and one file that was no picture."""
    taken, aligned = chain.work(portraits.STAGE, block=block), chain.work(align.STAGE, block=block)
    (aligned.folder / "aligned").mkdir()
    raw: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for seed in range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE):
        portrait = {
            "portrait_id": f"p{seed:010x}",
            "split": SPLITS[seed],
            "name": str(seed),
            "status": "ok",
            "reason": "",
        }
        label = _camera(seed)
        face = {
            "camera": label.tolist(),
            "true_camera": label.double().tolist(),
            "camera_source": "given",
            "seed": seed,
        }
        raw.append(portrait)
        rows.append(portrait | face)
        picture = _picture(seed, None)
        (aligned.folder / "aligned" / f"{portrait['portrait_id']}.png").write_bytes(encode_png(picture))
    bad = {"portrait_id": None, "split": None, "name": f"bad-{block}.png", "status": "rejected", "reason": "truncated"}
    pq.write_table(pa.Table.from_pylist([*raw, bad], schema=PORTRAITS.schema), taken.folder / "portraits.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=FACES.schema), aligned.folder / "align.parquet")
    chain.keep(taken)
    chain.keep(aligned)


def write_prompts(chain: Chain, style: str) -> None:
    """A book of prompts."""
    work = chain.work(Stage("prompts", 1, lambda work: Summary()), style)
    book = {
        "style": style,
        "train": [{"number": n, "text": f"{style}, way {n}"} for n in range(8)],
        "test": [{"number": n, "text": f"{style}, way {n}"} for n in range(8, 13)],
        "source_caption": "a photo of a person",
        "target_caption": f"a photo of a person as {style}",
    }
    (work.folder / "prompts.json").write_bytes(encode_json(book))
    chain.keep(work)


def write_edits(chain: Chain, style: str, block: int) -> None:
    """True edits; of the first block, one is a black frame and one could not be made."""
    work = chain.work(edit.STAGE, style, block)
    (work.folder / "pseudo_labels").mkdir()
    people = FACES.read(work.input("align").folder)
    book = {kind: [{"number": n, "text": f"{style}, way {n}"} for n in of] for kind, of in _NUMBERS.items()}
    rows = []
    for number, planned in enumerate(edit.plan_edits(people, book | {"style": style}, chain.settings.edit)):
        failed = (block, number) == (0, 1)
        row = vars(planned) | {
            "status": "rejected" if failed else "ok",
            "reason": "editor: ValueError" if failed else "",
        }
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        if (block, number) != (0, 0):
            picture = _picture(int(planned.portrait_id[1:], 16), style)
        if not failed:
            path = work.folder / "pseudo_labels" / f"{planned.key}.png"
            path.write_bytes(encode_png(picture))
            row["pseudo_label_digest"] = digest_file(path)
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=EDITS.schema), work.folder / "edit.parquet")
    chain.keep(work)


_NUMBERS = {"train": range(8), "test": range(8, 13)}


def _camera(seed: int) -> torch.Tensor:
    return orbit_label(0.1 * (seed - 2), 0.05)[0]


def _picture(seed: int, style: str | None) -> np.ndarray:
    rgb = procedural.render(procedural.portrait(seed), _camera(seed), SIZE, style).rgb
    return to_levels(rgb)
