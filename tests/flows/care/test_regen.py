"""Remaking one sample alone gives the bytes that it had among others."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.profiles import load_settings
from data_catalog.store.execute import execute
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from flows.care.regen import regenerate, split_key
from tasks.tables.edits import EDITS

SMALL = ["portraits.count=4", "portraits.block_size=4", "edit.steps=2", "prompts.styles=[zombie]"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Edits of four portraits by the embedded editor."""
    root = tmp_path_factory.mktemp("regen") / "data"
    plan = open_plan(load_settings("demo", SMALL), root)
    for stage in ("portraits", "align", "prompts", "edit"):
        for job in plan.resolve(stage):
            plan.finish(execute(job, root))
    plan.save()
    return root


def edited(root: Path) -> tuple[Path, list[str]]:
    (folder,) = (root / "store" / "edit" / "zombie" / "0000").glob("[0-9a-f]*")
    return folder, pq.read_table(folder / "edit.parquet").column("key").to_pylist()


def test_a_sample_made_again_alone_has_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(root))
    folder, keys = edited(root)
    document = regenerate(keys[2], tmp_path / "out", Workspace.open("demo", SMALL))
    assert document["same"]
    stored = (folder / "pseudo_labels" / f"{keys[2]}.png").read_bytes()
    assert (tmp_path / "out" / f"{keys[2]}.png").read_bytes() == stored


def test_other_bytes_are_seen(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root, tmp_path / "data")
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    folder, keys = edited(tmp_path / "data")
    rows = pq.read_table(folder / "edit.parquet").to_pylist()
    rows[0]["seed"] += 1  # not the seed that its picture was made with
    pq.write_table(pa.Table.from_pylist(rows, schema=EDITS.schema), folder / "edit.parquet")
    assert not regenerate(keys[0], tmp_path, Workspace.open("demo", SMALL))["same"]


def test_an_unknown_key_names_those_of_its_portrait(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(root))
    _, keys = edited(root)
    portrait = keys[0].partition("-")[0]
    with pytest.raises(UserError, match="no sample") as caught:
        regenerate(f"{portrait}-zombie-99-0", tmp_path, Workspace.open("demo", SMALL))
    assert keys[0] in str(caught.value)
    with pytest.raises(UserError, match="no partition of edit that could hold"):
        regenerate(keys[0], tmp_path, Workspace.open("demo", [*SMALL, "edit.steps=3"]))


@pytest.mark.parametrize("key", ["zombie", "p0-zombie", "../p0-zombie-1-0", "p0-zombie-one-0"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(UserError, match="is not a sample's key"):
        split_key(key)


def test_a_key_may_hold_a_style_with_hyphens() -> None:
    assert split_key("p0123456789-red-hair-12-3") == ("p0123456789", "red-hair", 3)
    assert (PROJECT / "configs" / "styles" / "red-hair.txt").is_file()
