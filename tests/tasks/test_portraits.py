"""Taking portraits in: content ids, frozen splits, quarantine, blocks that do not move."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_png
from data_catalog.store.stage import Partition, Summary, Work
from tasks import portraits
from tasks.tables.portraits import Portrait

Row = dict[str, Any]


def picture(number: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """(H, W, 3) uint8, different for every number."""
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def make_settings(source: Path | str, *overrides: str) -> Settings:
    return load_settings("demo", [f"portraits.source={source}", *overrides])


def take(settings: Settings, block: int, folder: Path) -> tuple[list[Row], Summary]:
    """The rows of one block."""
    partition = Partition("portraits", None, block)
    folder.mkdir(parents=True)
    work = Work(partition, {}, settings, portraits.sources(settings, partition), folder)
    summary = portraits.run(work)
    return pq.read_table(folder / "portraits.parquet").to_pylist(), summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight good pictures."""
    path = tmp_path / "portraits"
    path.mkdir()
    for number in range(8):
        (path / f"face_{number}.png").write_bytes(encode_png(picture(number)))
    return path


def test_a_folder_becomes_portraits_named_by_their_pixels(folder: Path, tmp_path: Path) -> None:
    rows, summary = take(make_settings(folder), 0, tmp_path / "out")
    assert (summary.samples, summary.rejected) == (8, {})
    assert [row["portrait_id"] for row in rows] == sorted(row["portrait_id"] for row in rows)
    for row in rows:
        assert row["portrait_id"] == f"p{row['sha256'][:10]}"
        assert (row["width"], row["height"], row["source"]) == (48, 40, "folder")
        with Image.open(tmp_path / "out" / "images" / f"{row['portrait_id']}.png") as image:
            assert (np.asarray(image) == picture(int(row["name"][5]))).all()


def test_the_same_pixels_in_another_format_have_the_same_id(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    Image.fromarray(picture(1)).save(tmp_path / "b.bmp")
    rows, summary = take(make_settings(tmp_path), 0, tmp_path / "out")
    assert summary.rejected == {"duplicate": 1}
    assert {row["name"]: row["reason"] for row in rows} == {"a.png": "", "b.bmp": "duplicate of a.png"}


def test_bad_files_are_rows_with_a_reason_and_nothing_else_is_lost(folder: Path, tmp_path: Path) -> None:
    good = encode_png(picture(99))
    noise = io.BytesIO()
    Image.fromarray(picture(98, (300, 300))).save(noise, "JPEG")
    (folder / "corrupt.png").write_bytes(good[:60] + b"garbage" + good[67:])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    (folder / "truncated.jpg").write_bytes(noise.getvalue()[:5000])
    (folder / "tiny.png").write_bytes(encode_png(picture(5, (8, 8))))
    (folder / "huge.png").write_bytes(encode_png(np.zeros((400, 400, 3), np.uint8)))
    rows, summary = take(
        make_settings(folder, "portraits.max_pixels=100000", "portraits.block_size=20"), 0, tmp_path / "out"
    )
    assert summary.samples == 8
    assert summary.rejected == {
        "corrupt": 1, "empty file": 1, "not an image": 1, "truncated": 1, "too small": 1, "too large": 1
    }  # fmt: skip
    bad = [row for row in rows if row["status"] == "rejected"]
    assert all(row["reason"] and row["portrait_id"] is None and row["split"] is None for row in bad)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 8


def test_odd_but_readable_pictures_are_read_right(tmp_path: Path) -> None:
    rgb = picture(1)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "rotated.jpg", exif=exif)
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])).save(tmp_path / "alpha.png")
    Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    rows, summary = take(make_settings(tmp_path), 0, tmp_path / "out")
    assert summary.samples == 4
    sizes = {row["name"]: (row["width"], row["height"]) for row in rows}
    assert sizes.pop("rotated.jpg") == (40, 48)
    assert set(sizes.values()) == {(48, 40)}


