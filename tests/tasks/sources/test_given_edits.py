"""Edits that came with the portraits, as in the public 3DPE dataset, in the place of the editor's."""

import hashlib
import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan
from data_catalog.products.snapshot import SAMPLES, publish
from data_catalog.samples.encoding import decode_rgb
from data_catalog.samples.tables import schema_of
from data_catalog.store.execute import execute
from data_catalog.store.stage import Partition
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from flows.care.regen import regenerate
from models import procedural
from tasks import dataset, edit
from tasks.datasets.export import export_dataset
from tasks.gating.shortfall import ask_for_more
from tasks.select import find_advice
from tasks.sources.edits import find_edits, given_style
from tasks.tables.edits import Edited
from tests.tasks.sources.test_portrait_sources import write
from tests.tasks.test_portraits import eg3d_label, picture
from tests.tasks.test_select import row as candidate
from tests.worlds.chain import STYLES, Chain, write_chain

Row = dict[str, Any]
GIVEN = ["edit.source=dataset", "portraits.count=null", "portraits.block_size=4", "prompts.styles=[red-hair, zombie]"]
SIDE = 64
MADE = ("portraits", "align", "prompts", "edit")


def given(source: Path, *overrides: str) -> Settings:
    return load_settings("demo", [f"portraits.source={source}", *GIVEN, *overrides])


def build(settings: Settings, root: Path, *stages: str) -> Plan:
    plan = open_plan(settings, root)
    for stage in stages:
        for job in plan.resolve(stage):
            plan.finish(execute(job, root))
    plan.save()
    return plan


def rows_of(plan: Plan, key: str, stage: str = "edit") -> list[Row]:
    return pq.read_table(folder_of(plan, key) / f"{stage}.parquet").to_pylist()


