"""Two real datasets, one pseudo-label apart: what is told of them, on the page and on the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.products.snapshot import Snapshot, publish, write_snapshot_files
from data_catalog.samples.encoding import encode_png
from data_catalog.store.fingerprint import digest_file
from data_catalog.store.store import Store
from tasks import dataset, edit, score, select, teach
from tasks.datasets.diff import describe_diff, differ, find_dataset, pair_samples
from tasks.reports.comparison import dataset_page, read_pictures
from tasks.tables.edits import EDITS
from tests.worlds.chain import STYLES, Chain, networks, write_chain, write_edits

Pair = tuple[Snapshot, Snapshot]
REPAINTED, LOST = "p0000000003", "p0000000004"  # portraits of block 1


@pytest.fixture(scope="module")
def pair(root: Path) -> Pair:
    """A, and B with one zombie painted grey, one lost, and a moved gate."""
    before = write_chain(root)
    first = publish(root, before.folder("dataset/all"))
    write_records(before)
    moved = before.settings.select.model_copy(update={"min_yield": 0.1})
    settings = before.settings.model_copy(update={"select": moved})
    after = replace(before, settings=settings, fingerprint="fedcba9876543210", made=dict(before.made))
    judges, teachers = networks()
    write_edits(after, "zombie", 1)
    repaint(after.folder("edit/zombie/0001"))
    after.keep(after.work(edit.STAGE, "zombie", 1))
    scored = after.work(score.STAGE, "zombie", 1)
    after.keep(scored, score.score(scored, judges))
    for style in STYLES:
        selected = after.work(select.STAGE, style)
        after.keep(selected, select.run(selected))
    taught = after.work(teach.STAGE, "zombie", 1)
    after.keep(taught, teach.teach(taught, teachers))
    joined = after.work(dataset.STAGE)
    after.keep(joined, dataset.run(joined))
    write_records(after, weights={"editor": "another"})
    return first, publish(root, joined.folder)


def repaint(folder: Path) -> None:
    rows = pq.read_table(folder / "edit.parquet").to_pylist()
    for row in rows:
        if row["portrait_id"] == REPAINTED:
            path = folder / "pseudo_labels" / f"{row['key']}.png"
            path.write_bytes(encode_png(np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3))))
            row["pseudo_label_digest"] = digest_file(path)
        if row["portrait_id"] == LOST:
            row |= {"status": "rejected", "reason": "editor: ValueError", "pseudo_label_digest": None}
    pq.write_table(pa.Table.from_pylist(rows, schema=EDITS.schema), folder / "edit.parquet")


def write_records(chain: Chain, weights: dict[str, str] | None = None) -> None:
    """Records of the edits on disk, as the store keeps them."""
    for key, made in chain.made.items():
        if key.startswith("edit/") and made.folder.name == chain.fingerprint:
            inputs = {"version": 1, "weights": weights or {"editor": "the first"}}
            Store(chain.root).write_record(made.record.model_copy(update={"fingerprint_inputs": inputs}))


@pytest.fixture(scope="module")
def diff(pair: Pair) -> dict[str, Any]:
    return describe_diff(*pair, pair_samples(*pair))


def test_exactly_what_changed_is_named(diff: dict[str, Any]) -> None:
    assert diff["samples"] == {"added": 0, "removed": 1, "changed": 1, "unchanged": 6}
    assert [key for key in diff["removed"] if re.fullmatch(rf"{LOST}-zombie-\d-0", key)] == diff["removed"]
    (repainted,) = diff["changed"]
    assert "pseudo-label" in repainted["what"]
    assert re.fullmatch(rf"{REPAINTED}-zombie-\d-0", repainted["key"])
    assert {"scores", "teacher"} <= set(repainted["what"])
    assert diff["changes"] == {"pseudo-label": 1, "teacher": 1, "scores": 1}


def test_the_other_way_round_removed_is_added(pair: Pair, diff: dict[str, Any]) -> None:
    back = describe_diff(pair[1], pair[0], pair_samples(pair[1], pair[0]))
    assert (back["added"], back["removed"]) == (diff["removed"], [])
    assert [row["key"] for row in back["changed"]] == [row["key"] for row in diff["changed"]]


def test_scores_move_by_style_and_the_shift_of_shared_samples_is_apart(pair: Pair, diff: dict[str, Any]) -> None:
    red, zombie = diff["styles"]
    assert all(each["shift"] == each["paired"] == 0 for each in red["scores"].values())
    assert (zombie["samples"], zombie["removed"]) == ({"a": 4, "b": 3}, 1)
    then, now = ([r for r in s.samples().to_pylist() if r["style"] == "zombie"] for s in pair)
    shared = {row["key"] for row in now}
    means = [np.mean([r["score_ssim"] for r in rows if r["key"] in shared]) for rows in (then, now)]
    found = zombie["scores"]["score_ssim"]
    assert found["shift"] == pytest.approx(means[1] - np.mean([row["score_ssim"] for row in then]))
    assert found["paired"] == pytest.approx(means[1] - means[0])
    assert found["paired"] != found["shift"]
    assert zombie["yield"] == {"a": 0.6, "b": 0.4}


def test_settings_partitions_and_other_causes_are_told(diff: dict[str, Any]) -> None:
    assert diff["settings"] == [{"setting": "select.min_yield", "a": "0.2", "b": "0.1"}]
    (cause,) = diff["causes"]
    assert cause == {"stage": "edit", "what": "weights editor", "a": "the first", "b": "another", "styles": ["zombie"]}
    rows = {row["stage"]: {k: v for k, v in row.items() if k != "stage"} for row in diff["partitions"]}
    assert list(rows) == ["portraits", "align", "prompts", "edit", "score", "select", "teach"]
    assert rows["edit"] == {"same": 3, "changed": 1, "added": 0, "removed": 0}
    assert rows["portraits"]["same"] == 2


def test_a_dataset_differs_from_itself_in_nothing(pair: Pair) -> None:
    same = describe_diff(pair[0], pair[0], pair_samples(pair[0], pair[0]))
    assert same["samples"] == {"added": 0, "removed": 0, "changed": 0, "unchanged": 8}
    assert not any(same[name] for name in ("changes", "settings", "causes", "added", "removed", "changed"))


def test_where_a_sample_lies_and_its_rank_are_no_change(tmp_path: Path) -> None:
    def snapshot(name: str, **columns: object) -> Snapshot:
        folder = tmp_path / name
        folder.mkdir()
        rows = {"key": "k", "style": "zombie", "shard": "store/a.tar", "block": 0, "rank": 0, "prompt": "x"} | columns
        write_snapshot_files(folder, pa.Table.from_pylist([rows]), {"name": "faces"})
        return publish(tmp_path, folder)

    first = snapshot("a")
    moved, reworded = snapshot("b", shard="store/b.tar", block=3, rank=9), snapshot("c", prompt="y")
    assert not len(pair_samples(first, moved).changed)
    assert pair_samples(first, reworded).what_changed(0) == ["prompt"]


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ([1.0, None, float("nan"), 2.0, None], [1.0, None, None, 3.0, 1.0], [False, False, False, True, True]),
        (["a", None], ["a", "b"], [False, True]),
        ([[1.0, 2.0], None, [], [3.0], None], [[1.0, 5.0], None, [], [3.0], [1.0]], [True, False, False, False, True]),
        ([[1.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 3.0]], [True, False]),
    ],
)
def test_unknown_values_are_equal_and_lists_are_compared_whole(
    then: list[object], now: list[object], expected: list[bool]
) -> None:
    assert differ(pa.chunked_array([then]), pa.chunked_array([now])).tolist() == expected


def test_cameras_are_compared_number_by_number() -> None:
    cameras = np.arange(75, dtype=np.float32).reshape(3, 25)
    moved = cameras.copy()
    moved[1, 24] += 1e-3
    columns = [pa.chunked_array([pa.array(list(each), pa.list_(pa.float32(), 25))]) for each in (cameras, moved)]
    assert differ(*columns).tolist() == [False, True, False]


def test_a_hundred_thousand_samples_take_a_moment(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(0), 100_000
    camera = pa.array(list(np.zeros((count, 25), np.float32)), pa.list_(pa.float32(), 25))

    def snapshot(name: str, first: int) -> Snapshot:
        (tmp_path / name).mkdir()
        keys = [f"p{number:06d}-s{number % 20}-0-0" for number in range(first, first + count)]
        styles = [key.split("-")[1] for key in keys]
        scores = {f"score_{n}": rng.random(count) for n in range(9)}
        table = pa.table({"key": keys, "style": styles, "camera": camera, **scores})
        write_snapshot_files(tmp_path / name, table, {"name": name})
        return Snapshot("0" * 64, tmp_path / name)

    big = snapshot("a", 0), snapshot("b", 1000)
    started = time.process_time()
    found = describe_diff(*big, pair_samples(*big))
    assert time.process_time() - started < 5
    assert found["samples"] == {"added": 1000, "removed": 1000, "changed": 99_000, "unchanged": 0}
    assert len(found["styles"]) == 20


def test_the_page_shows_portrait_a_and_b_and_loads_nothing(pair: Pair, diff: dict[str, Any]) -> None:
    samples = pair_samples(*pair)
    page = dataset_page(*pair, samples, diff).decode()
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]*)""", page)
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "<script" not in page
    assert page.count("data:image/webp") == 2  # one changed, one removed
    assert "pseudo-label A</span><span>pseudo-label B" in page
    for text in ("select.min_yield", "weights editor", *diff["removed"], diff["changed"][0]["key"]):
        assert text in page


