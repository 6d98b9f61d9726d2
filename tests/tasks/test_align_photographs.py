"""Photographs in the stage align: each face is a portrait with its camera, or a reason."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from data_catalog.config.profiles import load_settings
from data_catalog.samples.encoding import encode_png
from models.faces import alignment
from tasks import align, portraits
from tasks.tables.portraits import photograph_id
from tests.tasks.test_align import align_all, intake
from tests.worlds.exif import store

GROUND = (90, 120, 140)
Row = dict[str, Any]


def head(face_px: int) -> np.ndarray:
    """The astronaut's head, its landmarks about `face_px` px high."""
    side = round(200 * face_px / 108)
    return cv2.resize(data.astronaut()[20:220, 120:320], (side, side), interpolation=cv2.INTER_AREA)


def photograph(*heads: tuple[np.ndarray, int, int], size: tuple[int, int] = (900, 700)) -> np.ndarray:
    """Heads with their left and top in an even picture; what lies past its rim is cut.  size: width and height."""
    whole = np.full((size[1] + 800, size[0] + 800, 3), GROUND, np.uint8)
    for picture, left, top in heads:
        whole[top + 400 : top + 400 + picture.shape[0], left + 400 : left + 400 + picture.shape[1]] = picture
    return whole[400:-400, 400:-400]


def two() -> np.ndarray:
    return photograph((head(150), 50, 100), (head(90)[:, ::-1], 550, 300))


def align_folder(folder: Path, pictures: dict[str, np.ndarray], *overrides: str) -> tuple[list[Row], Any]:
    (folder / "photos").mkdir(parents=True)
    for name, rgb in pictures.items():
        (folder / "photos" / name).write_bytes(encode_png(rgb))
    settings, made = intake(folder / "photos", folder / "portraits", *overrides)
    rows, summary = align_all(settings, made, folder / "align")
    del rows  # by name; of several faces in a photograph it has the last
    import pyarrow.parquet as pq

    return pq.read_table(folder / "align" / "align.parquet").to_pylist(), summary


