"""Rows of a stage's table that were rejected."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq


def find_example(folder: Path) -> str | None:
    """Return name and reason of the first rejected row in a partition's tables; None where there is none."""
    for path in sorted(folder.glob("*.parquet")):
        table = pq.ParquetFile(path, memory_map=False).read()
        label = next((name for name in ("name", "key") if name in table.column_names), None)
        if label is None or not {"status", "reason"} <= {*table.column_names}:
            continue
        for name, status, reason in zip(table[label], table["status"], table["reason"], strict=True):
            if status.as_py() != "ok":
                return f"{name.as_py()}: {reason.as_py()}"
    return None
