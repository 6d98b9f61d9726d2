"""`stillroom edit` and `stillroom export`: files, folders and patterns in, pictures and an export out."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.workspace import Workspace
from flows import cli
from tasks.student.edit_files import Products, edit_portraits, find_images, name_folders
from tests.worlds import pupil


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose store holds one student."""
    folder = tmp_path_factory.mktemp("data")
    pupil.store_student(folder)
    return folder


@pytest.fixture(autouse=True)
def data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(root))


def edit(given: list[str], out: Path, products: Products, reference: Path | None = None) -> dict[str, Any]:
    prompt = "make the hair red" if reference is None else None
    return edit_portraits(given, prompt, reference, out, products, "latest", Workspace.open())


def test_one_portrait_gives_views_video_and_mesh_and_both_timings(tmp_path: Path) -> None:
    (photo,) = pupil.write_photos(tmp_path / "in", 1)
    out = tmp_path / "out"
    document = edit([str(photo)], out, Products(2, Path("turntable.mp4"), Path("head.ply")))
    names = ["edited.png", "view_00.png", "view_01.png", "turntable.mp4", "head.ply"]
    assert document["files"] == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert (document["portraits"], document["aligned_here"], document["camera_source"]) == (1, 1, "pnp")
    assert document["seconds_view"] > 0
    assert document["seconds_triplane"] < document["seconds"]
    with Image.open(out / "edited.png") as edited, Image.open(out / "view_00.png") as view:
        assert edited.size == view.size == (64, 64)
        assert np.abs(np.asarray(edited, float) - np.asarray(view, float)).mean() > 2
    assert len(trimesh.load(out / "head.ply", force="mesh").faces) > 1000


def test_a_folder_is_edited_with_a_progress_bar_and_its_broken_file_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pupil.write_photos(tmp_path / "in", 2)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("not taken")
    (tmp_path / "in" / "._photo_0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "in" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    document = edit([str(tmp_path / "in")], tmp_path / "out", Products(views=0), tmp_path / "in" / "photo_0.png")
    files = [Path(path).relative_to(tmp_path / "out").as_posix() for path in document["files"]]
    assert files == ["photo_0/edited.png", "photo_0/turntable.gif", "photo_1/edited.png", "photo_1/turntable.gif"]
    rejected, phone = document["rejected"]
    assert rejected["image"] == str(tmp_path / "in" / "broken.png")
    assert rejected["reason"].endswith("cannot be taken as a portrait: not an image")
    assert phone["reason"].split(": ")[1:3] == ["HEIC is not read", "convert it, for example"]
    assert "4/4" in capsys.readouterr().err


def test_patterns_and_names_are_each_taken_once(tmp_path: Path) -> None:
    photos = pupil.write_photos(tmp_path / "a", 2)
    others = pupil.write_photos(tmp_path / "a" / "b", 1)
    assert find_images([str(tmp_path / "a" / "*.png"), str(photos[1])]) == photos
    assert find_images([str(tmp_path / "a" / "**" / "photo_0.png")]) == [others[0], photos[0]]
    assert find_images([str(photos[1]), str(tmp_path / "a")]) == [photos[1], photos[0]]
    folders = name_folders([*photos, *others], tmp_path)
    assert [folder.name for folder in folders.values()] == ["photo_0", "photo_1", "photo_0-2"]
    for nothing in (tmp_path / "none.png", tmp_path / "*.jpg"):
        with pytest.raises(UserError, match="no file or pattern"):
            find_images([str(nothing)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no picture in the folder"):
        find_images([str(tmp_path / "empty")])


@pytest.mark.parametrize("products", [Products(video=Path("a.avi")), Products(mesh=Path("/a.ply"))])
def test_a_name_that_will_not_do_is_told_before_the_work(products: Products, tmp_path: Path) -> None:
    (photo,) = pupil.write_photos(tmp_path, 1)
    with pytest.raises(UserError):
        edit([str(photo)], tmp_path / "out", products)
    assert not (tmp_path / "out").exists()


def test_nothing_edited_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match="no portrait could be edited"):
        edit([str(tmp_path)], tmp_path / "out", Products())


def test_the_command_prints_both_timings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photo,) = pupil.write_photos(tmp_path, 1)
    command = ["edit", str(photo), "--prompt", "as a zombie", "--out", str(tmp_path / "out"), "--views", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "once for a portrait and prompt" in printed
    assert "only rendered" in printed
    assert str(tmp_path / "out" / "view_00.png") in printed


def test_an_export_stands_alone_and_says_what_it_is(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(tmp_path / "student"), "--json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert {"README.md", "config.json", "model.safetensors"} <= set(document["files"])
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    card = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    for text in (
        "| styles learned | zombie |",
        document["student"],
        pupil.store_dataset(root).digest,
        "val_l1 at the end: 0.25",
    ):
        assert text in card
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "nowhere"))
    (photo,) = pupil.write_photos(tmp_path / "in", 1)
    exported = edit_portraits(
        [str(photo)], "as a zombie", None, tmp_path / "a", Products(0), str(tmp_path / "student"), Workspace.open()
    )
    monkeypatch.setenv("STILLROOM_DATA", str(root))
    edit_portraits([str(photo)], "as a zombie", None, tmp_path / "b", Products(0), "latest", Workspace.open())
    assert Path(exported["files"][0]).read_bytes() == (tmp_path / "b" / "edited.png").read_bytes()
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(tmp_path / "student")])
    assert ended.value.code == 1
    assert "is not empty" in capsys.readouterr().err


def test_prompts_read_by_other_weights_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from models.zoo import zoo
    from stillroom import Student

    with caplog.at_level(logging.WARNING):
        Student.load()
        assert "other weights" not in caplog.text
        digest = zoo.digest
        monkeypatch.setattr(zoo, "digest", lambda name, world: digest(name, world)[::-1])
        Student.load()
    assert "trained with other weights of clip" in caplog.text
