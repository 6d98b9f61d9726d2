"""Bytes that a training step of the paper's size holds, counted on shapes alone: no GPU and no such memory is needed.

    .venv/bin/python -m benchmarks.footprint [--samples 4 32] [--out FILE.json]

The alternative holds what super-resolution and LPIPS computed, instead of computing it again in the backward pass.
"""

import argparse
from pathlib import Path

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from data_catalog.config.profiles import load_settings
from models.three_d import recompute
from models.three_d.student import PAPER
from tasks.training.footprint import count_step

MOST_GB = {4: 20.0, 32: 40.0}  # to be reached: four samples a process, and the whole batch on one GPU


def rows_of(samples: int) -> list[Row]:
    """Gigabytes between the passes, and at the most."""
    settings, parts = load_settings("paper").distill, recompute.PIXELS_AT_ONCE
    ours = count_step(PAPER, settings, samples)
    recompute.PIXELS_AT_ONCE = 2**60
    theirs = count_step(PAPER, settings, samples)
    recompute.PIXELS_AT_ONCE = parts
    most = MOST_GB.get(samples)
    rows = []
    for name, own, other in (("held for backward", ours.held, theirs.held), ("at the most", ours.peak, theirs.peak)):
        target, reached = (f"at most {most:g} GB", own / 1e9 <= most) if most else ("", None)
        what = f"a step on {samples} samples of the paper's size, {name}"
        rows.append(Row(what, "GB", own / 1e9, "nothing again", other / 1e9, other / own, None, target, reached))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--out", type=Path, default=RESULTS / "footprint.json")
    options = parser.parse_args()
    rows = [row for samples in options.samples for row in rows_of(samples)]
    show_rows(rows)
    write_results(options.out, {"counted_in": "float32"}, rows)


if __name__ == "__main__":
    main()
