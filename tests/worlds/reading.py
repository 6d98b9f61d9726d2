"""Shards read whole."""

from collections.abc import Iterator
from pathlib import Path

from data_catalog.samples.shards import Sample, read_sample, scan_shard


def read_shard(path: Path) -> Iterator[Sample]:
    """Yield all samples of a shard in their order."""
    for entry in scan_shard(path):
        yield Sample(entry.key, read_sample(path, entry))
