"""The project's own stages with nothing left to compute: every partition is one small file, at once.

Declarations (needs, settings, sources, weights, code) are those of the real stages, so that plan, store, catalog,
workers, Prefect and MLflow do all they do for real work. What remains is what the machinery itself costs.
"""

from dataclasses import replace

from data_catalog.products.snapshot import write_snapshot_files
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.stage import Stage, Summary, Work
from tasks import align, distill, edit, evaluate, portraits, prompts, score, select, teach
from tasks import dataset as real_dataset
from tasks.tables.samples import LOST, SAMPLE_ROWS

SAMPLES = 4  # that each partition claims to hold


def instant(work: Work) -> Summary:
    """Say which inputs the partition was made from."""
    made_from = {given.partition.key: given.digest for group in work.inputs.values() for given in group}
    text = digest_json([work.partition.key, sorted(made_from.items())])
    (work.folder / "made.txt").write_text(text + "\n")
    return Summary(samples=SAMPLES)


def instant_select(work: Work) -> Summary:
    """Make the selection like `instant`, with the entries that a style's blocks and the snapshot need."""
    (work.folder / "funnel.json").write_bytes(encode_json({"funnel": select.count_funnel([])}))
    blocks = {f"{given.partition.block:04d}": given.digest for given in work.inputs["score"]}
    summary = instant(work)
    summary.parts = blocks
    return summary


def instant_dataset(work: Work) -> Summary:
    """A snapshot without samples; its manifest names every partition, as the real one does."""
    write_snapshot_files(work.folder, SAMPLE_ROWS.of([]), real_dataset.make_manifest([], work))
    LOST.write(work.folder, [])
    return Summary()


def _make_instant(stage: Stage) -> Stage:
    work = {"select": instant_select, "dataset": instant_dataset}.get(stage.name, instant)
    return replace(stage, run=work)


REAL = (portraits, align, prompts, edit, score, select, teach, real_dataset, distill, evaluate)
STAGES: tuple[Stage, ...] = tuple(_make_instant(module.STAGE) for module in REAL)
