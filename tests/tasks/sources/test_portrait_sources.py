"""Sources of many portraits and of the public layouts: little memory, blocks apart, licences, mirrors, given splits."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_png
from data_catalog.store.fingerprint import FileDigests
from data_catalog.store.stage import Partition, Work
from models.camera import mirror_label, orbit_label
from tasks import portraits
from tasks.sources import licences as portrait_licences
from tasks.sources import repeats as portrait_repeats
from tasks.sources.licences import ffhq_number, iterate_object
from tasks.sources.opening import find_copies, open_source
from tests.tasks.test_portraits import eg3d_label, make_settings, picture, take
from tests.worlds.processes import as_nobody, fork, memory_folder, wait

MANY = 3000
SIDE = 40


def write(folder: Path, name: str, rgb: np.ndarray) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode_png(rgb))


@pytest.fixture(scope="module")
def large_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EG3D zip of many small pictures."""
    path = tmp_path_factory.mktemp("large") / "ffhq.zip"
    names = [f"{number // 1000:05}/img{number:08}.png" for number in range(MANY)]
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, encode_png(picture(number, (SIDE, SIDE))))
        archive.writestr("dataset.json", json.dumps({"labels": [[name, eg3d_label()] for name in names]}))
    return path


def test_a_picture_that_may_not_be_read_is_rejected_and_the_others_are_taken() -> None:
    with memory_folder() as folder:
        folder.chmod(0o755)
        for number in range(3):
            write(folder / "in", f"{number}.png", picture(number, (SIDE, SIDE)))
        (folder / "in" / "1.png").chmod(0)
        settings = make_settings(folder / "in")

        def read() -> None:
            as_nobody()
            partition = Partition("portraits", None, 0)
            known = FileDigests(folder / "digests.json")
            files = portraits.sources(settings, partition)
            assert [name for name, path in files.items() if known.digest(path)] == ["0.png", "2.png"]
            found = [open_source(settings.portraits).read(f"{number}.png") for number in range(3)]
            assert [getattr(data, "reason", "") for data in found] == ["", "unreadable", ""]

        assert wait(fork(read)) == 0
        with zipfile.ZipFile(folder / "in.zip", "w") as archive:
            archive.write(folder / "in" / "0.png", "0.png")
        (folder / "in.zip").chmod(0)

        def open_zip() -> None:
            as_nobody()
            with pytest.raises(UserError, match=r"in\.zip cannot be read") as raised:
                open_source(make_settings(folder / "in.zip").portraits)
            assert "shows who may read" in str(raised.value.hint)

        assert wait(fork(open_zip)) == 0
        (folder / "in" / "1.png").chmod(0o644)
        assert len(portraits.sources(settings, Partition("portraits", None, 0))) == 3  # so the block is made again


def test_a_block_needs_the_memory_of_a_few_pictures(tmp_path: Path) -> None:
    source = tmp_path / "portraits.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(80):
            archive.writestr(f"{number}.png", encode_png(picture(number, (256, 256))))
    take(make_settings(source, "portraits.count=1"), 0, tmp_path / "first")  # imports what it needs
    settings = make_settings(source, "portraits.block_size=80", "portraits.count=null")
    work = Work(Partition("portraits", None, 0), {}, settings, {"archive": source}, tmp_path)
    portraits.reads(settings, work.partition)  # what is remembered of the whole source: names, labels, sizes
    tracemalloc.start()
    summary = portraits.run(work)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary.samples == 80
    pixels = 80 * 256 * 256 * 3
    assert peak < pixels / 5, f"{peak / 1e6:.1f} MB for {pixels / 1e6:.1f} MB of pixels"


