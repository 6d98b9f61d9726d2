"""Dataset snapshots: named by content, published whole, found by the beginning of their digest."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_catalog.care.verify import verify
from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import Snapshot, list_snapshots, open_snapshot, publish, write_snapshot_files


def rows(count: int = 4, leak: bool = False) -> pa.Table:
    keys = [f"p{number}-zombie-0-0" for number in range(count)]
    splits = ["train"] * (count - 1) + ["test"]
    portraits = [f"p{0 if leak else number}" for number in range(count)]
    return pa.table(
        {"key": keys, "portrait_id": portraits, "split": splits, "score_clip": [n / 8 for n in range(count)]}
    )


def make(root: Path, name: str, table: pa.Table, manifest: dict[str, object] | None = None) -> Snapshot:
    folder = root / name
    folder.mkdir(parents=True)
    write_snapshot_files(folder, table, manifest or {"name": "faces"})
    return publish(root, folder, {"README.md": b"# Faces\n"})


def test_a_snapshot_is_named_by_its_content(tmp_path: Path) -> None:
    snapshot = make(tmp_path, "a", rows())
    assert snapshot.folder == tmp_path / "datasets" / snapshot.digest[:16]
    assert sorted(path.name for path in snapshot.folder.iterdir()) == [
        "README.md",
        "manifest.json",
        "samples.parquet",
    ]
    assert (tmp_path / "datasets" / "latest").read_text() == snapshot.digest + "\n"
    assert open_snapshot(tmp_path) == open_snapshot(tmp_path, snapshot.digest[:6]) == snapshot
    assert snapshot.manifest == {"name": "faces"}


def test_the_order_of_rows_and_the_path_do_not_matter(tmp_path: Path) -> None:
    shuffled = rows().take([2, 0, 3, 1])
    chunked = pa.concat_tables([rows().slice(0, 1), rows().slice(1)])
    digests = {make(tmp_path / str(n), "a", table).digest for n, table in enumerate([rows(), shuffled, chunked])}
    assert len(digests) == 1
    assert make(tmp_path / "other", "a", rows(5)).digest not in digests
    assert make(tmp_path / "manifest", "a", rows(), {"name": "b"}).digest not in digests


def test_publishing_again_renews_only_the_documents(tmp_path: Path) -> None:
    first = make(tmp_path, "a", rows())
    before = (first.folder / "samples.parquet").stat().st_mtime_ns
    again = publish(tmp_path, tmp_path / "a", {"report.html": b"<p>"})
    assert again == first
    assert (first.folder / "samples.parquet").stat().st_mtime_ns == before
    assert (first.folder / "report.html").read_bytes() == b"<p>"
    assert (first.folder / "README.md").exists()


def test_the_newest_is_the_latest(tmp_path: Path) -> None:
    make(tmp_path, "a", rows())
    second = make(tmp_path, "b", rows(5))
    assert open_snapshot(tmp_path) == second
    assert len(list_snapshots(tmp_path)) == 2


def test_columns_and_filters_are_read_alone(tmp_path: Path) -> None:
    snapshot = make(tmp_path, "a", rows())
    table = snapshot.samples(["key"], pc.field("score_clip") > 0.2)
    assert table.to_pydict() == {"key": ["p2-zombie-0-0", "p3-zombie-0-0"]}


def test_no_dataset_and_an_unknown_one_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no dataset yet"):
        open_snapshot(tmp_path)
    make(tmp_path, "a", rows())
    with pytest.raises(UserError, match="no dataset starts with the digest 'beef'"):
        open_snapshot(tmp_path, "beef")


def test_a_changed_snapshot_is_said(tmp_path: Path) -> None:
    snapshot = make(tmp_path, "a", rows())
    (snapshot.folder / "manifest.json").write_text(json.dumps({"name": "forged"}))
    with pytest.raises(UserError, match="does not match its name"):
        open_snapshot(tmp_path)
    assert [damage.problem for damage in verify(tmp_path).damaged] == ["the dataset does not match its name"]


def test_a_portrait_in_two_splits_is_found(tmp_path: Path) -> None:
    make(tmp_path, "a", rows())
    assert verify(tmp_path).damaged == []
    make(tmp_path, "b", rows(leak=True))
    assert [damage.problem for damage in verify(tmp_path).damaged] == ["the portrait p0 is in two splits"]


def test_a_key_occurs_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="occurs twice"):
        make(tmp_path, "a", pa.concat_tables([rows(), rows()]))
