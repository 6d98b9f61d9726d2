"""Layouts as users have them: wrapped, flat, from Windows and macOS, with links, closed folders and own results."""

import json
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_png
from data_catalog.store.stage import Partition
from tasks import portraits
from tasks.sources.edits import find_edits
from tasks.sources.labels import read_given
from tasks.sources.left_out import find_left_out
from tasks.sources.opening import open_source
from tests.tasks.sources.test_portrait_sources import write
from tests.tasks.test_portraits import eg3d_label, make_settings, picture, take

NAMES = [f"00000/img{number:08}.png" for number in range(4)]
NOBODY = 65534


def label(number: int) -> list[float]:
    return eg3d_label(number / 100)


def document(*names: str) -> str:
    return json.dumps({"labels": [[name, label(number)] for number, name in enumerate(names)]})


def write_all(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write(folder, name, picture(number))
    return folder


def zip_all(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def cameras(settings: Settings, folder: Path) -> dict[str, list[float] | None]:
    rows, _ = take(settings, 0, folder)
    return {row["name"]: row["camera_given"] for row in rows if row["status"] == "ok"}


def told(settings: Settings) -> list[str]:
    return [each.line for each in find_left_out(settings)]


def test_labels_of_a_flattened_folder_are_joined_by_unique_names(tmp_path: Path) -> None:
    flat = [name.partition("/")[2] for name in NAMES]
    (write_all(tmp_path / "flat", *flat) / "dataset.json").write_text(document(*NAMES))
    settings = make_settings(tmp_path / "flat")
    assert cameras(settings, tmp_path / "out") == {name: label(number) for number, name in enumerate(flat)}
    assert told(settings) == []


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_layout_may_lie_in_a_folder_of_its_own(kind: str, tmp_path: Path) -> None:
    wrapped = write_all(tmp_path / "up" / "ffhq", *NAMES)
    (wrapped / "dataset.json").write_text(document(*NAMES))
    write(wrapped, "00000_zombie/img00000001.png", picture(90))
    source = tmp_path / "up"
    if kind == "zip":
        files = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
        source = zip_all(tmp_path / "up.zip", {"__MACOSX/ffhq/._dataset.json": b"\0", **files})
    settings = make_settings(source)
    assert cameras(settings, tmp_path / "out") == {f"ffhq/{name}": label(number) for number, name in enumerate(NAMES)}
    assert open_source(settings.portraits).listing.edits == {
        "ffhq/00000/img00000001.png": {"zombie": "ffhq/00000_zombie/img00000001.png"}
    }


def test_each_of_several_layouts_has_its_own_labels(tmp_path: Path) -> None:
    for number, side in enumerate(("a", "b")):
        write(tmp_path / "both" / side, "0.png", picture(number))
        text = json.dumps({"labels": [["0.png", label(7 + number)]]})
        (tmp_path / "both" / side / "dataset.json").write_text(text)
    assert cameras(make_settings(tmp_path / "both"), tmp_path / "out") == {"a/0.png": label(7), "b/0.png": label(8)}


def test_a_zip_of_windows_tools_has_backslashes(tmp_path: Path) -> None:
    members = {name.replace("/", "\\"): encode_png(picture(number)) for number, name in enumerate(NAMES)}
    source = zip_all(tmp_path / "windows.zip", {"00000\\": b"", **members, "dataset.json": document(*NAMES).encode()})
    assert cameras(make_settings(source), tmp_path / "out") == {name: label(n) for n, name in enumerate(NAMES)}


def test_a_zip_of_the_finder_has_utf8_names_without_the_flag(tmp_path: Path) -> None:
    name, source = "Café/Zoë.png", tmp_path / "finder.zip"
    stand_in = "x" * len(name.encode())  # of the same length: the archive stays whole
    data = zip_all(source, {stand_in: encode_png(picture(1))}).read_bytes()
    source.write_bytes(data.replace(stand_in.encode(), name.encode()))
    assert open_source(make_settings(source).portraits).names == (name,)
    assert list(cameras(make_settings(source), tmp_path / "out")) == [name]


def test_of_a_name_that_a_zip_has_twice_one_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "twice.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for number, name in enumerate(("a.png", "b.png", "a.png", "/abs.png", "../up.png")):
            with pytest.warns(UserWarning, match="Duplicate") if number == 2 else nullcontext():
                archive.writestr(name, encode_png(picture(number)))
    rows, summary = take(make_settings(source), 0, tmp_path / "out")
    assert (summary.samples, summary.rejected) == (4, {})
    digests = {row["name"]: row["sha256"] for row in rows}
    assert digests["a.png"] == portraits.content_digest(picture(2))
    assert set(digests) == {"a.png", "b.png", "abs.png", "up.png"}
    assert told(make_settings(source)) == [
        "1 name of the zip is there twice; the last file of it counts; for example a.png"
    ]


def test_labels_that_name_no_picture_are_an_error_and_some_are_said(tmp_path: Path) -> None:
    source = write_all(tmp_path / "some", *NAMES)
    (source / "dataset.json").write_text(document(*(name.replace("img", "pic") for name in NAMES)))
    with pytest.raises(UserError, match=r"0 of 4 camera labels of dataset\.json name a picture here"):
        portraits.reads(make_settings(source), Partition("portraits", None, 0))
    (source / "dataset.json").write_text(document(*NAMES[:2], "00000/gone.png"))
    assert told(make_settings(source)) == [
        "1 of 3 camera labels of dataset.json names no picture here; for example 00000/gone.png",
        "2 of 4 pictures without camera label: their cameras are looked for, or frontal; for example " + NAMES[2],
    ]


def test_a_name_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    source = write_all(tmp_path / "odd", "a.png", "b\n\x1b[1m.png")
    assert told(make_settings(source, "portraits.count=1")) == [
        "1 of 2 pictures left out: portraits.count=1; for example b\\n\\x1b[1m.png"
    ]


def test_pictures_beyond_the_count_are_said(tmp_path: Path) -> None:
    source = write_all(tmp_path / "five", *(f"{number}.png" for number in range(5)))
    assert told(make_settings(source)) == []
    assert told(make_settings(source, "portraits.count=3")) == [
        "2 of 5 pictures left out: portraits.count=3; for example 3.png"
    ]


def test_files_that_the_pattern_leaves_out_and_hidden_pictures_are_said(tmp_path: Path) -> None:
    source = write_all(tmp_path / "some", "a.png", "b.PNG", ".thumbs/a.png", "._a.png")
    assert told(make_settings(source, "portraits.pattern=*.png")) == [  # a star begins no YAML value
        "1 picture left out: hidden, its name or folder begins with a dot; for example .thumbs/a.png",
        "1 file left out by portraits.pattern=*.png; for example b.PNG",
    ]


def test_links_are_followed_once_each_and_loops_end(tmp_path: Path) -> None:
    source, elsewhere = write_all(tmp_path / "source", "real/a.png"), write_all(tmp_path / "elsewhere", "b.png")
    (source / "0-linked").symlink_to(elsewhere)
    (source / "again").symlink_to(elsewhere)
    (source / "1-inside").symlink_to(source / "real")
    (source / "real" / "loop").symlink_to(source)
    (source / "up").symlink_to(tmp_path)
    (elsewhere / "back").symlink_to(source)
    (source / "gone").symlink_to(tmp_path / "nowhere")
    (source / "itself").symlink_to(source / "itself")
    settings = make_settings(source)
    assert open_source(settings.portraits).names == ("0-linked/b.png", "real/a.png")
    assert told(settings) == ["2 links left out: nothing is there; for example gone"]
    write(elsewhere, "c.png", picture(7))
    assert len(open_source(settings.portraits).names) == 3  # a change behind a link is seen


def test_own_results_below_the_source_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_all(tmp_path / "photos", "a.png", "data/mine/b.png", "data/store/align/0000/ab/aligned/p1.png")
    monkeypatch.setenv("STILLROOM_DATA", str(source / "data"))
    settings = make_settings(source)
    assert open_source(settings.portraits).names == ("a.png", "data/mine/b.png")
    (line,) = told(settings)
    assert line.startswith("1 result left out: made by stillroom")
    # The root of an earlier build is known by its index.
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "other"))
    write(source, "c.png", picture(9))
    assert "data/store/align/0000/ab/aligned/p1.png" in open_source(settings.portraits).names
    (source / "data" / "catalog").mkdir()
    (source / "data" / "catalog" / "records.parquet").write_bytes(b"")
    assert open_source(settings.portraits).names == ("a.png", "c.png", "data/mine/b.png")


