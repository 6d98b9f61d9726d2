"""Compare two datasets, as a document for the command line and as a page."""

from pathlib import Path
from typing import Any

from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.store import writing
from data_catalog.workspace import Workspace


def diff_datasets(a: str, b: str | None, page: Path | None, workspace: Workspace) -> dict[str, Any]:
    """Describe the differences from dataset A to B; also write them as a page on request."""
    from tasks.datasets.diff import describe_diff, find_dataset, pair_samples
    from tasks.datasets.made import snapshot_of

    before = find_dataset(workspace.root, a)
    after = find_dataset(workspace.root, b) if b else snapshot_of(workspace)
    samples = pair_samples(before, after)
    diff = describe_diff(before, after, samples)
    if page is not None:
        from tasks.reports.comparison import dataset_page

        content = dataset_page(before, after, samples, diff)
        with writing(page.parent):
            write_atomically(page, content)
    return diff | {"page": str(page) if page else None}