def folder_of(plan: Plan, key: str) -> Path:
    entry = plan.steps[key].entry
    assert entry is not None
    return plan.catalog.folder(entry)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four portraits with edits of two styles, one of them named otherwise than its slug."""
    root = tmp_path / "3dpe"
    for number in range(4):
        write(root, f"00000/{number}.png", picture(number, (SIDE, SIDE)))
        write(root, f"00000_zombie/{number}.png", picture(100 + number, (SIDE, SIDE)))
        write(root, f"00000_Red_hair/{number}.png", picture(200 + number, (SIDE, SIDE)))
    labels = [[f"00000/{number}.png", eg3d_label()] for number in range(4)]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


class Exported(NamedTuple):
    """A dataset of the real stages, its edits by portrait and style, and where its 3DPE export lies (out/, out.zip)."""

    chain: Chain
    edits: dict[tuple[str, str], bytes]
    folder: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    chain = write_chain(folder / "made")
    snapshot = publish(chain.root, chain.folder("dataset/all"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLROOM_DATA", str(chain.root))
        for name in ("out", "out.zip"):
            export_dataset("3dpe", folder / name, "latest", Workspace.open())
    edits = {}
    for row in snapshot.samples().to_pylist():
        with tarfile.open(chain.root / row["shard"]) as tar:
            member = tar.extractfile(f"{row['key']}.pseudo_label.png")
            assert member is not None
            edits[row["portrait_id"], row["style"]] = member.read()
    return Exported(chain, edits, folder)


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_exported_edits_come_back_byte_for_byte(exported: Exported, name: str, tmp_path: Path) -> None:
    plan = build(given(exported.folder / name), tmp_path / "data", *MADE)
    back = {}
    for style in STYLES:
        for row in rows_of(plan, f"edit/{style}/0000"):
            if row["status"] != "ok":
                assert row["reason"] == "no edit in the dataset"
                continue
            png = (folder_of(plan, f"edit/{style}/0000") / "pseudo_labels" / f"{row['key']}.png").read_bytes()
            file = exported.folder / "out" / row["edit_file"]
            assert row["edit_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
            assert row["pseudo_label_digest"] == hashlib.sha256(png).hexdigest()
            back[file.stem, style] = png  # the exporter names files by the portraits' ids
    assert back == exported.edits


def test_the_record_names_the_files_and_no_editor(source: Path, tmp_path: Path) -> None:
    plan = build(given(source), tmp_path / "data", *MADE)
    entry = plan.steps["edit/red-hair/0000"].entry
    assert entry is not None
    made_from = plan.made_from(entry)
    name = "00000_Red_hair/2.png"
    assert made_from["sources"][name] == hashlib.sha256((source / name).read_bytes()).hexdigest()
    assert (made_from["weights"], made_from["settings"]["edits"]["00000/2.png"]) == ({}, name)
    with Image.open(source / name) as original:
        (row,) = [row for row in rows_of(plan, "edit/red-hair/0000") if row["edit_file"] == name]
        taken = (folder_of(plan, "edit/red-hair/0000") / "pseudo_labels" / f"{row['key']}.png").read_bytes()
        assert (decode_rgb(taken) == np.asarray(original)).all()


def test_an_edit_is_cut_as_its_portrait_was(tmp_path: Path) -> None:
    """Photographs that are turned and shifted, by their landmarks; an edit has another resolution, too."""
    source, points = tmp_path / "photos", {}
    for seed in range(3):
        photo = procedural.raw_photo(seed)
        negative = Image.fromarray(255 - photo.rgb)
        half = negative.resize((negative.width // 2, negative.height // 2), Image.Resampling.BOX)
        write(source, f"a/{seed}.png", photo.rgb)
        write(source, f"a_zombie/{seed}.png", np.asarray(half if seed == 1 else negative))
        write(source, f"a_red-hair/{seed}.png", 255 - photo.rgb)
        points[f"a/{seed}.png"] = photo.landmarks.tolist()
    (source / "dataset.json").write_text('{"labels": []}')
    (source / "landmarks.json").write_text(json.dumps(points))
    plan = build(given(source), tmp_path / "data", *MADE)
    aligned, made = folder_of(plan, "align/0000") / "aligned", folder_of(plan, "edit/zombie/0000") / "pseudo_labels"
    for row in rows_of(plan, "edit/zombie/0000"):
        portrait = decode_rgb((aligned / f"{row['portrait_id']}.png").read_bytes()).astype(int)
        taken = decode_rgb((made / f"{row['key']}.png").read_bytes()).astype(int)
        off = np.abs(255 - taken - portrait)
        if row["edit_file"] == "a_zombie/1.png":
            assert off.mean() < 4
        else:
            assert off.max() <= 1
        assert np.abs(np.roll(255 - taken, 2, axis=1) - portrait).mean() > 4  # two pixels aside is another crop


def test_what_is_missing_or_wrong_is_lost_with_its_reason_and_judged_as_such(source: Path, tmp_path: Path) -> None:
    (source / "00000_zombie" / "0.png").unlink()
    (source / "00000_zombie" / "1.png").write_bytes(b"no picture")
    write(source, "00000_zombie/2.png", picture(3, (SIDE, SIDE // 2)))
    settings = given(source, "select.min_yield=0", "select.min_clip_text=null", "prompts.styles=[zombie]")
    plan = build(settings, tmp_path / "data", *MADE, "score", "select")
    entry = plan.steps["edit/zombie/0000"].entry
    assert entry is not None
    assert plan.catalog.read(entry).rejected == {
        "no edit in the dataset": 1,
        "edit: not an image": 1,
        "edit: not of its portrait's shape": 1,
    }
    assert entry.samples == 1
    scored = rows_of(plan, "score/zombie/0000", "score")
    assert {row["reason"] for row in scored} == {"", *plan.catalog.read(entry).rejected}
    reasons = [row["reason"] for row in rows_of(plan, "select/zombie", "select") if not row["kept"]]
    assert reasons.count("no picture") == 3


def test_a_style_that_keeps_too_few_of_them_stops_with_the_count(source: Path, tmp_path: Path) -> None:
    for number in range(1, 4):
        (source / "00000_zombie" / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"less than select\.min_yield") as caught:
        build(given(source, "select.min_yield=0.9", "prompts.styles=[zombie]"), tmp_path, *MADE, "score", "select")
    assert "no picture" in str(caught.value)


def test_there_is_one_sample_of_an_edit_and_no_further_attempt(source: Path, tmp_path: Path) -> None:
    plan = build(given(source, "edit.prompts_per_portrait=3"), tmp_path / "data", *MADE)
    assert len(rows_of(plan, "edit/zombie/0000")) == 4
    judged = [candidate(str(number), step="kept" if number > 1 else "identity") for number in range(4)]
    settings = given(source, "select.keep=3")
    wanted, advise = settings.select, partial(find_advice, "zombie", settings.select, settings)
    assert ask_for_more("zombie", judged, wanted, advise) == ["0000-a1"]
    with pytest.raises(UserError, match="came with the portraits, are all there are") as caught:
        ask_for_more("zombie", judged, wanted, advise, repeatable=False)
    assert "select.attempts" not in str(caught.value)
    assert "stillroom retry --set select.keep=2    (" in str(caught.value)


def test_only_the_partition_of_a_changed_edit_is_made_again(source: Path, tmp_path: Path) -> None:
    settings = given(source, "portraits.block_size=2")
    build(settings, tmp_path / "data", *MADE)
    write(source, "00000_zombie/3.png", picture(999, (SIDE, SIDE)))
    plan = open_plan(settings, tmp_path / "data")
    assert [step.key for step in plan.by_stage["edit"] if step.state == "run"] == ["edit/zombie/0001"]
    assert "00000_zombie/3.png" in str(plan.steps["edit/zombie/0001"].reasons[0])


def test_settings_of_the_editor_do_not_count_for_given_edits(source: Path) -> None:
    partition = Partition("edit", "zombie", 0)
    for override in ("edit.steps=7", "edit.guidance_scale=3", "edit.prompts_per_portrait=2"):
        assert edit.reads(given(source), partition) == edit.reads(given(source, override), partition)
    usual = load_settings("demo")
    assert edit.sources(usual, partition) == {}
    assert (edit.models(usual), edit.models(given(source))) == (("editor",), ())


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML"])
def test_a_style_is_found_by_its_slug_or_by_what_its_file_says(source: Path, tmp_path: Path, suffix: str) -> None:
    styles = tmp_path / "styles"
    styles.mkdir()
    (styles / f"undead{suffix}").write_text("prompts: [make it a zombie]\nedits: zombie\n")
    (styles / f"neon{suffix}").write_text("prompts: [make it glow]\nedits: editor\n")
    settings = given(source, f"prompts.styles_dir={styles}", "prompts.styles=null")
    assert given_style(settings, "undead") == "zombie"
    assert given_style(settings, "red-hair") == "Red_hair"
    assert given_style(settings, "neon") is None
    assert find_edits(settings, Partition("edit", "neon", 0)) is None
    assert edit.models(settings) == ("editor",)


def test_a_style_without_edits_is_an_error_that_names_those_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no edits of the style neon came with the portraits") as caught:
        open_plan(given(source, "prompts.styles=[neon]"), tmp_path / "data")
    assert "Red_hair, zombie" in str(caught.value)
    with pytest.raises(UserError, match="no edits of the style zombie") as caught:
        given_style(load_settings("demo", ["edit.source=dataset"]), "zombie")
    assert "edits lie in" in str(caught.value)
    write(source, "00000_red hair/0.png", picture(7))
    with pytest.raises(UserError, match="several edits supplied with the portraits match the style red-hair"):
        given_style(given(source), "red-hair")
    write(source, "00000_red-hair/0.png", picture(7))
    assert given_style(given(source), "red-hair") == "red-hair"


def test_a_sample_is_taken_again_from_its_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [f"portraits.source={source}", *GIVEN]
    plan = build(given(source), tmp_path / "data", *MADE)
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    key, workspace = rows_of(plan, "edit/zombie/0000")[1]["key"], Workspace.open("demo", overrides)
    assert regenerate(key, tmp_path / "out", workspace)["same"]


def test_the_samples_of_a_dataset_say_which_file_they_came_in(exported: Exported) -> None:
    chain = exported.chain
    assert "edit_file" not in pq.read_schema(chain.folder("dataset/all") / SAMPLES).names
    path = chain.folder("edit/zombie/0001") / "edit.parquet"
    rows = [row | {"edit_file": "a_zombie/1.png", "edit_sha256": "ab"} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of(Edited)), path)
    again = chain.work(dataset.STAGE)
    dataset.run(again)
    for row in pq.read_table(again.folder / SAMPLES).to_pylist():
        came = (row["style"], row["block"]) == ("zombie", 1)
        assert (row["edit_file"], row["edit_sha256"]) == (("a_zombie/1.png", "ab") if came else (None, None))