def test_the_pattern_chooses_files(folder: Path, tmp_path: Path) -> None:
    (folder / "pseudo_label_1.png").write_bytes(encode_png(picture(77)))
    rows, _ = take(make_settings(folder, "portraits.pattern=face_*.png"), 0, tmp_path / "out")
    assert {row["name"] for row in rows} == {f"face_{number}.png" for number in range(8)}


def test_a_source_that_is_not_there_or_empty_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        portraits.blocks(make_settings(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no file to take in"):
        portraits.blocks(make_settings(tmp_path))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        portraits.blocks(make_settings(tmp_path / "notes.txt"))
    settings = load_settings("demo", ["portraits.val_fraction=0.5", "portraits.test_fraction=0.5"])
    with pytest.raises(UserError, match="leave no portrait to train on"):
        portraits.reads(settings, Partition("portraits", None, 0))


def test_growing_the_source_leaves_full_blocks_as_they_are(folder: Path) -> None:
    def inputs(count: int, block: int) -> tuple[dict[str, Any], dict[str, Path]]:
        settings = make_settings(folder, f"portraits.count={count}", "portraits.block_size=4")
        partition = Partition("portraits", None, block)
        return portraits.reads(settings, partition), portraits.sources(settings, partition)

    before = [inputs(7, block) for block in (0, 1)]
    (folder / "zz_new.png").write_bytes(encode_png(picture(50)))
    after = [inputs(9, block) for block in (0, 1, 2)]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert list(after[2][1]) == ["zz_new.png"]


def test_growing_the_procedural_world_leaves_full_blocks_as_they_are() -> None:
    def reads(count: int, block: int) -> dict[str, Any]:
        settings = load_settings("demo", [f"portraits.count={count}", "portraits.block_size=6"])
        return portraits.reads(settings, Partition("portraits", None, block))

    assert portraits.blocks(load_settings("demo", ["portraits.count=13", "portraits.block_size=6"])) == [0, 1, 2]
    assert reads(13, 0) == reads(40, 0)
    assert reads(13, 1) == reads(40, 1)
    assert reads(13, 2) == {**reads(40, 2), "seeds": [12, 13]}


def test_a_file_that_repeats_one_of_another_block_is_rejected(folder: Path, tmp_path: Path) -> None:
    (folder / "zz_copy.png").write_bytes((folder / "face_0.png").read_bytes())
    settings = make_settings(folder, "portraits.block_size=4")
    assert portraits.blocks(settings) == [0, 1, 2]
    rows, summary = take(settings, 2, tmp_path / "out")
    assert rows[0]["reason"] == "duplicate of face_0.png"
    assert summary.rejected == {"duplicate": 1}


def test_files_of_one_folder_are_seen_anew_when_it_changes(folder: Path) -> None:
    settings = make_settings(folder, "portraits.block_size=8")
    assert portraits.blocks(settings) == [0]
    (folder / "deeper").mkdir()
    (folder / "deeper" / "another.png").write_bytes(encode_png(picture(60)))
    assert portraits.blocks(settings) == [0, 1]


def test_splits_are_a_hash_of_the_id_and_agree_between_blocks(folder: Path, tmp_path: Path) -> None:
    for number in range(8, 60):
        (folder / f"face_{number:02}.png").write_bytes(encode_png(picture(number)))
    common = ["portraits.count=null", "portraits.test_fraction=0.17", "portraits.val_fraction=0.08"]
    small, _ = take(make_settings(folder, "portraits.block_size=30", *common), 1, tmp_path / "a")
    large, _ = take(make_settings(folder, "portraits.block_size=60", *common), 0, tmp_path / "b")
    splits = {row["portrait_id"]: row["split"] for row in large}
    assert all(splits[row["portrait_id"]] == row["split"] for row in small)
    assert 2 <= list(splits.values()).count("test") <= 20
    assert list(splits.values()).count("train") >= 30


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_small_set_has_somebody_to_train_and_to_test_on(count: int) -> None:
    for start in range(40):
        photos = [taken(f"p{start}-{i}") for i in range(count)]
        splits = portraits.split_portraits(photos, load_settings("demo").portraits, first_block=True)
        assert {"train", "test"} <= set(splits.values())


def test_without_a_test_fraction_nobody_is_held_out() -> None:
    settings = load_settings("demo", ["portraits.test_fraction=0", "portraits.val_fraction=0"]).portraits
    photos = [taken(f"p{i}") for i in range(5)]
    assert set(portraits.split_portraits(photos, settings, first_block=True).values()) == {"train"}


def taken(portrait_id: str) -> portraits.Taken:
    return portraits.Taken(Portrait(portrait_id=portrait_id, person=portrait_id, name=portrait_id, status="ok"))


def eg3d_label(offset: float = 0.0) -> list[float]:
    cam2world = np.diag([1.0, -1.0, -1.0, 1.0])
    cam2world[:3, 3] = [offset, 0.0, 2.7]
    return [*cam2world.ravel().tolist(), 4.2647, 0.0, 0.5, 0.0, 4.2647, 0.5, 0.0, 0.0, 1.0]


def test_labels_of_an_eg3d_folder_are_joined_by_name(tmp_path: Path) -> None:
    source = tmp_path / "eg3d"
    (source / "00000").mkdir(parents=True)
    for number in range(3):
        (source / "00000" / f"img{number}.png").write_bytes(encode_png(picture(number)))
    labels = [["00000/img2.png", eg3d_label(0.2)], ["00000/img0.png", eg3d_label(0.0)], ["00000/img1.png", [1.0, 2.0]]]
    (source / "dataset.json").write_text(json.dumps({"labels": labels}))
    rows, summary = take(make_settings(source), 0, tmp_path / "out")
    given = {row["name"]: row["camera_given"] for row in rows if row["status"] == "ok"}
    assert given == {"00000/img0.png": eg3d_label(0.0), "00000/img2.png": eg3d_label(0.2)}
    assert summary.rejected == {"bad camera label": 1}


def test_an_eg3d_zip_gives_what_its_folder_gives(tmp_path: Path) -> None:
    source = tmp_path / "eg3d"
    source.mkdir()
    with zipfile.ZipFile(tmp_path / "eg3d.zip", "w") as archive:
        for number in range(3):
            (source / f"img{number}.png").write_bytes(encode_png(picture(number)))
            archive.write(source / f"img{number}.png", f"img{number}.png")
        document = json.dumps({"labels": [["img1.png", eg3d_label()]]})
        (source / "dataset.json").write_text(document)
        archive.writestr("dataset.json", document)
    of_folder, _ = take(make_settings(source), 0, tmp_path / "a")
    of_zip, _ = take(make_settings(tmp_path / "eg3d.zip"), 0, tmp_path / "b")
    assert [row | {"source": ""} for row in of_zip] == [row | {"source": ""} for row in of_folder]
    assert sum(row["camera_given"] is not None for row in of_zip) == 1


def test_a_broken_dataset_json_is_the_users_to_mend(folder: Path) -> None:
    (folder / "dataset.json").write_text("{broken")
    with pytest.raises(UserError, match="not a list of labels"):
        portraits.reads(make_settings(folder), Partition("portraits", None, 0))


def test_a_changed_label_changes_what_its_block_reads(folder: Path) -> None:
    def reads(block: int) -> dict[str, Any]:
        return portraits.reads(make_settings(folder, "portraits.block_size=4"), Partition("portraits", None, block))

    before = [reads(0), reads(1)]
    (folder / "dataset.json").write_text(json.dumps({"labels": [["face_6.png", eg3d_label()]]}))
    assert reads(0) == before[0]
    assert reads(1) != before[1]


def test_procedural_portraits_know_their_seed_and_camera(tmp_path: Path) -> None:
    settings = load_settings("demo", ["portraits.count=3", "portraits.seed=11"])
    rows, summary = take(settings, 0, tmp_path / "out")
    assert summary.samples == 3
    assert sorted(row["seed"] for row in rows) == [11, 12, 13]
    assert all(len(row["camera_true"]) == 25 for row in rows)
    again, _ = take(settings, 0, tmp_path / "again")
    assert again == rows
    for row in rows:
        name = Path("images") / f"{row['portrait_id']}.png"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