def test_each_dataset_shows_its_own_pseudo_label(pair: Pair, root: Path) -> None:
    samples = pair_samples(*pair)
    (place,) = np.flatnonzero(samples.changes["pseudo-label"])
    rows = [table.slice(int(place), 1).to_pylist()[0] for table in (samples.before, samples.after)]
    (portrait_a, label_a), (portrait_b, label_b) = (read_pictures(row, root) or [] for row in rows)
    assert np.array_equal(portrait_a, portrait_b)
    assert (label_b == label_b[:1, :, :1]).all()  # the grey ramp
    assert not (label_a == label_a[:1, :, :1]).all()


def test_pictures_that_are_gone_are_said(pair: Pair, root: Path, tmp_path: Path) -> None:
    for side in pair:
        shutil.copytree(side.folder, tmp_path / "datasets" / side.folder.name)
    moved = find_dataset(tmp_path, str(tmp_path / "datasets" / pair[0].folder.name)), pair[1]
    samples = pair_samples(*moved)
    page = dataset_page(*moved, samples, describe_diff(*moved, samples)).decode()
    assert "A&#39;s pictures are no longer in the store" in page or "A's pictures are no longer in the store" in page
    assert "gone from the store" in page  # the removed one was A's


def stillroom(*arguments: str, root: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "STILLROOM_DATA": str(root), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "flows.cli", "diff", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False, timeout=120
    )


