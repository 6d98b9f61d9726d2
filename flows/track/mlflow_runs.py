"""MLflow: a run per flow run, a child run per stage, and fixed keys, so that runs compare.

Only the orchestrating process logs, never a worker (many writers on sqlite lose runs). Data stays in the
store: MLflow gets each partition's address and digest. Reports and pictures are copied, they are small.
"""

import json
import logging
import re
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.settings import Settings
from data_catalog.store.record import Record
from flows.track.addresses import shown
from flows.track.labels import Labels, given_labels
from flows.track.mlflow_database import artifacts_uri
from flows.track.mlflow_store import find_store
from tasks.progress import Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient

Told = TypeVar("Told")

log = logging.getLogger(__name__)

DIGEST_LENGTH = 36  # MLflow's limit for a dataset's digest, characters; its source has the whole one
BATCH = 100  # MLflow's limit for the parameters of one call
# Metrics whose values over partitions are added; of the others the mean is taken.
COUNTED = re.compile(r"(portraits|prompts|samples|camera)_.*|llm_tokens|pairs|held_out")
RESULT, COUNT, FINAL = "abstract/", "count/", "final/"  # results sort before every stage, the first of which is `adapt`
KIND, NOTE_CONTENT = "mlflow.experimentKind", "mlflow.note.content"
ABOUT = "Runs of the profile {profile}. Sort by a metric under `abstract/` to find the best settings."
NOTE = "stillroom.note"  # tag with the id of the run's note below the data root


