"""A dataset in the layouts of EG3D and 3DPE, and what comes back when they are taken in."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import Snapshot, publish
from data_catalog.samples.encoding import decode_rgb
from data_catalog.samples.tables import schema_of
from data_catalog.workspace import Workspace
from flows.cli.commands import app
from tasks import dataset
from tasks.datasets.export import _best_edits, _by_styles, export_dataset
from tasks.sources.labels import Licence
from tasks.sources.opening import open_source
from tasks.student.export import export_student
from tasks.tables.portraits import Portrait
from tests.tasks.test_align import align_all, intake
from tests.worlds.chain import write_chain

Row = dict[str, Any]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A dataset of two styles that was made by the real stages, of photographs with licences."""
    chain = write_chain(tmp_path_factory.mktemp("made"))
    for block in (0, 1):
        path = chain.folder(f"portraits/{block:04d}") / "portraits.parquet"
        licensed = [row | licence_of(row["portrait_id"]) for row in pq.read_table(path).to_pylist()]
        schema = schema_of(Portrait)
        pq.write_table(pa.Table.from_pylist(licensed, schema=schema), path)
    again = chain.work(dataset.STAGE)
    chain.keep(again, dataset.run(again))
    return publish(chain.root, chain.folder("dataset/all"))


def licence_of(portrait_id: str | None) -> dict[str, str]:
    told = Licence("CC BY 2.0", "https://licence", f"author of {portrait_id}", f"https://photo/{portrait_id}")
    return told._asdict() if portrait_id != "p0000000003" else Licence()._asdict()