def make_3dpe(root: Path, suffix: str, subset: str = "00000") -> Path:
    for number in range(3):
        write(root, f"{subset}/{number}.png", picture(number))
        write(root, f"{subset}_zombie/{number}{suffix}", picture(100 + number))
    return root


@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".PNG"])
def test_edits_are_joined_whatever_their_suffix(suffix: str, has_labels: bool, tmp_path: Path) -> None:
    source = make_3dpe(tmp_path / "3dpe", suffix)
    if has_labels:
        (source / "dataset.json").write_text('{"labels": []}')
    settings = load_settings("demo", [f"portraits.source={source}", "edit.source=dataset"])
    assert open_source(settings.portraits).names == tuple(f"00000/{number}.png" for number in range(3))
    given = find_edits(settings, Partition("edit", "zombie", 0))
    assert given is not None
    assert given.names == {f"00000/{number}.png": f"00000_zombie/{number}{suffix}" for number in range(3)}
    assert told(make_settings(source)) == [
        f"3 edits not used: edit.source=dataset takes them; for example 00000_zombie/0{suffix}"
    ]


def test_edits_without_a_portrait_are_no_portraits(tmp_path: Path) -> None:
    source = make_3dpe(tmp_path / "3dpe", ".png")
    (source / "dataset.json").write_text('{"labels": []}')
    write(source, "00000_zombie/9.png", picture(9))
    write(source, "00000_zombie/0.jpg", picture(10))  # of one name with another: which is meant?
    settings = make_settings(source, "edit.source=dataset")
    assert len(open_source(settings.portraits).names) == 3
    lost = "2 edits left out: no portrait of the same name, or several; for example 00000_zombie/0.jpg"
    assert told(settings) == [lost]


