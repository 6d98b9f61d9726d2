"""MLflow: a run per flow run, a child run per stage, and fixed keys, so that runs compare.

Only the orchestrating process logs, never a worker (many writers on sqlite lose runs). Data stays in the
store: MLflow gets each partition's address and digest. Reports and pictures are copied, they are small.
"""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_catalog.config.places import PROJECT
from data_catalog.config.settings import Settings
from data_catalog.store.record import Record
from flows.track.mlflow_database import artifacts_uri, database_path, database_uri, open_database
from tasks.progress import Progress

log = logging.getLogger(__name__)

DIGEST_LENGTH = 36  # MLflow's limit for a dataset's digest, characters; its source has the whole one
BATCH = 100  # MLflow's limit for the parameters of one call


def tracking_uri(root: Path, settings: Settings | None = None) -> str:
    """Return the profile's MLflow, else MLFLOW_TRACKING_URI, else sqlite below the data root.

    Makes a fresh database, which takes ten seconds.
    """
    given = (settings.run.mlflow_uri if settings else None) or os.environ.get("MLFLOW_TRACKING_URI")
    return given or open_database(root)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"edit": {"steps": 20}}` as `{"edit.steps": "20"}`."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


class Tracker:
    """The MLflow run of one flow run."""

    def __init__(self, root: Path, settings: Settings, flow: str, prefect_run_id: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self.uri = tracking_uri(root, settings)
        self.is_own = self.uri == database_uri(database_path(root))
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment_id = self._experiment(root, f"stillroom/{settings.profile}")
        tags = {
            "stillroom.flow": flow,
            "stillroom.profile": settings.profile,
            "stillroom.world": settings.world,
        }
        tags |= {"git.commit": git_commit()}
        if prefect_run_id:
            tags["stillroom.prefect.flow_run_id"] = prefect_run_id
        self.run_id: str = self._start(flow, tags)
        document = settings.model_dump(mode="json")
        self.params(self.run_id, flatten(document))
        self.client.log_dict(self.run_id, document, "settings.json")

    def _experiment(self, root: Path, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Without a location, the artifacts of an sqlite store would go to the current folder.
        artifacts = artifacts_uri(root) if self.uri.startswith("sqlite") else None
        return str(self.client.create_experiment(name, artifact_location=artifacts))

    def _start(self, name: str, tags: dict[str, str], parent: str | None = None) -> str:
        tags = {
            "mlflow.runName": name,
            "mlflow.source.name": f"stillroom {tags.get('stillroom.flow', name)}",
            **tags,
        }
        if parent:
            tags["mlflow.parentRunId"] = parent
        return str(self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id)

    def params(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, value[:6000]) for name, value in values.items()]
        for start in range(0, len(rows), BATCH):
            self.client.log_batch(run_id, params=rows[start : start + BATCH])

    def metrics(self, run_id: str, values: dict[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, value in values.items()]
        self.client.log_batch(run_id, metrics=rows)

    def tag(self, name: str, value: str) -> None:
        self.client.set_tag(self.run_id, f"stillroom.{name}", value)

    @contextmanager
    def stage(self, name: str) -> Iterator["StageLog"]:
        """Open a child run for one stage; it fails with the stage."""
        run_id = self._start(name, {"stillroom.stage": name}, parent=self.run_id)
        try:
            yield StageLog(self, name, run_id)
        except BaseException as error:
            self.client.set_terminated(run_id, ending(error))
            raise
        self.client.set_terminated(run_id, "FINISHED")

    def dataset(self, name: str, digest: str, folder: Path, samples: int) -> None:
        """Name the dataset in `folder` as an input of this run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # Without links, as all addresses below the root are written: they follow it when it is moved.
        source = json.dumps({"uri": folder.resolve().as_uri(), "digest": f"sha256:{digest}"})
        profile = json.dumps({"num_rows": samples})
        entity = Dataset(name, digest[:DIGEST_LENGTH], "stillroom", source, profile=profile)
        self.client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
        self.tag("dataset.digest", digest)

    def table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log a table of the MLflow pages, from rows with equal keys."""
        columns = {key: [row.get(key) for row in rows] for key in (rows[0] if rows else {})}
        self.client.log_table(self.run_id, columns, name)

    def document(self, value: dict[str, Any], name: str) -> None:
        """Log a JSON artifact."""
        self.client.log_dict(self.run_id, value, name)

    def file(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)

    def finish(self, status: str = "FINISHED") -> None:
        self.client.set_terminated(self.run_id, status)


class StageLog:
    """Child run of a stage, and the ways to log to it."""

    def __init__(self, tracker: Tracker, stage: str, run_id: str) -> None:
        self.tracker, self.stage, self.run_id = tracker, stage, run_id

    def hear(self, progress: Progress) -> None:
        """Log curve points and pictures of a running stage."""
        if progress.metrics:
            self.tracker.metrics(self.run_id, progress.metrics, progress.step)
        for name, path in progress.pictures.items():
            self.tracker.client.log_artifact(self.run_id, str(path), f"pictures/{name}")

    def summary(self, counts: dict[str, float], records: Iterable[tuple[Record, str]]) -> None:
        """Log counts, rejections by reason, means of the stage's metrics, and each partition's address and digest."""
        found = list(records)
        values = dict(counts) | mean_metrics([record for record, _ in found])
        for record, _ in found:
            for reason, count in record.rejected.items():
                name = f"rejected.{_metric_name(reason)}"
                values[name] = values.get(name, 0) + count
        self.tracker.metrics(self.run_id, values)
        self.tracker.metrics(self.tracker.run_id, {f"{self.stage}.{name}": value for name, value in values.items()})
        partitions = [
            {
                "partition": r.partition,
                "uri": uri,
                "digest": r.digest,
                "fingerprint": r.fingerprint,
                "bytes": r.bytes,
            }
            for r, uri in found
        ]
        self.tracker.client.log_dict(self.run_id, {"partitions": partitions}, "partitions.json")


def ending(error: BaseException) -> str:
    """MLflow's status of a run that this error ended: KILLED by a signal or Ctrl-C, else FAILED."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def end_left_run(uri: str, run_id: str) -> None:
    """Set a run of a dead process, and its child runs, to KILLED."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    parent = client.get_run(run_id)
    below = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}' and attributes.status = 'RUNNING'"
    )
    for run in [*below, parent]:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")


def mean_metrics(records: list[Record]) -> dict[str, float]:
    """Each metric's mean over the partitions that have it, weighted by their samples."""
    sums: dict[str, list[float]] = {}
    for record in records:
        weight = max(record.samples, 1)
        for name, value in record.metrics.items():
            total = sums.setdefault(_metric_name(name), [0.0, 0.0])
            total[0] += weight * value
            total[1] += weight
    return {name: total / weight for name, (total, weight) in sums.items()}


def _metric_name(text: str) -> str:
    """Replace characters that MLflow refuses in a metric's name: it takes letters, digits and `_ - . / space`."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in text)[:200]


def git_commit() -> str:
    """The commit of the code that runs, or "unknown" outside a checkout."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