def test_the_command_prints_json_and_writes_the_page(pair: Pair, root: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "diff.html"
    ended = stillroom(pair[0].digest[:6], "latest", "--json", "--html", str(page), root=root)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert (document["a"]["digest"], document["b"]["digest"]) == (pair[0].digest, pair[1].digest)
    assert document["samples"]["changed"] == 1
    assert document["page"] == str(page)
    assert page.read_text().startswith("<!doctype html>")


def test_the_table_fits_a_terminal(pair: Pair, root: Path) -> None:
    ended = stillroom(str(pair[0].folder), "latest", root=root)
    assert ended.returncode == 0, ended.stderr
    assert "0 added, 1 removed, 1 changed, 6 unchanged" in ended.stdout
    assert "edit: weights editor the first -> another (zombie)" in ended.stdout
    rows = [line for line in ended.stdout.splitlines() if line.startswith(("red-hair", "zombie"))]
    assert len(rows) == 4  # no row is broken in two
    assert all(len(row) <= 80 for row in rows)


def test_an_unknown_or_ambiguous_dataset_says_which_there_are(pair: Pair, root: Path, tmp_path: Path) -> None:
    ended = stillroom("beefbeef", "latest", root=root)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no dataset starts with the digest 'beefbeef'" in ended.stderr
    assert all(side.digest[:16] in ended.stderr for side in pair)
    with pytest.raises(UserError, match="there is no dataset in"):
        find_dataset(tmp_path, str(tmp_path))


def test_an_ambiguous_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("abcd0123456789ab", "abce0123456789ab"):
        folder = tmp_path / "datasets" / name
        folder.mkdir(parents=True)
        write_snapshot_files(folder, pa.table({"key": [name], "style": ["x"]}), {})
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    with pytest.raises(UserError, match="two datasets start with the digest 'abc'") as caught:
        find_dataset(tmp_path, "abc")
    assert caught.value.fields["datasets"] == "abcd0123456789ab, abce0123456789ab"
