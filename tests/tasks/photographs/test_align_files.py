"""`stillroom align`: a zip of portraits with cameras, a line and a reason for each photograph, and a sheet."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import decode_rgb
from tasks.photographs.align_files import Job, align_one, align_photographs
from tests.tasks.test_align import align_all, intake
from tests.tasks.test_align_photographs import head, photograph, two

SIZE = 128


def settings(faces: str = "all") -> Settings:
    return load_settings("demo", [f"align.size={SIZE}", f"align.faces={faces}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of all kinds."""
    photos = tmp_path_factory.mktemp("photos")
    group = np.ascontiguousarray(np.rot90(two()))
    pictures = {
        "astronaut": data.astronaut(),
        "coffee": data.coffee(),
        "group": group,
        "small": photograph((head(40), 9, 9)),
    }
    for name, rgb in pictures.items():
        Image.fromarray(rgb).save(photos / f"{name}.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (photos / "notes.txt").write_text("no picture")
    return photos


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    target = tmp_path_factory.mktemp("made")
    return target, align_photographs([str(folder)], target / "out.zip", target / "sheet.html", settings())


def test_each_photograph_has_a_line_with_its_portraits_or_the_reason(made: tuple[Path, dict]) -> None:
    target, outcome = made
    rows = [json.loads(line) for line in (target / "out.jsonl").read_text().splitlines()]
    by_name = {Path(row["photograph"]).stem: row for row in rows}
    assert [Path(row["photograph"]).stem for row in rows] == ["astronaut", "broken", "coffee", "group", "small"]
    assert [portrait["name"] for portrait in by_name["astronaut"]["portraits"]] == ["00000/000000.png"]
    assert [each["name"] for each in by_name["group"]["portraits"]] == ["00000/000003-1.png", "00000/000003-2.png"]
    assert [each["roll_deg"] for each in by_name["group"]["portraits"]] == pytest.approx([87, 93], abs=4)
    for name, begin in (("broken", "truncated"), ("coffee", "face not clear"), ("small", "too small: ")):
        assert by_name[name]["portraits"] == []
        assert by_name[name]["left_out"][0].startswith(begin)
    (left, top, right, bottom) = by_name["astronaut"]["portraits"][0]["box"]
    assert left < 203 < 246 < right
    assert top < 102 < 142 < bottom
    assert (outcome["photographs"], outcome["portraits"]) == (5, 3)
    assert outcome["left_out"] == {"face not clear": 1, "too small": 1, "truncated": 1}
    assert not (target / ".out.zip.parts").exists()


def test_the_zip_taken_in_again_gives_the_same_pixels_and_cameras(made: tuple[Path, dict], tmp_path: Path) -> None:
    target, _ = made
    own, portraits = intake(target / "out.zip", tmp_path / "portraits", f"align.size={SIZE}")
    rows, summary = align_all(own, portraits, tmp_path / "align")
    assert summary.metrics == {"camera_given": 3.0}
    with zipfile.ZipFile(target / "out.zip") as archive:
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        assert set(labels) == set(rows) == {name for name in archive.namelist() if name != "dataset.json"}
        for name, row in rows.items():
            again = np.array(Image.open(tmp_path / "align" / "aligned" / f"{row['portrait_id']}.png"))
            assert (again == decode_rgb(archive.read(name))).all()
            assert again.shape == (SIZE, SIZE, 3)
            assert row["camera"] == labels[name]


def test_the_sheet_shows_every_photograph_and_loads_nothing(made: tuple[Path, dict]) -> None:
    page = (made[0] / "sheet.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 4 + 3
    assert not re.search(r"(src|href)=.(?!data:)", page)
    for text in ("astronaut.png", "broken.jpg", "too small: ", "3 portraits of 5 photographs", "yaw 1, pitch 7"):
        assert text in page


def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, made: tuple[Path, dict], tmp_path: Path) -> None:
    arguments = ["align", str(folder), "--out", str(tmp_path / "out.zip"), "--sheet", str(tmp_path / "sheet.html")]
    command = [sys.executable, "-m", "flows.cli", *arguments, "--size", str(SIZE), "--faces", "all", "--json"]
    environment = os.environ | {"STILLROOM_DATA": str(tmp_path / "data")}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts, deadline = tmp_path / ".out.zip.parts", time.monotonic() + 120
    while not list(parts.glob("0*.json")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.json")}
    assert 0 < len(before) <= 5
    assert not (tmp_path / "out.zip").exists()

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert json.loads(again.stdout)["portraits"] == 3
    assert f"{len(before)} of 5 photographs are done already" in again.stderr
    for name in ("out.zip", "out.jsonl", "sheet.html"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes(), name


def test_a_photograph_that_changed_is_aligned_again(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(data.coffee()).save(picture)
    job = Job(0, picture, tmp_path / ".out.zip.parts", settings())
    job.parts.mkdir()
    align_one(job)
    assert json.loads(job.record.read_text())["portraits"] == []
    Image.fromarray(data.astronaut()).save(picture)
    assert align_photographs([str(picture)], tmp_path / "out.zip", None, settings())["portraits"] == 1


def test_a_panorama_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 5_000, 8, 2, 0, 0, 0))
    (tmp_path / "wide.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    job = Job(0, tmp_path / "wide.png", tmp_path, settings())
    align_one(job)
    assert json.loads(job.record.read_text())["left_out"][0].startswith("too large: 20000x5000 px")


def test_what_cannot_be_done_is_said_before_it_is_begun(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there.zip").write_bytes(b"mine")
    for out, message in (("there.zip", "is there already"), ("portraits", "is no .zip")):
        with pytest.raises(UserError, match=message):
            align_photographs([str(folder)], tmp_path / out, None, settings())
    assert (tmp_path / "there.zip").read_bytes() == b"mine"
    with pytest.raises(UserError, match="in none of the photographs"):
        align_photographs([str(folder / "coffee.png")], tmp_path / "none.zip", None, settings())
    assert not (tmp_path / "none.zip").exists()
    assert "face not clear" in (tmp_path / "none.jsonl").read_text()