def test_a_zip_is_opened_once_for_all_its_pictures(
    large_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory of 140,000 names takes a second to read: once for each picture would be a day."""
    opened = []
    kept = zipfile.ZipFile.__init__

    def count(self: zipfile.ZipFile, *arguments: Any, **options: Any) -> None:
        opened.append(arguments)
        kept(self, *arguments, **options)

    large_zip.touch()  # a source that nothing is remembered of
    monkeypatch.setattr(zipfile.ZipFile, "__init__", count)
    for block in range(3):
        settings = make_settings(large_zip, "portraits.block_size=100", "portraits.count=300")
        take(settings, block, tmp_path / str(block))
    assert len(opened) == 1


def test_an_interrupted_intake_goes_on_block_by_block(large_zip: Path, tmp_path: Path) -> None:
    """Blocks know nothing of each other: made alone, in any order, again, they are the same."""
    settings = make_settings(large_zip, "portraits.block_size=40", "portraits.count=120")
    forth = [take(settings, block, tmp_path / f"forth-{block}")[0] for block in (0, 1, 2)]
    back = [take(settings, block, tmp_path / f"back-{block}")[0] for block in (2, 1, 0)]
    assert forth == back[::-1]
    names = [row["name"] for rows in forth for row in rows]
    assert sorted(names) == sorted(open_source(settings.portraits).names)


def test_planning_many_blocks_looks_at_each_file_a_few_times_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        write(tmp_path, f"{number:04}.png", picture(number % 290, (16, 16)))
    looked: list[Path] = []
    kept = portrait_repeats._size

    def record(path: Path) -> int:
        looked.append(path)
        return kept(path)

    monkeypatch.setattr(portrait_repeats, "_size", record)
    settings = make_settings(tmp_path, "portraits.block_size=3", "portraits.count=null")
    read = [portraits.reads(settings, Partition("portraits", None, block)) for block in portraits.blocks(settings)]
    assert sum(len(each["repeats"]) for each in read) == 10
    assert len(looked) <= 3 * 300


def test_a_file_that_becomes_a_repeat_in_place_is_noticed(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path, f"{number}.png", picture(number))
    settings = make_settings(tmp_path, "portraits.block_size=3")
    partition = Partition("portraits", None, 1)
    assert portraits.reads(settings, partition)["repeats"] == {}
    (tmp_path / "4.png").write_bytes((tmp_path / "1.png").read_bytes())
    assert portraits.reads(settings, partition)["repeats"] == {"4.png": "1.png"}


def test_many_files_of_one_size_are_not_compared_with_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}.bmp").write_bytes(number.to_bytes(2, "big") * 50)
    (tmp_path / "zz.bmp").write_bytes((7).to_bytes(2, "big") * 50)
    compared: list[str] = []
    kept = portrait_repeats._equal

    def record(source: Any, first: str, second: str) -> bool:
        compared.append(first)
        return kept(source, first, second)

    monkeypatch.setattr(portrait_repeats, "_equal", record)
    source = open_source(make_settings(tmp_path, "portraits.count=null").portraits)
    assert portrait_repeats.find_repeats(source, source.names) == {"zz.bmp": "007.bmp"}
    assert compared == ["zz.bmp"]


def make_3dpe(root: Path) -> None:
    for number in range(2):
        write(root, f"00000/{number}.png", picture(number))
        for style in ("bronze-statue", "elf_ears"):
            write(root, f"00000_{style}/{number}.png", picture(100 + number))
    write(root, "00001/5.png", picture(5))
    write(root, "00001_clown/5.png", picture(105))
    labels = [[f"0000{folder}/{name}.png", eg3d_label()] for folder, name in ((0, 0), (0, 1), (1, 5))]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))


def test_the_3dpe_layout_gives_originals_and_knows_their_edits(tmp_path: Path) -> None:
    make_3dpe(tmp_path / "3dpe")
    settings = make_settings(tmp_path / "3dpe")
    rows, summary = take(settings, 0, tmp_path / "out")
    assert {row["name"] for row in rows} == {"00000/0.png", "00000/1.png", "00001/5.png"}
    assert all(row["camera_given"] == eg3d_label() for row in rows)
    assert summary.rejected == {}
    edits = open_source(settings.portraits).listing.edits
    assert edits["00000/0.png"] == {"bronze-statue": "00000_bronze-statue/0.png", "elf_ears": "00000_elf_ears/0.png"}
    assert edits["00001/5.png"] == {"clown": "00001_clown/5.png"}


def test_a_folder_with_an_underscore_is_no_edit_without_its_original(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for name in ("family/a.png", "family_2020/b.png", "my_photos/c.png"):
        write(source, name, picture(len(name)))
    (source / "dataset.json").write_text('{"labels": null}')
    assert len(open_source(make_settings(source).portraits).names) == 3
    write(source, "family_2020/a.png", picture(99))
    (source / "dataset.json").unlink()
    assert len(open_source(make_settings(source).portraits).names) == 4


@pytest.mark.parametrize(
    "twins",
    [
        lambda number: (f"img{number:08}.png", f"img{number:08}_mirror.png"),
        lambda number: (f"img{2 * number:08}.png", f"img{2 * number + 1:08}.png"),  # as EG3D's dataset tool names them
        lambda number: (f"b/{number}.png", f"a/{number}.png"),  # the copy first, and far away
    ],
)
def test_a_mirrored_picture_is_in_the_split_of_the_one_it_mirrors(
    tmp_path: Path, twins: Callable[[int], tuple[str, str]]
) -> None:
    source = tmp_path / "eg3d"
    for number in range(40):
        original, mirrored = twins(number)
        write(source, original, picture(number))
        write(source, mirrored, picture(number)[:, ::-1])
    settings = make_settings(source, "portraits.block_size=7", "portraits.count=null", "portraits.test_fraction=0.4")
    splits: dict[str, str] = {}
    people: dict[str, str] = {}
    for block in portraits.blocks(settings):
        rows, _ = take(settings, block, tmp_path / f"{block}")
        splits |= {row["name"]: row["split"] for row in rows}
        people |= {row["name"]: row["person"] for row in rows}
    assert {"train", "test"} <= set(splits.values())
    assert len(set(people.values())) == 40
    for number in range(40):
        original, mirrored = twins(number)
        assert splits[original] == splits[mirrored]
        assert people[original] == people[mirrored]


def test_splits_that_are_given_count_and_a_wrong_one_is_rejected(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(4):
        write(source, f"{number}.png", picture(number))
    splits = {"0.png": "test", "1.png": "val", "2.png": "validation"}
    (source / "dataset.json").write_text(json.dumps({"labels": [], "splits": splits}))
    settings = make_settings(source, "portraits.test_fraction=0", "portraits.val_fraction=0")
    rows, summary = take(settings, 0, tmp_path / "out")
    assert {row["name"]: row["split"] for row in rows if row["status"] == "ok"} == {
        "0.png": "test", "1.png": "val", "3.png": "train"
    }  # fmt: skip
    assert summary.rejected == {"bad split": 1}
    before = portraits.reads(settings, Partition("portraits", None, 0))
    (source / "dataset.json").write_text(json.dumps({"labels": [], "splits": splits | {"0.png": "train"}}))
    assert portraits.reads(settings, Partition("portraits", None, 0)) != before


def ffhq_entry(number: int) -> dict[str, Any]:
    """Entry of ffhq-dataset-v2.json, without the unread keys."""
    told = {"license": f"licence {number % 2}", "license_url": "https://licence", "author": f"author {number}"}
    landmarks = [[0.5 * number, 1.25]] * 68
    return {
        "category": "training",
        "metadata": told | {"photo_url": f"https://photo/{number}", "country": "}, {"},
        "in_the_wild": {"face_landmarks": landmarks},
    }


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    source = tmp_path / "ffhq"
    for number in (0, 1, 7):
        write(source, f"00000/img{number:08}.png", picture(number))
    write(source, "00000/img00000007_mirror.png", picture(7)[:, ::-1])
    write(source, "friend.png", picture(50))
    entries = {str(number): ffhq_entry(number) for number in range(9)}
    (source / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    return source


def licences_of(settings: Settings, folder: Path) -> dict[str, tuple[str, str, str]]:
    rows, _ = take(settings, 0, folder)
    return {row["name"]: (row["licence"], row["author"], row["source_url"]) for row in rows}


def test_each_portrait_carries_its_own_licence(ffhq: Path, tmp_path: Path) -> None:
    assert licences_of(make_settings(ffhq), tmp_path / "out") == {
        "00000/img00000000.png": ("licence 0", "author 0", "https://photo/0"),
        "00000/img00000001.png": ("licence 1", "author 1", "https://photo/1"),
        "00000/img00000007.png": ("licence 1", "author 7", "https://photo/7"),
        "00000/img00000007_mirror.png": ("licence 1", "author 7", "https://photo/7"),
        "friend.png": ("", "", ""),
    }


def test_licences_may_lie_elsewhere_and_without_them_there_are_no_columns(ffhq: Path, tmp_path: Path) -> None:
    elsewhere = (ffhq / "ffhq-dataset-v2.json").rename(tmp_path / "metadata.json")
    rows, _ = take(make_settings(ffhq), 0, tmp_path / "without")
    assert "licence" not in rows[0]
    with_them = make_settings(ffhq, f"portraits.licences={elsewhere}")
    assert licences_of(with_them, tmp_path / "with")["friend.png"] == ("", "", "")
    with pytest.raises(UserError, match=r"portraits\.licences: there is no file"):
        take(make_settings(ffhq, "portraits.licences=nowhere.json"), 0, tmp_path / "nowhere")


def test_a_changed_licence_concerns_its_own_block_alone(ffhq: Path) -> None:
    settings = make_settings(ffhq, "portraits.block_size=2")

    def read() -> list[Any]:
        return [portraits.reads(settings, Partition("portraits", None, block)) for block in (0, 1)]

    before = read()
    entries = {str(number): ffhq_entry(number) for number in range(9)}
    entries["7"]["metadata"]["license"] = "none at all, they say now"
    (ffhq / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    after = read()
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_licences_are_read_entry_by_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of any size, strings with braces and commas included, as json itself reads them."""
    entries = {str(number): ffhq_entry(number) for number in range(4)}
    for piece in (5, 1000, 10**6):
        monkeypatch.setattr(portrait_licences, "PIECE", piece)
        for indent in (None, 2):
            assert dict(iterate_object(io.StringIO(json.dumps(entries, indent=indent)))) == entries
    assert dict(iterate_object(io.StringIO(" {} "))) == {}


@pytest.mark.parametrize("text", ["", "[1]", '{"0": 5}', '{"0": {"a": 1}', '{"0" {}}', '{"0": {"metadata": {}}}'])
def test_a_licence_file_that_is_none_is_the_users_to_mend(text: str, ffhq: Path) -> None:
    (ffhq / "ffhq-dataset-v2.json").write_text(text)
    with pytest.raises(UserError, match=r"ffhq-dataset-v2\.json cannot be read"):
        portraits.reads(make_settings(ffhq), Partition("portraits", None, 0))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("00000/img00000123.png", 123),
        ("00123.png", 123),
        ("img00000000_mirror.png", 0),
        ("me.png", None),
        ("a1.png", None),
    ],
)
def test_ffhqs_number_is_in_the_name(name: str, number: int | None) -> None:
    assert ffhq_number(name) == number


