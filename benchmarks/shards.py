"""Shards at the paper's size, side by side in one run: writing, reading warm and cold, and samples for training steps.

    .venv/bin/python -m benchmarks.shards [--folder FOLDER] [--samples 14] [--repeats 3] [--out FILE.json]

Against a plain write and `cat` of the same bytes, against direct reads past the page cache, and against webdataset as
its documentation uses it. A sample has a 96x256x256 triplane as uint8, two PNG and eight JPEG pictures of 512x512 and
depths of 128x128: 9 MB. Reads are compared without decoding, on two threads, in the order of a shuffled epoch; the
samples of training steps with it. What is written is deleted at the end.
"""

import argparse
import hashlib
import mmap
import os
import resource
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import webdataset
from scipy.ndimage import zoom

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from data_catalog.samples.encoding import encode_array, encode_jpeg, encode_json, encode_png, quantise_triplane
from data_catalog.samples.keys import sample_key
from data_catalog.samples.shards import Sample, ShardEntry, bytes_to_read, read_into, scan_shard, write_shard
from data_catalog.store.fingerprint import digest_file, sync_folder
from tasks.training.data import SampleRef
from tasks.training.loader import Buffers, Loader, Wanted

SHARDS, VIEWS, THREADS = 2, 8, 2
BATCH, AHEAD = 4, 2
CHUNK = 1 << 22  # bytes of a direct read


class Cost(NamedTuple):
    """Seconds of a run, and of the processors' time in it."""

    wall_s: float
    cpu_s: float


def make_samples(count: int, shard: int) -> list[Sample]:
    """Samples with the fields and sizes of the paper's profile."""
    generator = np.random.default_rng(shard)
    pictures = [make_picture(generator) for _ in range(4)]
    png, jpg = [encode_png(picture) for picture in pictures], [encode_jpeg(picture) for picture in pictures]
    triplane = generator.normal(size=(96, 256, 256)).astype(np.float32)
    _, tiles = quantise_triplane(triplane)
    depths = generator.uniform(2.0, 4.0, (VIEWS + 1, 128, 128)).astype(np.float32)
    samples = []
    for number in range(count):
        key = sample_key(f"p{number:010x}", f"style-{shard}", 0)
        codes = generator.integers(0, 256, (96, 256, 256), dtype=np.uint8)
        fields = {
            "camera.npy": encode_array(np.zeros(25, np.float32)),
            "depths.npy": encode_array(depths),
            "meta.json": encode_json({"key": key}),
            "portrait.png": png[number % 4],
            "pseudo_label.png": png[(number + 1) % 4],
            "triplane_q8.npy": encode_array(codes),
            "triplane_q8_tiles.npy": encode_array(tiles),
            "view_cameras.npy": encode_array(np.zeros((VIEWS, 25), np.float32)),
        }
        fields |= {f"view_{i:02d}.jpg": jpg[(number + i) % 4] for i in range(VIEWS)}
        samples.append(Sample(key, fields))
    return samples


