"""Compare two MLflow runs: settings, datasets, metrics side by side, and what their students draw."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.products.snapshot import Snapshot
from data_catalog.workspace import Workspace
from flows.ask.dataset_comparison import write_page
from flows.track.mlflow_runs import tracking_uri

FLOW, STAGE = "stillroom.flow", "stillroom.stage"  # tags of a flow's run and of its stages' child runs
DATASET, STUDENT = "stillroom.dataset.digest", "stillroom.student.digest"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
RUNS_SHOWN = 10  # in a message

Document = dict[str, Any]


class Runs:
    """The flow runs of a tracking store, the newest first."""

    def __init__(self, root: Path, settings: Settings) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        given = settings.run.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not given and not (root / "mlflow" / "mlflow.db").is_file():
            raise UserError("there is no run yet", root=root, hint="stillroom build")
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=tracking_uri(root, settings))
        found = self.client.search_experiments(filter_string="name LIKE 'stillroom/%'")
        self.experiments = {each.experiment_id: each.name for each in found}
        self.all = self.search(f"tags.`{FLOW}` LIKE '%'")

    def search(self, condition: str) -> list[Any]:
        """All runs that meet a condition, the newest first."""
        found: list[Any] = []
        token = None
        while self.experiments:
            ids, order = list(self.experiments), ["attributes.start_time DESC"]
            page = self.client.search_runs(ids, condition, max_results=1000, order_by=order, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        return found

    def find(self, name: str, profile: str) -> Any:
        """A run by id or its beginning, by name, or the `latest` of a profile that finished."""
        if name == "latest":
            mine = [run for run in self.all if self.experiments[run.info.experiment_id] == f"stillroom/{profile}"]
            finished = [run for run in mine if run.info.status == "FINISHED"]
            if not finished:
                raise UserError(f"no run of the profile {profile} has finished", hint="stillroom build")
            return finished[0]
        found = [run for run in self.all if run.info.run_name == name]
        found = found or [run for run in self.all if name and run.info.run_id.startswith(name)]
        if len(found) == 1:
            return found[0]
        word = f"{len(found)} runs are named or start with" if found else "no run is named or starts with"
        listed = {run.info.run_id[:8]: _tell(run) for run in (found or self.all)[:RUNS_SHOWN]}
        raise UserError(f"{word} '{name}'", **listed, hint="name one by the beginning of its id")

    def children(self, run: Any, stage: str) -> list[Any]:
        """A run's child runs for a stage."""
        return self.search(f"tags.`mlflow.parentRunId` = '{run.info.run_id}' AND tags.`{STAGE}` = '{stage}'")

    def evaluation(self, run: Any) -> Any | None:
        """The run that evaluated this run's student: itself, or the newest other one."""
        if run.data.tags[FLOW] == "evaluate":
            return run
        student = run.data.tags.get(STUDENT)
        if student is None:
            return None
        known = [each for each in self.all if each.data.tags[FLOW] == "evaluate" and each.info.status == "FINISHED"]
        return next((each for each in known if each.data.tags.get(STUDENT) == student), None)

    def evaluation_folder(self, run: Any) -> Path | None:
        """Where the store holds the evaluation of this run; None if it is gone."""
        for child in self.children(run, "evaluate"):
            paths = {artifact.path for artifact in self.client.list_artifacts(child.info.run_id)}
            if "partitions.json" in paths:
                text = Path(self.client.download_artifacts(child.info.run_id, "partitions.json")).read_text()
                for partition in json.loads(text)["partitions"]:
                    folder = Path(unquote(urlparse(partition["uri"]).path))
                    if (folder / "table.json").is_file():
                        return folder
        return None

    def pictures(self, run: Any) -> dict[str, Path]:
        """The still pictures that a run logged, by name."""
        found = [artifact.path for artifact in self.client.list_artifacts(run.info.run_id, "pictures")]
        stills = [path for path in found if path.endswith(".png")]
        return {Path(path).name: Path(self.client.download_artifacts(run.info.run_id, path)) for path in stills}


@dataclass(frozen=True)
class Side:
    """One of the two runs. `evaluation` is the run that evaluated its student."""

    run: Any
    evaluation: Any | None
    dataset: Snapshot | None

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the run, and of its student's evaluation."""
        values: dict[str, float] = dict(self.run.data.metrics)
        if self.evaluation is not None:
            values |= {name: v for name, v in self.evaluation.data.metrics.items() if name.startswith("evaluate.")}
        return values