def test_licences_reach_the_table_as_text(ffhq: Path, tmp_path: Path) -> None:
    take(make_settings(ffhq), 0, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "portraits.parquet")
    assert [schema.field(name).type for name in ("licence", "licence_url")] == ["string", "string"]


def test_a_count_takes_people_before_their_mirrored_copies(tmp_path: Path) -> None:
    """A zip as EG3D's scripts write FFHQ: each picture, then its mirrored copy under the next number."""
    rng = np.random.default_rng(0)
    labels, path = [], tmp_path / "ffhq.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(30):
            yaw, pitch = rng.uniform(-0.5, 0.5, 2)
            own = orbit_label(float(yaw), float(pitch))
            for place, (rgb, label) in enumerate(
                ((picture(number), own), (picture(number)[:, ::-1], mirror_label(own)))
            ):
                name = f"00000/img{2 * number + place:08d}.png"
                archive.writestr(name, encode_png(np.ascontiguousarray(rgb)))
                labels.append([name, label[0].tolist()])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    settings = make_settings(path, "portraits.count=20", "portraits.block_size=7")
    people = []
    for block in portraits.blocks(settings):
        rows, _ = take(settings, block, tmp_path / f"{block}")
        people += [row["person"] for row in rows if row["status"] == "ok"]
    assert len(people) == len(set(people)) == 20
    whole = open_source(make_settings(path, "portraits.count=null").portraits).names
    assert [int(name[-8:-4]) % 2 for name in whole] == [0] * 30 + [1] * 30
    # A camera that is its own mirror image tells nothing: such labels are given where none is known.
    frontal = {f"{number}.png": orbit_label(0.0, 0.0)[0].tolist() for number in range(4)}
    assert find_copies(tuple(frontal), frontal) == set()
    assert find_copies(("a.png", "a_mirror.png", "b_mirror.png"), {}) == {"a_mirror.png"}