def make_picture(generator: np.random.Generator) -> np.ndarray:
    """(512, 512, 3) uint8: smooth colours with a little noise, about as hard to compress as a photograph."""
    smooth = zoom(generator.uniform(30, 220, (16, 16, 3)), (32, 32, 1), order=1)
    picture: np.ndarray = np.clip(smooth + generator.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    return picture


def measure(runs: dict[str, Callable[[], object]], repeats: int, before: Callable[[], None] | None = None) -> Any:
    """Median cost of each run by name; they take turns, so that a busy moment meets them all."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if before is not None:
                before()
            wall, cpu = time.perf_counter(), cpu_seconds()
            run()
            costs[name].append(Cost(time.perf_counter() - wall, cpu_seconds() - cpu))
    return {
        name: Cost(*(statistics.median(part) for part in zip(*found, strict=True))) for name, found in costs.items()
    }


def cpu_seconds() -> float:
    """Return the CPU seconds of this process with its threads, and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def writers(samples: list[Sample], folder: Path) -> dict[str, Callable[[], object]]:
    """Ways to put the same samples on the disk, each synced."""
    target = folder / "written.tar"
    blobs = [b"".join(sample.fields.values()) for sample in samples]

    def plain() -> None:
        with target.open("wb", buffering=0) as stream:
            for blob in blobs:
                stream.write(blob)
            os.fsync(stream.fileno())
        sync_folder(folder)

    def ours(hasher: Any = None) -> None:
        write_shard(target, samples, hasher)

    def stock() -> None:
        with webdataset.ShardWriter(f"{folder}/stock-%d.tar", maxcount=10**9, maxsize=10**12, verbose=0) as sink:
            for sample in samples:
                sink.write({"__key__": sample.key, **sample.fields})
        with (folder / "stock-0.tar").open("rb") as stream:
            os.fsync(stream.fileno())

    def plain_then_hash() -> None:
        plain()
        digest_file(target)

    def hash_alone() -> None:
        hasher = hashlib.sha256()
        for blob in blobs:
            hasher.update(blob)

    return {
        "plain write": plain,
        "plain write, then hashed": plain_then_hash,
        "sha256 alone": hash_alone,
        "ours": ours,
        "ours, with digest": lambda: ours(hashlib.sha256()),
        "webdataset": stock,
    }


def readers(shards: list[Path], entries: dict[Path, list[ShardEntry]]) -> dict[str, Callable[[], object]]:
    """Ways to have every byte of every sample in memory, nothing decoded."""
    buffers = Buffers(pinned=False)
    every = [(shard, entry) for shard in shards for entry in entries[shard]]
    order = np.random.default_rng(0).permutation(len(every))

    def read(place: int) -> None:
        shard, entry = every[place]
        buffer = buffers.take(bytes_to_read(entry, entry.fields))
        read_into(shard, entry, entry.fields, buffer)
        buffers.give_back([buffer])

    def ours() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(read, order))

    def stock() -> None:
        for _ in webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False):
            pass

    def cat() -> None:
        subprocess.run(["cat", *map(str, shards)], stdout=subprocess.DEVNULL, check=True)

    return {"cat": cat, "ours": ours, "webdataset": stock}


def read_directly(shards: Sequence[Path]) -> None:
    """Past the page cache, in large pieces, one after the other."""
    buffer = mmap.mmap(-1, CHUNK)
    for shard in shards:
        descriptor = os.open(shard, os.O_RDONLY | os.O_DIRECT)
        at = 0
        while count := os.preadv(descriptor, [buffer], at):
            at += count
        os.close(descriptor)


def forget(shards: Sequence[Path]) -> None:
    """Take the shards out of the page cache."""
    for shard in shards:
        descriptor = os.open(shard, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def steps(shards: list[Path], entries: dict[Path, list[ShardEntry]]) -> dict[str, Callable[[], object]]:
    """Ways to an epoch's samples as arrays: portrait, triplane, depths and one view."""
    samples = [sample_of(shard, entry) for shard in shards for entry in entries[shard]]
    order = np.random.default_rng(0).permutation(len(samples))

    def ours() -> None:
        loader = Loader(Wanted(pseudo_label=False, triplane=True, views=True), 0, threads=THREADS)
        batches = [[samples[i] for i in order[at : at + BATCH]] for at in range(0, len(order), BATCH)]
        drawn = [[(number % VIEWS,) for number in range(len(batch))] for batch in batches]
        for number in range(-AHEAD, len(batches)):
            if number + AHEAD < len(batches):
                loader.read_ahead(batches[number + AHEAD], drawn[number + AHEAD])
            if number >= 0:
                loader.take(batches[number], drawn[number])
        loader.close()

    def stock() -> None:
        for _ in webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False).decode("rgb8"):
            pass

    return {"ours": ours, "webdataset": stock}