@pytest.fixture(autouse=True)
def data_root(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLROOM_DATA", str(snapshot.folder.parents[1]))
    return snapshot.folder.parents[1]


def rows_of(snapshot: Snapshot) -> dict[str, Row]:
    """The first sample of each portrait."""
    return {row["portrait_id"]: row for row in reversed(snapshot.samples().to_pylist())}


def aligned_again(source: Path, folder: Path) -> dict[str, Row]:
    folder.mkdir()
    settings, made = intake(source, folder / "portraits", "portraits.count=null", "portraits.block_size=100")
    rows, _ = align_all(settings, made, folder / "align")
    taken = pq.read_table(folder / "portraits" / "portraits.parquet").to_pylist()
    for portrait in taken:
        rows[portrait["name"]] |= {name: portrait[name] for name in Licence._fields}
    for row in rows.values():
        row["picture"] = decode_rgb((folder / "align" / "aligned" / f"{row['portrait_id']}.png").read_bytes())
    return rows


@pytest.mark.parametrize("layout", ["eg3d", "3dpe"])
@pytest.mark.parametrize("name", ["out", "out.zip", "OUT.ZIP", "v1.2"])
def test_what_is_exported_comes_back(layout: str, name: str, snapshot: Snapshot, tmp_path: Path) -> None:
    """Pixels, labels, splits, licences."""
    outcome = export_dataset(layout, tmp_path / name, "latest", Workspace.open())
    known = rows_of(snapshot)
    assert (outcome["portraits"], outcome["dataset"]) == (len(known), snapshot.digest)
    assert (tmp_path / name).is_file() == name.lower().endswith(".zip")
    back = aligned_again(tmp_path / name, tmp_path / "back")
    assert {Path(name).stem for name in back} == set(known)
    for name, row in back.items():
        then = known[Path(name).stem]
        assert (row["split"], row["camera_source"]) == (then["split"], "given")
        assert row["camera"] == [float(value) for value in then["camera"]]
        assert {name: then[name] for name in Licence._fields} == licence_of(then["portrait_id"])
        assert {name: row[name] for name in Licence._fields} == licence_of(then["portrait_id"])
        assert (row["picture"] == pixels(snapshot, then, "portrait.png")).all()
    assert len({row["split"] for row in back.values()}) == 3


@pytest.mark.parametrize("name", ["out.tar", "OUT.TAR", "out.tar.gz", "out.TGZ", "out.7z", "out.json"])
def test_the_name_of_a_file_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    workspace = Workspace.open()
    for export, hint in ((lambda path: export_dataset("eg3d", path, None, workspace), "out.zip"),
                         (lambda path: export_student(path, None, workspace), "out")):  # fmt: skip
        with pytest.raises(UserError, match="is the name of a file that is not written here") as caught:
            export(tmp_path / name)
        assert str(caught.value.hint).lower() == str(tmp_path / hint).lower()
    with pytest.raises(UserError, match="not written here"):
        export_student(tmp_path / "student.ZIP", None, workspace)
    assert list(tmp_path.iterdir()) == []


def pixels(snapshot: Snapshot, row: Row, field: str) -> np.ndarray:
    import tarfile

    with tarfile.open(snapshot.folder.parents[1] / row["shard"]) as tar:
        member = tar.extractfile(f"{row['key']}.{field}")
        assert member is not None
        return decode_rgb(member.read())


def test_the_manifest_counts_the_licences(snapshot: Snapshot) -> None:
    assert snapshot.manifest["portrait_licences"] == {"CC BY 2.0": 3, "not given": 1}


def test_equal_datasets_give_equal_archives(snapshot: Snapshot, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        export_dataset("eg3d", tmp_path / name, "latest", Workspace.open())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_each_edit_lies_beside_its_portrait(snapshot: Snapshot, tmp_path: Path) -> None:
    outcome = export_dataset("3dpe", tmp_path / "out", "latest", Workspace.open())
    samples = snapshot.samples().to_pylist()
    files = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.png")}
    assert outcome["edits"] == len(samples) == len([name for name in files if "_" in name])
    for row in samples:
        (edit,) = [name for name in files if name.endswith(f"_{row['style']}/{row['portrait_id']}.png")]
        assert (decode_rgb(files[edit].read_bytes()) == pixels(snapshot, row, "pseudo_label.png")).all()
    settings, _ = intake(tmp_path / "out", tmp_path / "again")
    edits = open_source(settings.portraits).listing.edits
    assert sum(len(styles) for styles in edits.values()) == len(samples)


def test_the_public_loader_finds_every_file_it_may_ask_for(snapshot: Snapshot, tmp_path: Path) -> None:
    """It takes a portrait (a path without "_") and any style of its folder, and wants a label for each portrait."""
    export_dataset("3dpe", tmp_path / "out", "latest", Workspace.open())
    root = tmp_path / "out"
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.png")}
    labels = dict(json.loads((root / "dataset.json").read_text())["labels"])
    styles: dict[str, list[str]] = {}
    for folder in sorted(path.name for path in root.iterdir() if path.is_dir() and "_" in path.name):
        styles.setdefault(folder.split("_", 1)[0], []).append(folder.split("_", 1)[1])
    originals = [name for name in names if "_" not in name]
    assert sorted(labels) == sorted(originals)
    assert all(len(label) == 25 for label in labels.values())
    for name in originals:
        folder, _, file = name.partition("/")
        assert styles[folder]
        assert {f"{folder}_{style}/{file}" for style in styles[folder]} <= names


def test_portraits_of_one_folder_have_the_same_styles_and_the_best_edit() -> None:
    def row(portrait: str, style: str, rank: int | None) -> Row:
        return {"key": f"{portrait}-{style}-{rank}", "portrait_id": portrait, "style": style, "rank": rank}

    rows = [row("p1", "a", 2), row("p1", "a", 1), row("p1", "b", None), row("p2", "a", 1), row("p3", "b", 1)]
    best = _best_edits([*rows, row("p3", "a", 4)])
    assert best["p1"]["a"]["rank"] == 1
    places = _by_styles(best)
    assert places["p1"] == places["p3"] != places["p2"]


def test_an_export_is_whole_or_not_there(snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "data"
    shutil.copytree(snapshot.folder.parents[1], copy)
    monkeypatch.setenv("STILLROOM_DATA", str(copy))
    shards = sorted(copy.glob("store/teach/*/*/*/shard.tar"))
    shards[-1].unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="a shard of the dataset is gone"):
        export_dataset("3dpe", tmp_path / "out" / "new", "latest", Workspace.open())
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten_and_faults_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.zip").write_bytes(b"")
    with pytest.raises(UserError, match="is there already"):
        export_dataset("eg3d", tmp_path / "old.zip", "latest", Workspace.open())
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="there is no dataset yet"):
        export_dataset("eg3d", tmp_path / "new", "latest", Workspace.open())


def test_the_command_exports_and_knows_its_formats(snapshot: Snapshot, tmp_path: Path) -> None:
    called = CliRunner().invoke(
        app, ["export", "--format", "eg3d", "--dataset", snapshot.digest[:8], str(tmp_path / "a.zip"), "--json"]
    )
    assert called.exit_code == 0, called.output
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert "dataset.json" in archive.namelist()
    wrong = CliRunner().invoke(app, ["export", "--format", "coco", str(tmp_path / "b")])
    assert wrong.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
