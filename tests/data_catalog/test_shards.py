"""Shards: the same bytes each time, and plain readers read them."""

import hashlib
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import (
    decode_array,
    decode_field,
    decode_rgb,
    dequantise_triplane,
    encode_array,
    encode_jpeg,
    encode_json,
    encode_png,
    quantise_triplane,
)
from data_catalog.samples.keys import sample_key
from data_catalog.samples.shards import (
    GAP,
    Sample,
    bytes_to_read,
    entries_from_table,
    index_table,
    read_into,
    read_sample,
    scan_shard,
    write_shard,
)
from data_catalog.store.fingerprint import digest_file
from tests.worlds.reading import read_shard


def samples(count: int = 3) -> list[Sample]:
    generator = np.random.default_rng(7)
    made = []
    for number in range(count):
        fields = {
            "portrait.png": encode_png(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)),
            "camera.npy": encode_array(generator.random(25, dtype=np.float32)),
            "meta.json": encode_json({"style": "zombie", "number": number, "text": "ü"}),
        }
        made.append(Sample(sample_key(f"p{number:010x}", "bronze-statue", number), fields))
    return made


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    write_shard(tmp_path / "shard.tar", samples())
    return tmp_path / "shard.tar"


def test_a_shard_made_again_has_the_same_bytes(shard: Path, tmp_path: Path) -> None:
    time.sleep(0.01)
    write_shard(tmp_path / "again.tar", iter(samples()))
    assert (tmp_path / "again.tar").read_bytes() == shard.read_bytes()


def test_tarfile_reads_a_plain_ustar(shard: Path) -> None:
    assert shard.read_bytes()[257:265] == b"ustar\x0000"
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.mtime, member.uid, member.gid, member.mode, member.uname) for member in members} == {
        (0, 0, 0, 0o644, "")
    }
    assert not any(member.pax_headers for member in members)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves the file open
def test_webdataset_reads_it_without_us(shard: Path) -> None:
    import webdataset

    read = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in samples()]
    for sample, expected in zip(read, samples(), strict=True):
        assert {name: sample[name] for name in expected.fields} == expected.fields