def sample_of(shard: Path, entry: ShardEntry) -> SampleRef:
    """A sample of which only its place counts."""
    return SampleRef(
        key=entry.key,
        style="",
        prompt="",
        prompt_number=0,
        prompt_split="train",
        portrait_id="",
        split="train",
        seed=0,
        camera=np.zeros(25, np.float32),
        shard=shard,
        entry=entry,
    )


def compare(
    what: str, costs: dict[str, Cost], limit: str, target: float, megabytes: float, other: str = "webdataset"
) -> Row:
    """Ours against another way and the limit, in MB/s; to reach is a share of the limit."""
    ours, share = costs["ours"], costs[limit].wall_s / costs["ours"].wall_s
    return Row(
        what=what,
        unit="MB/s",
        ours=megabytes / ours.wall_s,
        alternative=other,
        theirs=megabytes / costs[other].wall_s,
        ratio=costs[other].wall_s / ours.wall_s,
        limit=megabytes / costs[limit].wall_s,
        target=f"{target} of {limit}: {share:.2f}",
        reached=share >= target,
    )


def compare_cpu(what: str, costs: dict[str, Cost], target: float | None, megabytes: float) -> Row:
    """MB per second of the processors' time."""
    ratio = costs["webdataset"].cpu_s / costs["ours"].cpu_s
    return Row(
        what=what,
        unit="MB/CPU s",
        ours=megabytes / costs["ours"].cpu_s,
        alternative="webdataset",
        theirs=megabytes / costs["webdataset"].cpu_s,
        ratio=ratio,
        target=f"{target} times" if target else "",
        reached=ratio >= target if target else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one by default")
    parser.add_argument("--samples", type=int, default=14, help="of each of two shards")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "shards.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves files open
    with tempfile.TemporaryDirectory(prefix="shards-", dir=options.folder) as folder:
        rows, document = run(Path(folder), options.samples, options.repeats)
    show_rows(rows, "shards at the paper's size")
    write_results(options.out, document, rows)


def run(folder: Path, count: int, repeats: int) -> tuple[list[Row], dict[str, Any]]:
    """All rows, and all costs behind them."""
    first = make_samples(count, 0)
    writing = measure(writers(first, folder), repeats)
    written = (folder / "written.tar").stat().st_size / 1e6
    shards = [folder / f"shard-{number}.tar" for number in range(SHARDS)]
    for number, shard in enumerate(shards):
        write_shard(shard, make_samples(count, number))
    entries = {shard: scan_shard(shard) for shard in shards}
    size = sum(shard.stat().st_size for shard in shards) / 1e6
    reading = readers(shards, entries)
    read_warm = measure(reading, repeats)
    cold = {"direct read": lambda: read_directly(shards), "ours": reading["ours"], "webdataset": reading["webdataset"]}
    read_cold = measure(cold, repeats, lambda: forget(shards))
    stepping = measure(steps(shards, entries), repeats)
    with_digest = {**writing, "ours": writing["ours, with digest"]}
    rows = [
        compare("write a shard", writing, "plain write", 0.8, written),
        compare("write and hash a shard", with_digest, "plain write", 0.8, written, "plain write, then hashed"),
        Row("sha256 of as many bytes, nothing written", "MB/s", written / writing["sha256 alone"].wall_s, "plain write",
            written / writing["plain write"].wall_s, writing["plain write"].wall_s / writing["sha256 alone"].wall_s),
        compare("read, warm, undecoded", read_warm, "cat", 0.6, size),
        compare_cpu("read, warm, undecoded", read_warm, 3.0, size),
        compare("read, cold, undecoded", read_cold, "direct read", 0.7, size),
        compare_cpu("samples of training steps, one view decoded (webdataset: all)", stepping, None, size),
    ]  # fmt: skip
    costs = {"write": writing, "read warm": read_warm, "read cold": read_cold, "training steps": stepping}
    told = {name: {way: cost._asdict() for way, cost in found.items()} for name, found in costs.items()}
    return rows, {"megabytes": round(size), "samples": SHARDS * count, "repeats": repeats, "median_costs": told}


if __name__ == "__main__":
    main()
