"""Time that a step of the paper's size waits for its samples, at the disk's own speed.

    .venv/bin/python -m benchmarks.waiting [--folder FOLDER] [--samples 96] [--repeats 3] [--out FILE.json]

The samples are those of benchmarks.shards, 7 of 9 MB read of each (one view of eight), through the loader of
`stillroom distill`, from shards that are not in the page cache. The step is simulated: it sleeps, as a process does
whose GPU works. As long as the disk needs: the time in which a direct read brings as many bytes; then longer.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from benchmarks.shards import VIEWS, forget, make_samples, read_directly, sample_of
from data_catalog.samples.shards import bytes_to_read, scan_shard, write_shard
from tasks.training.data import SampleRef
from tasks.training.loader import Loader, Wanted

SHARDS = 3
BATCH = 8
LEAST_SAMPLES = 6 * BATCH  # the first three steps are not timed
AHEAD = 2  # steps, as in a training
LENGTHS = (1.0, 1.5, 2.0, 4.0)  # of a step, in times of what the disk needs for its samples
MOST_WAITING = 0.03  # of a step
WANTED = Wanted(pseudo_label=False, triplane=True, views=True)


def share_waited(samples: list[SampleRef], step_s: float, ahead: int) -> float:
    """Share of an epoch's time, its first steps aside, in which simulated steps wait for their samples."""
    order = np.random.default_rng(0).permutation(len(samples))
    batches = [[samples[i] for i in order[at : at + BATCH]] for at in range(0, len(order) - BATCH + 1, BATCH)]
    drawn = [[(number % VIEWS,) for number in range(BATCH)]] * len(batches)
    loader = Loader(WANTED, 0)
    waited, steps, asked = 0.0, 0, 0
    for number, batch in enumerate(batches):
        while ahead and asked < min(number + ahead + 1, len(batches)):
            loader.read_ahead(batches[asked], drawn[asked])
            asked += 1
        started = time.perf_counter()
        loader.take(batch, drawn[number])
        if number > AHEAD:  # the first steps have nothing read ahead
            waited, steps = waited + time.perf_counter() - started, steps + 1
        time.sleep(step_s)
    loader.close()
    return waited / (waited + steps * step_s)


def run(folder: Path, count: int, repeats: int) -> tuple[list[Row], dict[str, Any]]:
    """All rows, and what is behind them; `count` samples in all."""
    shards = [folder / f"shard-{number}.tar" for number in range(SHARDS)]
    for number, shard in enumerate(shards):
        write_shard(shard, make_samples(count // SHARDS, number))
    samples = [sample_of(shard, entry) for shard in shards for entry in scan_shard(shard)]
    batch_bytes = BATCH * bytes_to_read(samples[0].entry, WANTED.names(samples[0], (0,)))
    rates: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in [*map(name_of, LENGTHS), "needed"]}
    for _ in range(repeats):
        forget(shards)
        started = time.perf_counter()
        read_directly(shards)
        rates.append(sum(shard.stat().st_size for shard in shards) / (time.perf_counter() - started))
        for length in LENGTHS:
            forget(shards)
            shares[name_of(length)].append(share_waited(samples, length * batch_bytes / rates[-1], AHEAD))
        forget(shards)
        shares["needed"].append(share_waited(samples, batch_bytes / rates[-1], 0))
    found = {name: median(values) for name, values in shares.items()}
    rows = [
        Row(f"waiting for data, a step as long as {name_of(length)}", "%", 100 * found[name_of(length)],
            "read when needed" if length == 1 else "", 100 * found["needed"] if length == 1 else None, limit=0.0,
            target=f"at most {100 * MOST_WAITING:g} %", reached=found[name_of(length)] <= MOST_WAITING)
        for length in LENGTHS
    ]  # fmt: skip
    facts = {"batch": BATCH, "mb_a_step": batch_bytes / 1e6, "direct_mb_a_second": median(rates) / 1e6}
    return rows, facts | {"share_waited": found, "repeats": repeats}


def name_of(length: float) -> str:
    return "the disk needs for its samples" if length == 1 else f"{length:g} times that"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one by default")
    parser.add_argument("--samples", type=int, default=96, help="in three shards")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "waiting.json")
    options = parser.parse_args()
    if options.samples < LEAST_SAMPLES:
        parser.error(f"--samples {options.samples}: at least {LEAST_SAMPLES}, or no step is left to be timed")
    with tempfile.TemporaryDirectory(prefix="waiting-", dir=options.folder) as folder:
        rows, document = run(Path(folder), options.samples, options.repeats)
    show_rows(rows, "waiting for samples of the paper's size")
    write_results(options.out, document, rows)


if __name__ == "__main__":
    main()