def experiment_name(profile: str) -> str:
    return f"stillroom/{profile}"


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
    """The MLflow run of one flow run.

    A store that refuses the run is a UserError, before any work. A store that is lost later does not stop the work:
    from the first failure on nothing more is sent to it, and `finish` says what was not logged.
    """

    def __init__(
        self,
        root: Path,
        settings: Settings,
        flow: str,
        prefect_run_id: str | None = None,
        title: str | None = None,
        made_with: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the store; `begin` creates the run.

        title: words that tell the run from others.  made_with: sections of settings that stand in records of what
        the run takes as it is, instead of those of `settings`.
        """
        self.root, self.settings, self.flow, self.prefect_run_id = root, settings, flow, prefect_run_id
        self.labels = given_labels()
        self.title, self.made_with = self.labels.name or title or flow, dict(made_with or {})
        self.store = find_store(root, settings)
        self.uri, self.is_own = self.store.uri, self.store.is_own
        self.client = self.store.open_client()
        self.run_id = ""  # before `begin`
        self.silent = False  # after `adopt`
        self.lost: str | None = None  # MLflow's sentence
        self.missed: Counter[str] = Counter()
        self.files: list[str] = []  # of this run, not of its child runs

    def begin(self, note: str | None = None) -> str:
        """Create the run, tagged with the id of its note as an active run. Returns MLflow's id of it."""
        tags = {
            "stillroom.flow": self.flow,
            "stillroom.profile": self.settings.profile,
            "stillroom.world": self.settings.world,
            "git.commit": git_commit(),
        }
        if self.prefect_run_id:
            tags["stillroom.prefect.flow_run_id"] = self.prefect_run_id
        if note:
            tags[NOTE] = note
        if self.labels.note:
            tags[NOTE_CONTENT] = self.labels.note
        tags |= self.labels.tags
        document = self.settings.model_dump(mode="json") | self.made_with
        with self.store.refusals():
            self.experiment_id = self._experiment(experiment_name(self.settings.profile))
            self.run_id = self._create_run(self.title, tags)
            self._log_params(self.run_id, flatten(document))
            self.client.log_dict(self.run_id, document, "settings.json")
        return self.run_id

    def adopt(self, run_id: str) -> bool:
        """Take the run that made a product for this one, which makes nothing: nothing more is logged to it.

        Returns False where the store has no such run any more, or where the user wants a run with labels.
        """
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_run(run_id).info
        except MlflowException:
            return False
        if found.lifecycle_stage == "active" and self.labels == Labels():
            self.run_id, self.experiment_id, self.silent = run_id, found.experiment_id, True
        return self.silent

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # Without a location, the artifacts of an sqlite store would go to the current folder.
            artifacts = artifacts_uri(self.root) if self.uri.startswith("sqlite") else None
            about = {KIND: "custom_model_development", NOTE_CONTENT: ABOUT.format(profile=self.settings.profile)}
            return str(self.client.create_experiment(name, artifact_location=artifacts, tags=about))
        if found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise UserError(
                f"the experiment {name} was deleted in MLflow",
                mlflow=shown(self.uri),
                hint=f"MLFLOW_TRACKING_URI='{shown(self.uri)}' {restore}",
            )
        return str(found.experiment_id)

    def _create_run(self, name: str, tags: dict[str, str]) -> str:
        tags = {
            "mlflow.runName": name,
            "mlflow.source.name": f"stillroom {tags.get('stillroom.flow', name)}",
            **tags,
        }
        return str(self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id)

    def tell(self, what: str, call: Callable[[], Told]) -> Told | None:
        """Log something, unless the store is lost. `what` names the kind in the summary of what was not logged."""
        if self.silent:
            return None
        if self.lost is None:
            try:
                return call()
            except Exception as error:  # a store fails in the ways of every library below it
                self.lost = self.store.sentence(error)
                log.warning("MLflow is lost; the work goes on, and nothing more is logged there: %s", self.lost)
        self.missed[what] += 1
        return None

    def _log_params(self, run_id: str, values: dict[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, value[:6000]) for name, value in values.items()]
        for start in range(0, len(rows), BATCH):
            self.client.log_batch(run_id, params=rows[start : start + BATCH])

    def params(self, run_id: str, values: dict[str, str]) -> None:
        self.tell("parameters", lambda: self._log_params(run_id, values))

    def metrics(self, run_id: str, values: dict[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, value in values.items()]
        self.tell("metrics", lambda: self.client.log_batch(run_id, metrics=rows))

    def result(self, values: Mapping[str, Any]) -> None:
        """Log the numbers that runs are compared by; they come first among the metrics."""
        self.metrics(self.run_id, {f"{RESULT}{name}": value for name, value in numbers(values).items()})

    def tag(self, name: str, value: str) -> None:
        self.tell("tags", lambda: self.client.set_tag(self.run_id, f"stillroom.{name}", value))

    @contextmanager
    def stage(self, name: str) -> Iterator["StageLog"]:
        """Open a child run for one stage; it fails with the stage."""
        tags = {"stillroom.stage": name, "mlflow.parentRunId": self.run_id}
        run_id = self.tell("stages", lambda: self._create_run(name, tags)) or ""
        try:
            yield StageLog(self, name, run_id)
        except BaseException as error:
            self._end(run_id, ending(error))
            raise
        self._end(run_id, "FINISHED")

    def _end(self, run_id: str, status: str) -> None:
        self.tell("ends", lambda: self.client.set_terminated(run_id, status))

    def dataset(self, name: str, digest: str, folder: Path, samples: int) -> None:
        """Name the dataset in `folder` as an input of this run, also in the run's name if that is our own."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # Without links, as all addresses below the root are written: they follow it when it is moved.
        source = json.dumps({"uri": folder.resolve().as_uri(), "digest": f"sha256:{digest}"})
        profile = json.dumps({"num_rows": samples})
        entity = Dataset(name, digest[:DIGEST_LENGTH], "stillroom", source, profile=profile)
        given = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        self.tell("datasets", lambda: self.client.log_inputs(self.run_id, given))
        self.tag("dataset.digest", digest)
        if self.labels.name is None:
            title = f"{self.title} {digest[:8]}"
            self.tell("names", lambda: self.client.update_run(self.run_id, name=title))

    def table(self, rows: list[dict[str, Any]], name: str, first: str) -> None:
        """Log a table of the MLflow pages, from rows with equal keys; `first` is its first column."""
        names = sorted(rows[0] if rows else {}, key=lambda key: key != first)  # what was read from JSON is in ABC order
        columns = {key: [row.get(key) for row in rows] for key in names}
        self.tell("tables", lambda: self.client.log_table(self.run_id, columns, name))

    def document(self, value: dict[str, Any], name: str, run_id: str | None = None) -> None:
        """Log a JSON artifact, of this run or of a child run."""
        self.tell("documents", lambda: self.client.log_dict(run_id or self.run_id, value, name))

    def file(self, path: Path, folder: str | None = None, run_id: str | None = None) -> None:
        """Copy a file, for this run or a child run."""
        if run_id is None and self.lost is None:
            self.files.append(f"{folder}/{path.name}" if folder else path.name)
        self.tell("files", lambda: self.client.log_artifact(run_id or self.run_id, str(path), folder))

    def finish(self, status: str = "FINISHED") -> None:
        """End the run, and say what was not logged."""
        if self.run_id:
            self._end(self.run_id, status)
        if self.lost is not None:
            counts = ", ".join(f"{count} {what}" for what, count in self.missed.items())
            log.warning("%s", self.store.loss(self.lost, counts))


class StageLog:
    """Child run of a stage, and the ways to log to it."""

    def __init__(self, tracker: Tracker, stage: str, run_id: str) -> None:
        self.tracker, self.stage, self.run_id = tracker, stage, run_id
        self.curves: set[str] = set()

    def hear(self, progress: Progress) -> None:
        """Log curve points and pictures of a running stage."""
        if progress.metrics:
            self.curves |= progress.metrics.keys()
            self.tracker.metrics(self.run_id, progress.metrics, progress.step)
        for name, path in progress.pictures.items():
            self.tracker.file(path, f"pictures/{name}", self.run_id)

    def summary(
        self, measured: dict[str, float], counts: dict[str, float], records: Iterable[tuple[Record, str]]
    ) -> None:
        """Log what was measured of the stage, its counts, and each partition's address and digest.

        Metrics of the records are measured, or counts; rejections by reason are counts.
        """
        found = list(records)
        means, sums = summed_up([record for record, _ in found])
        measured, counts = means | measured, sums | counts
        own = {f"{FINAL if name in self.curves else ''}{name}": value for name, value in measured.items()}
        self.tracker.metrics(self.run_id, own | {f"{COUNT}{name}": value for name, value in counts.items()})
        above = {f"{self.stage}.{name}": value for name, value in measured.items()}
        above |= {f"{COUNT}{self.stage}.{name}": value for name, value in counts.items()}
        self.tracker.metrics(self.tracker.run_id, above)
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
        self.tracker.document({"partitions": partitions}, "partitions.json", self.run_id)


def ending(error: BaseException) -> str:
    """MLflow's status of a run that this error ended: KILLED by a signal or Ctrl-C, else FAILED."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def find_run(client: "MlflowClient", profile: str, note: str) -> str | None:
    """Return the run that was created with the id of this note; None where the process died before it."""
    experiment = client.get_experiment_by_name(experiment_name(profile))
    found = client.search_runs([experiment.experiment_id], f"tags.`{NOTE}` = '{note}'") if experiment else []
    return str(found[0].info.run_id) if found else None


def end_left_run(client: "MlflowClient", run_id: str, status: str = "KILLED") -> None:
    """Set the final status of a run whose process could not, and of its child runs."""
    parent = client.get_run(run_id)
    below = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}' and attributes.status = 'RUNNING'"
    )
    for run in [*below, parent]:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status)


def summed_up(records: list[Record]) -> tuple[dict[str, float], dict[str, float]]:
    """Return means of the records' metrics over their partitions, weighted by samples, and sums of their counts."""
    totals: dict[str, list[float]] = {}
    sums: dict[str, float] = defaultdict(float)
    for record in records:
        weight = max(record.samples, 1)
        for name, value in record.metrics.items():
            if COUNTED.fullmatch(name):
                sums[_metric_name(name)] += value
                continue
            total = totals.setdefault(_metric_name(name), [0.0, 0.0])
            total[0] += weight * value
            total[1] += weight
        for reason, count in record.rejected.items():
            sums[f"rejected.{_metric_name(reason)}"] += count
    return {name: total / weight for name, (total, weight) in totals.items()}, dict(sums)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return those of the values that are numbers, which a metric has to be."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _metric_name(text: str) -> str:
    """Replace characters that MLflow refuses in a metric's name: it takes letters, digits and `_ - . / space`."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in text)[:200]


def git_commit() -> str:
    """The commit of the code that runs, with `-dirty` where a tracked file differs; "unknown" outside a checkout."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