def test_a_photograph_gives_the_same_portrait_in_both_worlds(tmp_path: Path) -> None:
    pictures = {"astronaut.png": data.astronaut()}
    (row,), _ = align_folder(tmp_path / "embedded", pictures)
    (other,), _ = align_folder(tmp_path / "paper", pictures, "world=paper")
    assert (row["status"], row["camera_source"], row["portrait_id"]) == ("ok", "mesh", other["portrait_id"])
    assert row == other
    assert row["face_px"] == pytest.approx(108, abs=4)
    assert (row["yaw_deg"], row["pitch_deg"]) == pytest.approx((1.2, 7.4), abs=2)
    assert row["reprojection"] < 0.03
    # The crop is EG3D's: by the five points, the face in its middle.
    crop = np.reshape(row["crop"], (2, 3))
    assert crop == pytest.approx(alignment.crop_transform(np.reshape(row["landmarks"], (5, 2)), alignment.EG3D))
    assert 1 / np.hypot(*crop[0, :2]) == pytest.approx(155, abs=6)
    assert row["camera"][16:] == [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_photograph_on_its_side_gives_an_upright_portrait(tmp_path: Path, turns: int) -> None:
    upright, turned = data.astronaut(), np.ascontiguousarray(np.rot90(data.astronaut(), turns))
    rows, _ = align_folder(tmp_path, {"a.png": upright, "b.png": turned})
    pictures = [np.array(Image.open(tmp_path / "align" / "aligned" / f"{row['portrait_id']}.png")) for row in rows]
    assert np.abs(pictures[0].astype(float) - pictures[-1]).mean() < 6
    middle = np.s_[20:44, 20:44]
    assert np.abs(pictures[0].astype(float) - pictures[-1][::-1])[middle].mean() > 20, "the measure tells them apart"


def test_several_faces_are_rejected_chosen_from_or_all_taken(tmp_path: Path) -> None:
    pictures = {"group.png": two(), "one.png": data.astronaut()}
    rows, summary = align_folder(tmp_path / "reject", pictures)
    by_name = {row["name"]: row for row in rows}
    assert by_name["group.png"]["reason"] == "several faces: 2 were found"
    assert (by_name["one.png"]["status"], summary.rejected) == ("ok", {"several faces": 1})

    rows, _ = align_folder(tmp_path / "largest", pictures, "align.faces=largest")
    (group,) = (row for row in rows if row["name"] == "group.png")
    assert group["face_px"] == pytest.approx(150, rel=0.1)

    rows, summary = align_folder(tmp_path / "all", pictures, "align.faces=all")
    first, second = sorted((row for row in rows if row["name"] == "group.png"), key=lambda row: row["portrait_id"])
    assert [first["face_px"], second["face_px"]] == pytest.approx([150, 90], rel=0.1)
    assert (first["portrait_id"], second["portrait_id"]) == tuple(f"{group['portrait_id']}_{n}" for n in (1, 2))
    assert photograph_id(second["portrait_id"]) == group["portrait_id"]
    assert summary.samples == 3
    assert np.allclose(first["camera"], group["camera"])


def test_what_makes_no_portrait_says_why_and_moves_no_other_picture(tmp_path: Path) -> None:
    blurred = cv2.GaussianBlur(photograph((head(200), 100, 100)), (0, 0), 7)
    grey = np.repeat(np.asarray(Image.fromarray(data.astronaut()).convert("L"))[..., None], 3, axis=2)
    profile = np.full((400, 400, 3), GROUND, np.uint8)
    cv2.circle(profile, (200, 200), 90, (220, 180, 150), -1)  # a disc is no face
    pictures = {
        "a.png": data.astronaut(),
        "blurred.png": blurred,
        "cat.png": data.cat(),
        "coffee.png": data.coffee(),
        "disc.png": profile,
        "grey.png": grey,
        "half.png": photograph((head(200), -190, 100)),
        "small.png": photograph((head(40), 300, 300)),
    }
    rows, summary = align_folder(tmp_path / "all", pictures)
    reasons = {row["name"]: row["reason"] for row in rows}
    assert reasons.pop("a.png") == reasons.pop("grey.png") == ""
    assert reasons["blurred.png"].startswith("blurred: 0.8")
    assert reasons["small.png"] in {f"too small: {size} px" for size in range(36, 45)}
    assert reasons["half.png"].startswith(("cut off: ", "face not clear", "no face found"))
    for name in ("cat.png", "coffee.png", "disc.png"):
        assert reasons[name].startswith(("no face found", "face not clear")), name
    assert summary.samples == 2
    assert sum(summary.rejected.values()) == 6
    alone, _ = align_folder(tmp_path / "alone", {"a.png": pictures["a.png"]})
    assert alone[0] == next(row for row in rows if row["name"] == "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_portrait(tmp_path: Path, orientation: int) -> None:
    stored, exif = store(Image.fromarray(data.astronaut()), orientation)
    (tmp_path / "photos").mkdir()
    stored.save(tmp_path / "photos" / "photo.jpg", quality=95, exif=exif)
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits")
    rows, _ = align_all(settings, made, tmp_path / "align")
    assert rows["photo.jpg"]["landmarks"] == pytest.approx(
        [203.6, 102.5, 246.6, 104.7, 223.2, 127.0, 200.9, 139.2, 246.0, 141.8], abs=3
    )


def test_labels_and_landmark_files_come_before_the_detector(tmp_path: Path) -> None:
    points = [[150, 150], [200, 150], [175, 180], [155, 210], [195, 210]]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encode_png(data.astronaut()))
    (tmp_path / "photos" / "landmarks.json").write_text(f'{{"a.png": {points}}}')
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits")
    rows, _ = align_all(settings, made, tmp_path / "align")
    assert (rows["a.png"]["camera_source"], rows["a.png"]["landmarks"]) == ("pnp", [x for xy in points for x in xy])


def test_the_settings_of_faces_count_for_photographs_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(data.astronaut()))
    partition = portraits.Partition("align", None, 0)
    own = [f"portraits.source={tmp_path}"]
    for given, changes in ((own, True), ([], False)):
        plain, other = (
            align.reads(load_settings("demo", [*given, *more]), partition) for more in ([], ["align.faces=all"])
        )
        assert (plain != other) == changes
    assert align.models(load_settings("demo")) == ("landmarks",)
    assert align.models(load_settings("demo", own)) == ("faces",)
    assert align.models(load_settings("demo", [*own, "align.faces=aligned"])) == ()
