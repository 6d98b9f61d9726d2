import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from data_catalog.config.settings import DatasetSettings, EvaluateSettings, Settings
from data_catalog.products.snapshot import publish
from data_catalog.store.stage import Work
from data_catalog.store.store import Store
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from models.three_d import mae
from models.three_d.mae import Mae, MaeEncoder
from tasks import dataset, evaluate
from tasks.datasets.origins import flatten
from tasks.distill import make_student
from tasks.evaluation.methods import Models
from tasks.evaluation.metrics import Judges
from tasks.evaluation.table import METHODS
from tasks.language.encoder import KNOWN
from tasks.reports.dataset import dataset_documents, find_evaluation
from tasks.reports.rejected import show_reasons
from tasks.sources.photographs import HEADS_ONLY
from tasks.tables.samples import LOST, REJECTED, SAMPLE_ROWS
from tasks.tables.scores import PHOTO_MEASURES
from tasks.training.batches import Prompts
from tasks.training.data import read_samples
from tests.worlds.chain import SETTINGS, Chain, shared_chain
from tests.worlds.taught import untrained_teacher
from tests.worlds.tiny import tiny_clip, tiny_editor


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return shared_chain(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def page(chain: Chain) -> str:
    return dataset_documents(chain.folder("dataset/all"), chain.root)["report.html"].decode()


def rejoin(chain: Chain, folder: Path, settings: Settings) -> Work:
    work = chain.work(dataset.STAGE)
    work.folder, work.settings = folder, settings
    dataset.run(work)
    return work


def test_the_dataset_has_one_row_for_each_taught_sample(chain: Chain) -> None:
    table = pq.read_table(chain.folder("dataset/all") / "samples.parquet")
    assert table.schema.equals(SAMPLE_ROWS.schema)
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    taught = [key for key in chain.made if key.startswith("teach/")]
    keys = {r["key"] for t in taught for r in pq.read_table(chain.folder(t) / "teach.parquet").to_pylist()}
    assert {row["key"] for row in rows} == keys
    needed = ("prompt", "camera", "true_camera", "portrait_seed", "pseudo_label_digest", "score_teacher_lpips", "rank")
    assert all(row[name] is not None for row in rows for name in needed)
    for row in rows:
        assert (chain.root / row["shard"]).is_file()
        assert row["style"] in row["key"]
        assert len(row["camera"]) == 25


def test_everything_that_was_lost_is_listed_with_its_stage_and_reason(chain: Chain) -> None:
    rows = pq.read_table(chain.folder("dataset/all") / REJECTED).to_pylist()
    found = sorted((row["stage"], row["style"] or "", row["reason"]) for row in rows)
    lost = [("portraits", "", "truncated")] * 2
    for style in ("red-hair", "zombie"):
        lost += [("select", style, "constant frame"), ("select", style, "editor: ValueError")]
    assert found == sorted(lost)


def test_the_manifest_counts_and_names_every_partition(chain: Chain) -> None:
    manifest = json.loads((chain.folder("dataset/all") / "manifest.json").read_text())
    assert manifest["samples"] == 8
    assert manifest["styles"]["zombie"] == {"train": 2, "val": 1, "test": 1}
    assert manifest["funnels"]["zombie"]["steps"][0] == {"step": "made", "left": 5}
    assert set(manifest["partitions"]) == set(chain.made) - {"dataset/all"}
    assert manifest["settings"]["teach"]["views"] == 2
    assert "batch_size" not in manifest["settings"]["edit"]


def test_joining_again_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    rejoin(chain, tmp_path, SETTINGS)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (chain.folder("dataset/all") / path.name).read_bytes()


def test_the_report_loads_nothing_from_elsewhere(page: str) -> None:
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]*)""", page)
    assert len(sources) > 10
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "@import" not in page
    assert "<script" not in page


def test_the_report_tells_what_the_networks_do_not_know_and_the_measures_of_photographs(
    chain: Chain, page: str, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(chain.folder("dataset/all"), folder)
    measures = {"faces": 2, "face_api_distance": 0.43, "change_outside": 0.07}
    rows = [replace(row, **measures) for row in SAMPLE_ROWS.read(folder)]
    rows = [replace(row, prompt="make her a robot") if row.style == "zombie" else row for row in rows]
    SAMPLE_ROWS.write(folder, rows, PHOTO_MEASURES)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"]["portraits"]["source"] = "/photographs"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    told = dataset_documents(folder, chain.root)["report.html"].decode()
    beyond = HEADS_ONLY[1:]
    assert (told.count(beyond), page.count(beyond)) == (1, 0)
    unknown = f"The text encoder does not know: robot; {KNOWN}."
    assert (told.count(unknown), page.count(unknown)) == (1, 0)
    assert told.count("faces 2, face-api distance 0.43, change outside 0.07") == 8
    assert "<td>face api distance</td><td>0.430</td>" in told
    assert "face api distance" not in page


def test_the_report_shows_every_style_with_its_funnel_and_what_was_rejected(page: str) -> None:
    for style in ("red-hair", "zombie"):
        assert f'id="{style}"' in page
    assert page.count('class="funnel"') == 2
    for text in ("constant frame", "editor: ValueError", "truncated", "Yield 60 %", "teacher view 2", "teach.views"):
        assert text in page
    # Four samples and the black frame of each style.
    assert page.count("data:image/webp") == 2 * (4 + 1)


def test_rejected_samples_are_kept_for_looking_at(chain: Chain) -> None:
    page = dataset_documents(chain.folder("dataset/all"), chain.root)["rejected.html"].decode()
    assert page.count("data:image/webp") == 2  # the black frame of each style; the others have no picture
    assert "select: constant frame" in page
    assert "editor: ValueError" in page
    black = [row for row in LOST.read(chain.folder("dataset/all")) if row.reason == "constant frame"]
    many = [replace(row, id=f"{row.id}{i}") for row in black for i in range(4) if i < 3 or row.style == "zombie"]
    (group,) = show_reasons(many, chain.root, per_reason=5)
    assert (group["count"], [row["style"] for row in group["shown"]]) == (7, ["red-hair", "zombie"] * 2 + ["red-hair"])


def test_what_the_teacher_shows_badly_is_left_out_of_the_snapshot(chain: Chain, tmp_path: Path) -> None:
    rows = pq.read_table(chain.folder("dataset/all") / "samples.parquet").to_pylist()
    gated = [row for row in rows if row["split"] != "test"]
    limit = sorted(row["score_teacher_lpips"] for row in gated)[1]
    own = SETTINGS.model_copy(update={"dataset": DatasetSettings(max_teacher_lpips=limit)})
    work = rejoin(chain, tmp_path, own)
    left = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    expected = {r["key"] for r in rows if r["split"] == "test" or r["score_teacher_lpips"] <= limit}
    assert {row["key"] for row in left} == expected
    assert len(expected) == len(rows) - len(gated) + 2
    lost = [row for row in pq.read_table(tmp_path / REJECTED).to_pylist() if row["stage"] == "dataset"]
    assert {row["id"] for row in lost} == {row["key"] for row in gated} - expected
    assert {row["reason"] for row in lost} == {"max_teacher_lpips"}
    assert dataset.reads(SETTINGS, work.partition) != dataset.reads(own, work.partition)
    funnels = open_manifest(tmp_path)["funnels"]
    assert sum(funnel["steps"][-1]["left"] for funnel in funnels.values()) == 2
    assert {funnel["steps"][-1]["step"] for funnel in funnels.values()} == {"taught"}


def test_views_that_lose_the_face_are_gated_too(chain: Chain) -> None:
    kept = SAMPLE_ROWS.read(chain.folder("dataset/all"))[0]
    row = replace(kept, split="train", score_teacher_lpips=0.1, score_view_identity=0.4)
    strict = DatasetSettings(min_view_identity=0.5)
    assert dataset.teacher_verdict(row, strict) == "min_view_identity"
    assert dataset.teacher_verdict(replace(row, split="test"), strict) == ""
    assert dataset.teacher_verdict(row, DatasetSettings()) == ""


def open_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def test_the_card_says_what_is_in_the_files(chain: Chain) -> None:
    card = dataset_documents(chain.folder("dataset/all"), chain.root)["README.md"].decode()
    assert card.startswith("---\npretty_name: stillroom\n")
    assert "| zombie | 2 | 1 | 1 | 60 % |" in card
    for name in ("triplane.npy", "prompt_split", "| select | constant frame | 2 |"):
        assert name in card


def test_the_card_names_a_styles_own_licence(chain: Chain, tmp_path: Path) -> None:
    styles, made = tmp_path / "styles", tmp_path / "made"
    styles.mkdir()
    made.mkdir()
    (styles / "neon.txt").write_text("make it neon\n")
    (styles / "zombie.yaml").write_text("prompts: [make him a zombie]\nlicence: CC BY 4.0, by A. Painter\n")
    own = SETTINGS.model_copy(update={"prompts": SETTINGS.prompts.model_copy(update={"styles_dir": str(styles)})})
    work = rejoin(chain, made, own)
    card = dataset_documents(work.folder, chain.root)["README.md"].decode()
    assert "Licence: see the sources of the portraits.\nStyle zombie: CC BY 4.0, by A. Painter.\n\n## Samples" in card
    before, after = (dataset.reads(settings, work.partition) for settings in (SETTINGS, own))
    assert "style_licences" not in before
    assert after["style_licences"] == {"zombie": "CC BY 4.0, by A. Painter"}


def test_documents_are_made_again_without_a_new_digest(chain: Chain, tmp_path: Path) -> None:
    folder = chain.folder("dataset/all")
    first = publish(tmp_path, folder, dataset_documents(folder, chain.root))
    second = publish(tmp_path, folder, dataset_documents(folder, chain.root))
    assert first == second
    assert sorted(path.name for path in first.folder.iterdir()) == [
        "README.md",
        "manifest.json",
        "rejected.html",
        "report.html",
        "samples.parquet",
    ]


@pytest.fixture(scope="module")
def evaluation(chain: Chain) -> Path:
    """An evaluation of a student that has not learned."""
    torch.manual_seed(0)
    clip, teacher, mae_small = tiny_clip(), untrained_teacher(), Mae(MaeEncoder(mae.EMBEDDED))
    judges = Judges(Recogniser(IdentityNet().eval()), clip, Perceptual.untrained().eval())
    settings = SETTINGS.model_copy(
        update={
            "edit": SETTINGS.edit.model_copy(update={"steps": 1}),
            "evaluate": EvaluateSettings(timing_repeats=1, bootstrap=100, pictures_per_style=1, turntable_frames=2),
        }
    )
    folder = chain.folder("dataset/all")
    prompts = Prompts(read_samples(folder, chain.root), clip, mae_small)
    student = make_student(teacher, prompts, settings).eval()
    work = chain.work(evaluate.STAGE)
    work.settings = settings
    evaluate.evaluate(work, Models(student, teacher, tiny_editor(clip), clip, mae_small, judges))
    return work.folder


def test_after_an_evaluation_the_report_shows_table_comparison_and_turntables(
    chain: Chain, page: str, evaluation: Path
) -> None:
    folder = chain.folder("dataset/all")
    with_student = dataset_documents(folder, chain.root, evaluation)["report.html"].decode()
    assert 'id="evaluation"' in with_student
    assert 'id="evaluation"' not in page
    for method in METHODS:
        assert f"<td>{method}</td>" in with_student
    assert "<td>student − editor+teacher</td>" in with_student
    assert with_student.count("data:image/gif;base64,") == 2
    assert with_student.count("data:image/webp") == page.count("data:image/webp") + 3  # a sheet a style, the figure
    for style in ("red-hair", "zombie"):
        assert f'id="student-{style}"' in with_student


def test_a_report_made_again_keeps_the_newest_evaluation_of_its_dataset(
    chain: Chain, evaluation: Path, tmp_path: Path
) -> None:
    shutil.copytree(chain.root / "store", tmp_path / "store")
    store, dataset_folder = Store(tmp_path), tmp_path / chain.folder("dataset/all").relative_to(chain.root)
    kept = chain.made["dataset/all"].record.model_copy(update={"fingerprint": chain.fingerprint})
    store.write_record(kept)
    assert find_evaluation(dataset_folder, tmp_path) is None
    for digest, expected in (("another", False), (kept.digest, True)):
        inputs = {"inputs": {"dataset/all": digest}}
        update = {"partition": "evaluate/all", "stage": "evaluate", "fingerprint_inputs": inputs}
        store.write_record(kept.model_copy(update=update))
        assert (find_evaluation(dataset_folder, tmp_path) is not None) == expected
    page = dataset_documents(dataset_folder, tmp_path)["report.html"].decode()
    assert 'id="evaluation"' in page


def test_text_from_outside_is_escaped(chain: Chain, tmp_path: Path) -> None:
    named = SETTINGS.dataset.model_copy(update={"name": "<script>alert(1)</script>"})
    work = rejoin(chain, tmp_path, SETTINGS.model_copy(update={"dataset": named}))
    page = dataset_documents(work.folder, chain.root)["report.html"].decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_settings_are_shown_as_the_command_line_takes_them() -> None:
    assert flatten({"edit": {"steps": 20, "x": None}, "a": "b"}) == [
        ("edit.steps", "20"),
        ("edit.x", "null"),
        ("a", '"b"'),
    ]