@pytest.mark.filterwarnings("ignore")  # of the libraries that `datasets` imports
def test_datasets_reads_it_without_us(shard: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    read = load_dataset(
        "webdataset", data_files={"train": str(shard)}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert list(read["__key__"]) == [sample.key for sample in samples()]
    assert read[1]["meta.json"]["number"] == 1
    np.testing.assert_array_equal(np.asarray(read[2]["portrait.png"]), decode_rgb(samples()[2].fields["portrait.png"]))


def test_one_sample_is_read_by_its_offset(shard: Path, tmp_path: Path) -> None:
    pq.write_table(index_table(scan_shard(shard)), tmp_path / "index.parquet")
    entries = entries_from_table(pq.read_table(tmp_path / "index.parquet"))
    assert read_sample(shard, entries[1]) == dict(sorted(samples()[1].fields.items()))
    assert list(read_sample(shard, entries[2], ["camera.npy"])) == ["camera.npy"]


def test_the_writers_index_is_that_of_the_headers(tmp_path: Path) -> None:
    entries = write_shard(tmp_path / "shard.tar", samples(5))
    assert scan_shard(tmp_path / "shard.tar") == entries
    assert [entry.offset for entry in entries] == list(np.cumsum([0, *(entry.bytes for entry in entries[:-1])]))


def test_all_samples_are_read_in_order(shard: Path) -> None:
    assert [(sample.key, dict(sample.fields)) for sample in read_shard(shard)] == [
        (sample.key, dict(sample.fields)) for sample in samples()
    ]


def test_a_shard_shorter_than_its_index_is_said(shard: Path) -> None:
    entries = scan_shard(shard)
    shard.write_bytes(shard.read_bytes()[: entries[2].offset + 600])
    with pytest.raises(UserError, match="shorter than its index says"):
        read_sample(shard, entries[2])


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (Sample("p1.x", {"a.png": b""}), "no sample key"),
        (Sample("P1", {"a.png": b""}), "no sample key"),
        (Sample("-p1", {"a.png": b""}), "no sample key"),
        (Sample("p" * 97, {"a.png": b""}), "no sample key"),
        (Sample("p2", {"png": b""}), "no field name"),
        (Sample("p2", {"a.b.PNG": b""}), "no field name"),
        (Sample("p2", {}), "has no fields"),
        (Sample("p2", {"b.png": b""}), "has other fields"),
        (Sample("p0", {"a.png": b""}), "keys ascend"),
        (Sample("p1", {"a.png": b""}), "keys ascend"),
    ],
)
def test_a_sample_that_readers_would_misread_is_not_written(tmp_path: Path, bad: Sample, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        write_shard(tmp_path / "shard.tar", [Sample("p1", {"a.png": b"1"}), bad])


def test_an_empty_shard_is_a_tar(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "shard.tar", []) == []
    assert index_table([]).num_rows == 0
    with tarfile.open(tmp_path / "shard.tar") as tar:
        assert tar.getmembers() == []


def test_q8_keeps_a_triplane_within_half_a_step_of_each_tile() -> None:
    generator = np.random.default_rng(3)
    triplane = generator.normal(size=(6, 64, 96)).astype(np.float32)
    triplane[0, 0, 0] = 50.0  # an outlier costs its own tile alone
    triplane[1] = 0.25  # a flat channel is exact
    codes, tiles = quantise_triplane(triplane)
    assert (codes.dtype, codes.shape, tiles.dtype, tiles.shape) == (
        np.uint8,
        (6, 64, 96),
        np.float32,
        (2, 6, 2, 3),
    )
    error = np.abs(dequantise_triplane(codes, tiles) - triplane)
    steps = np.repeat(np.repeat(tiles[0], 32, axis=1), 32, axis=2)
    assert (error <= steps * 0.501 + 1e-6).all()
    assert error[1].max() == 0
    assert np.linalg.norm(error[2:]) / np.linalg.norm(triplane[2:]) < 9e-3


def test_q8_of_fp16_and_tiny_values_does_not_underflow() -> None:
    triplane = (np.random.default_rng(0).random((3, 32, 32)) * 1e-5).astype(np.float32)
    codes, tiles = quantise_triplane(triplane)
    np.testing.assert_allclose(dequantise_triplane(codes, tiles), triplane, atol=4e-8)
    with pytest.raises(ValueError, match="inf or nan"):
        quantise_triplane(np.full((1, 32, 32), np.nan, np.float32))


def test_fields_decode_to_what_was_encoded() -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    assert encode_array(array) == encode_array(np.arange(6, dtype="<f4").reshape(2, 3))
    np.testing.assert_array_equal(decode_array(encode_array(array)), array)
    rgb = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    np.testing.assert_array_equal(decode_field("a.png", encode_png(rgb)), rgb)
    assert np.abs(decode_field("a.jpg", encode_jpeg(rgb)).astype(int) - rgb).max() <= 3
    assert decode_field("meta.json", encode_json({"b": 1, "a": [2]})) == {"a": [2], "b": 1}
    assert encode_json({"b": 1, "a": 2}) == json.dumps({"a": 2, "b": 1}, indent=1).encode() + b"\n"
    assert decode_field("x.bin", b"x") == b"x"


def test_a_digest_is_taken_while_writing_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    hasher = hashlib.sha256()
    write_shard(tmp_path / "shard.tar", samples(), hasher)
    assert hasher.hexdigest() == digest_file(tmp_path / "shard.tar")

    def die() -> Iterator[Sample]:
        yield samples()[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_shard(tmp_path / "other.tar", die())
    assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]


def test_a_shard_is_whole_whatever_share_of_it_a_call_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Sample(key, {f"field_{i:03d}.bin": bytes([i % 256]) * i for i in range(400)}) for key in ("p1", "p2")]
    write_shard(tmp_path / "whole.tar", many)
    monkeypatch.setattr("os.writev", lambda file, pieces: os.write(file, b"".join(map(bytes, pieces))[:9999]))
    write_shard(tmp_path / "parts.tar", many)
    assert digest_file(tmp_path / "parts.tar") == digest_file(tmp_path / "whole.tar")
    assert [sample.fields for sample in read_shard(tmp_path / "whole.tar")] == [sample.fields for sample in many]


def test_fields_that_lie_apart_are_read_into_one_buffer(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = {"a.bin": 700, "b.bin": 3 * GAP, "c.bin": 100, "d.bin": 512, "e.bin": 0}
    fields = {name: generator.bytes(size) for name, size in sizes.items()}
    (_, entry) = write_shard(tmp_path / "shard.tar", [Sample("p1", fields), Sample("p2", fields)])
    wanted = ["d.bin", "a.bin", "e.bin", "c.bin"]
    assert bytes_to_read(entry, wanted) < GAP
    buffer = np.zeros(bytes_to_read(entry, wanted), np.uint8)
    content = read_into(tmp_path / "shard.tar", entry, wanted, buffer)
    assert {name: content[name].tobytes() for name in wanted} == {name: fields[name] for name in wanted}
    assert all(np.shares_memory(content[name], buffer) for name in ("a.bin", "c.bin", "d.bin"))
