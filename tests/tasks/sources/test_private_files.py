"""Files that this user may not read, and names that are no UTF-8: each is rejected by name, and no build ends."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.samples.encoding import encode_png
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.stage import Partition
from models import procedural
from tasks import align, portraits
from tasks.sources.left_out import find_left_out
from tasks.sources.opening import open_source
from tests.data_catalog.test_bad_disk import as_nobody
from tests.tasks.sources.test_portrait_sources import write
from tests.tasks.test_align import align_all, intake
from tests.tasks.test_portraits import eg3d_label, make_settings, picture, take
from tests.worlds.processes import fork, wait


@pytest.fixture
def place() -> Iterator[Path]:
    """Folder that every user may enter and write."""
    path = Path(tempfile.mkdtemp(prefix="stillroom-test-"))
    path.chmod(0o777)
    yield path
    for folder in path.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    shutil.rmtree(path)


def run_as_nobody(check: Callable[[], None]) -> None:
    def run() -> None:
        as_nobody()
        check()

    assert wait(fork(run)) == 0


def test_a_private_picture_is_rejected_and_nothing_else_is_lost(place: Path) -> None:
    for number in range(4):
        write(place / "source", f"{number}.png", picture(number))
    (place / "source" / "2.png").chmod(0)

    def check() -> None:
        settings = make_settings(place / "source")
        partition = Partition("portraits", None, 0)
        assert list(portraits.sources(settings, partition)) == ["0.png", "1.png", "3.png"]
        digest_json(portraits.reads(settings, partition))
        rows, summary = take(settings, 0, place / "out")
        assert (summary.samples, summary.rejected) == (3, {"unreadable": 1})
        assert [row["reason"] for row in rows if row["reason"]] == ["unreadable: PermissionError: Permission denied"]

    run_as_nobody(check)


def test_a_closed_folder_is_said(place: Path) -> None:
    write(place / "source", "a.png", picture(1))
    write(place / "source", "closed/b.png", picture(2))
    (place / "source" / "closed").chmod(0)

    def check() -> None:
        (told,) = find_left_out(make_settings(place / "source"))
        assert told.line == "1 folder left out: no permission to enter; for example closed/"

    run_as_nobody(check)


@pytest.mark.parametrize("name", ["dataset.json", "landmarks.json", "portraits.zip", "ffhq-dataset-v2.json"])
def test_a_private_file_about_all_pictures_is_an_error_that_names_it(name: str, place: Path) -> None:
    write(place / "source", "a.png", picture(1))
    file = place / "source" / name
    file.write_text("{}")
    file.chmod(0)

    def check() -> None:
        settings = make_settings(file if name.endswith("zip") else place / "source")
        stage = align if name == "landmarks.json" else portraits
        with pytest.raises(UserError, match=name) as caught:
            stage.reads(settings, Partition(stage.STAGE.name, None, 0))
        assert "Permission denied" in str(caught.value)

    run_as_nobody(check)


@pytest.mark.parametrize("suffix", [".txt", ".mat"])
def test_a_private_file_about_one_picture_rejects_this_one(suffix: str, place: Path) -> None:
    (place / "about").mkdir()
    for number in range(3):
        photo = procedural.raw_photo(number)
        (place / "source").mkdir(exist_ok=True)
        (place / "source" / f"{number}.png").write_bytes(encode_png(photo.rgb))
        text = "".join(f"{x} {y}\n" for x, y in photo.landmarks)
        (place / "about" / f"{number}{suffix}").write_text(text)
    (place / "about" / f"1{suffix}").chmod(0)
    what = "landmarks" if suffix == ".txt" else "reconstructions"

    def check() -> None:
        settings, made = intake(place / "source", place / "portraits", f"align.{what}={place / 'about'}")
        assert len(align.sources(settings, Partition("align", None, 0))) == 2
        rows, _ = align_all(settings, made, place / "align")
        assert rows["1.png"]["reason"].startswith(f"unreadable {what.removesuffix('s') if suffix == '.mat' else what}:")
        assert "Permission denied" in rows["1.png"]["reason"]
        assert (rows["0.png"]["status"] == "ok") == (suffix == ".txt")

    run_as_nobody(check)


LATIN = b"caf\xe9.png"


def test_a_name_that_is_no_utf8_is_rejected_by_name(tmp_path: Path) -> None:
    write(tmp_path, "a.png", picture(1))
    (tmp_path / os.fsdecode(LATIN)).write_bytes(encode_png(picture(2)))
    (tmp_path / os.fsdecode(b"folder\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"folder\xe9") / "b.png").write_bytes(encode_png(picture(3)))
    settings = make_settings(tmp_path)
    digest_json(portraits.reads(settings, Partition("portraits", None, 0)))
    rows, summary = take(settings, 0, tmp_path.parent / f"{tmp_path.name}-out")
    assert (summary.samples, summary.rejected) == (1, {"name is not UTF-8": 2})
    rejected = {row["name"]: row["reason"] for row in rows if row["status"] == "rejected"}
    assert rejected == {
        "caf\\xe9.png": "name is not UTF-8: rename the file",
        "folder\\xe9/b.png": "name is not UTF-8: rename the file",
    }


SCRIPT = """
import json, sys
from pathlib import Path
from data_catalog.config.profiles import load_settings
from data_catalog.store.stage import Partition, Work
from tasks import portraits

assert sys.getfilesystemencoding() == "ascii"
settings, partition = load_settings("demo", ["portraits.source=" + sys.argv[1]]), Partition("portraits", None, 0)
work = Work(partition, {}, settings, portraits.sources(settings, partition), Path(sys.argv[2]))
summary = portraits.run(work)
names = portraits.reads(settings, partition)["names"]
print(json.dumps([summary.samples, summary.rejected, names]))
"""


@pytest.mark.parametrize("source", ["photos", "ph\u00f6tos"])
def test_a_locale_without_utf8_reads_the_same_names(source: str, tmp_path: Path) -> None:
    write(tmp_path / source, "caf\u00e9.png", picture(1))
    write(tmp_path / source, "a.png", picture(2))
    (tmp_path / source / os.fsdecode(LATIN)).write_bytes(encode_png(picture(3)))
    text = json.dumps({"labels": [["caf\u00e9.png", eg3d_label()]]})
    (tmp_path / source / "dataset.json").write_text(text)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / source, tmp_path / "out"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [2, {"name is not UTF-8": 1}, ["a.png", "caf\\xe9.png", "caf\u00e9.png"]]
    assert open_source(make_settings(tmp_path / source).portraits).names == ("a.png", "caf\\xe9.png", "caf\u00e9.png")