def test_what_may_be_edits_is_said_where_no_layout_says_so(tmp_path: Path) -> None:
    source = make_3dpe(tmp_path / "mine", ".png", "me")
    assert len(open_source(make_settings(source).portraits).names) == 6
    (line,) = told(make_settings(source))
    assert line.startswith("3 pictures taken as portraits, but edits by their folders")


def test_files_that_a_tool_unpacked_with_backslashes_are_a_layout(tmp_path: Path) -> None:
    source = write_all(tmp_path / "flat", "00000\\0.png", "00000\\1.png", "00000_zombie\\0.png")
    (source / "dataset.json").write_text(document("00000/0.png", "00000/1.png"))
    settings = make_settings(source)
    assert cameras(settings, tmp_path / "out") == {"00000\\0.png": label(0), "00000\\1.png": label(1)}
    assert open_source(settings.portraits).listing.styles == {"zombie": 1}


def test_cameras_beside_the_pictures_that_no_setting_names_are_said(tmp_path: Path) -> None:
    source = write_all(tmp_path / "some", "a.png")
    (source / "cameras.json").write_text("{}")
    assert told(make_settings(source)) == [
        "cameras.json not used: align.reconstructions=FILE takes it; for example cameras.json"
    ]


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        (b"PK\x03\x04" + b"\0" * 99, "starts as a zip, but its end is missing", "download or copy it again"),
        (b"\x1f\x8b" + b"\0" * 99, "is a gzip file, no zip", "unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it"),
        (b"\0" * 257 + b"ustar\0", "is a tar archive", "unpack it"),
        (b"\n<!DOCTYPE html><html>", "is a web page", "the address gave a page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS", "git lfs pull"),
        (b"", "is empty", "download or copy it again"),
        (b"hello", "is neither a folder nor a zip file", ""),
    ],
)
def test_a_file_that_is_no_zip_is_named_with_the_next_step(data: bytes, said: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "ffhq.zip").write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        open_source(make_settings(tmp_path / "ffhq.zip").portraits)
    assert hint in (caught.value.hint or "")


def test_a_label_that_is_no_list_is_one_bad_label(tmp_path: Path) -> None:
    source = write_all(tmp_path / "some", "0.png", "1.png", "2.png")
    text = json.dumps({"labels": {"0.png": label(0), "1.png": None, "2.png": 3}})
    (source / "dataset.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_given(open_source(make_settings(source).portraits)).labels["1.png"] == []
    _, summary = take(make_settings(source), 0, tmp_path / "out")
    assert (summary.samples, summary.rejected) == (1, {"bad camera label": 2})