def compare_runs(a: str, b: str, page: Path | None, workspace: Workspace) -> Document:
    """What differs from run A to run B; also written as a page where one is asked for."""
    runs = Runs(workspace.root, workspace.settings)
    sides = [_side(runs, runs.find(name, workspace.profile), workspace.root) for name in (a, b)]
    old, new = sides
    document: Document = {
        "a": describe_run(runs, old),
        "b": describe_run(runs, new),
        "settings": compare_params(old.run.data.params, new.run.data.params),
        "metrics": compare_metrics(old.metrics, new.metrics),
        "dataset": None,
    }
    samples = None
    if old.dataset is not None and new.dataset is not None:
        from tasks.datasets.diff import describe_diff, pair_samples

        samples = pair_samples(old.dataset, new.dataset)
        document["dataset"] = describe_diff(old.dataset, new.dataset, samples)
    if page is not None:
        from tasks.reports.comparison import run_page, show_samples

        pictures = []
        if samples is not None and old.dataset is not None and new.dataset is not None:
            pictures = show_samples(old.dataset, new.dataset, samples, document["dataset"])
        write_page(page, run_page(document, pictures, *student_pictures(runs, old, new)))
    return document | {"page": str(page) if page else None}


def student_pictures(runs: Runs, a: Side, b: Side) -> tuple[list[Document], list[Document]]:
    """What the students draw, sample by sample from their evaluations; else the pictures that both runs logged."""
    from tasks.reports.students import compare_evaluations, pair_files

    folders = [runs.evaluation_folder(side.evaluation) if side.evaluation else None for side in (a, b)]
    if folders[0] is not None and folders[1] is not None:
        return compare_evaluations(folders[0], folders[1]), []
    return [], pair_files(runs.pictures(a.run), runs.pictures(b.run))


def _side(runs: Runs, run: Any, root: Path) -> Side:
    return Side(run, runs.evaluation(run), _dataset(run, root))


def _dataset(run: Any, root: Path) -> Snapshot | None:
    """The dataset that a run made or used, where it was or on this data root; None if it is gone."""
    from tasks.datasets.diff import find_dataset

    digest = run.data.tags.get(DATASET)
    if digest is None:
        return None
    sources = [json.loads(each.dataset.source).get("uri", "") for each in run.inputs.dataset_inputs]
    places = [root / "datasets" / digest[:16], *(Path(unquote(urlparse(uri).path)) for uri in sources)]
    for place in places:
        if (place / "samples.parquet").is_file():
            return find_dataset(root, str(place))
    return None


def describe_run(runs: Runs, side: Side) -> Document:
    """What names a run."""
    info, tags = side.run.info, side.run.data.tags
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time else None
    return {
        "run_id": info.run_id,
        "name": info.run_name,
        "experiment": runs.experiments[info.experiment_id],
        "status": info.status,
        "started": _started(side.run),
        "seconds": seconds,
        "commit": tags.get("git.commit"),
        "dataset": tags.get(DATASET),
        "student": tags.get(STUDENT),
        "evaluated_by": side.evaluation.info.run_id if side.evaluation is not None else None,
    }


def compare_params(then: dict[str, str], now: dict[str, str]) -> list[Document]:
    """Settings that differ, by name; None where a run had no such setting."""
    # A registered model logs parameters of its own: they are no settings.
    names = sorted(n for n in then.keys() | now.keys() if "." in n or n in Settings.model_fields)
    return [{"setting": n, "a": then.get(n), "b": now.get(n)} for n in names if then.get(n) != now.get(n)]


def compare_metrics(then: dict[str, float], now: dict[str, float]) -> list[Document]:
    """Every metric of either run; `better` names the better side where the metric has a good direction.

    First the evaluation, then training, then the dataset's stages in their order; last, how the runs went.
    """
    from tasks.reports.evaluation import MEASURES
    from tasks.stages import STAGES

    stages = [stage.name for stage in STAGES]
    order = {name: place for place, name in enumerate(dict.fromkeys(["evaluate", "distill", *stages]))}

    directions = {measure.name: measure.better for measure in MEASURES} | {"speedup": 1, "speedup_as_edited": 1}
    rows = []
    place = {name: (is_bookkeeping(name), order.get(name.partition(".")[0], 99), name) for name in then.keys() | now}
    for name in sorted(place, key=place.__getitem__):
        a, b = then.get(name), now.get(name)
        change = None if a is None or b is None else b - a
        gain = (change or 0.0) * (directions.get(name.rpartition(".")[2], 0) if name.startswith("evaluate.") else 0)
        better = "b" if gain > 0 else "a" if gain < 0 else None
        rows.append({"metric": name, "a": a, "b": b, "change": change, "better": better, "bookkeeping": place[name][0]})
    return rows


def is_bookkeeping(metric: str) -> bool:
    """Whether a metric tells how the work was carried out, and nothing of what came out."""
    last = metric.rpartition(".")[2]
    return last == "seconds" or last.startswith("partitions")


def _started(run: Any) -> str:
    return datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds")


def _tell(run: Any) -> str:
    return f"{run.info.run_name}, {_started(run)}, {run.info.status.lower()}"
