"""MLflow's pages of a run: names, results, counts and curves that say what is so."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.store.record import Record
from flows.run.lifecycle import title_of
from flows.run.server import runs_page
from flows.track.labels import labelled, read_labels
from flows.track.mlflow_database import newest_experiment
from flows.track.mlflow_runs import Tracker
from flows.track.model_versions import TAG, log_measures
from tasks.distill import chosen_settings
from tasks.progress import Progress
from tasks.training.loop import told

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def tracker(tmp_path: Path, mlflow_uri: str) -> Tracker:
    made = Tracker(tmp_path, Settings(), "distill", title="distill zombie", made_with={"distill": {"iterations": 7}})
    made.begin()
    return made


def record_of(samples: int, metrics: dict[str, float], rejected: dict[str, int] | None = None) -> Record:
    return Record.model_construct(
        partition="portraits/0000", digest=DIGEST, fingerprint=DIGEST, bytes=1, files={}, samples=samples,
        metrics=metrics, rejected=rejected or {},
    )  # fmt: skip


def read(tracker: Tracker, run_id: str | None = None) -> Any:
    return tracker.client.get_run(run_id or tracker.run_id).data


def test_a_curve_has_only_its_own_points_and_the_last_value_a_key_of_its_own(tracker: Tracker) -> None:
    with tracker.stage("distill") as log:
        log.hear(Progress(10, metrics={"loss": 3.0}))
        log.hear(Progress(20, metrics={"loss": 2.0}))
        log.summary({"seconds": 1.0}, {"partitions": 1}, [(record_of(8, {"loss": 1.5, "other": 4.0}), "x")])
    points = tracker.client.get_metric_history(log.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(10, 3.0), (20, 2.0)]
    assert read(tracker, log.run_id).metrics == {
        "loss": 2.0, "final/loss": 1.5, "other": 4.0, "seconds": 1.0, "count/partitions": 1.0,
    }  # fmt: skip
    assert read(tracker).metrics["distill.loss"] == 1.5


def test_counts_are_added_over_partitions_and_means_weighted_by_samples(tracker: Tracker) -> None:
    records = [
        record_of(30, {"portraits_train": 24.0, "sharpness": 1.0}, {"too dark": 2}),
        record_of(10, {"portraits_train": 8.0, "sharpness": 5.0}, {"too dark": 1}),
    ]
    with tracker.stage("portraits") as log:
        log.summary({}, {"samples": 40}, [(record, "x") for record in records])
    assert read(tracker).metrics == {
        "count/portraits.portraits_train": 32.0, "count/portraits.rejected.too dark": 3.0,
        "count/portraits.samples": 40.0, "portraits.sharpness": 2.0,
    }  # fmt: skip


def test_results_come_first_among_the_metrics(tracker: Tracker) -> None:
    with tracker.stage("adapt") as log:
        log.summary({"error": 1.0}, {"samples": 40}, [])
    tracker.result({"lpips": 0.5, "missing": None, "sure": True})
    assert sorted(read(tracker).metrics) == ["abstract/lpips", "adapt.error", "count/adapt.samples"]


def test_a_run_shows_the_settings_of_what_it_takes_as_it_is(tracker: Tracker) -> None:
    params = read(tracker).params
    assert params["distill.iterations"] == "7"
    assert "distill.lr" not in params  # the record does not name it
    assert params["edit.steps"] == str(Settings().edit.steps)


def test_the_name_of_a_run_ends_with_its_dataset(tracker: Tracker, tmp_path: Path) -> None:
    tracker.dataset("faces", DIGEST, tmp_path, 3)
    assert tracker.client.get_run(tracker.run_id).info.run_name == "distill zombie 01234567"


def test_a_users_name_note_and_tags_stand_on_the_run(tmp_path: Path, mlflow_uri: str) -> None:
    with labelled("mine", "Why I did it.", ["why=a=b"]), labelled(None, None, None):
        tracker = Tracker(tmp_path, Settings(), "distill", title="distill zombie")
        tracker.begin()
    tracker.dataset("faces", DIGEST, tmp_path, 3)
    run = tracker.client.get_run(tracker.run_id)
    assert (run.info.run_name, run.data.tags["why"]) == ("mine", "a=b")
    assert run.data.tags["mlflow.note.content"] == "Why I did it."


@pytest.mark.parametrize("tag", ["why", "=x", "mlflow.user=me", "stillroom.flow=x", "a:b=c"])
def test_a_tag_that_is_not_a_users_is_refused(tag: str) -> None:
    with pytest.raises(UserError, match="tag"):
        read_labels(None, None, [tag])


def test_a_title_says_style_and_the_settings_that_differ_from_the_profile() -> None:
    changed = load_settings("demo", ["edit.steps=3", "run.workers=1"])
    assert title_of("build-dataset", {}, load_settings("demo"), {}) == "build-dataset"
    assert title_of("build-dataset", {}, changed, {}) == "build-dataset edit.steps=3"
    made_with = {"distill": chosen_settings(load_settings("demo")) | {"iterations": 120}}
    found = title_of("adapt-style", {"style": "clown"}, changed, made_with)
    assert found == "adapt-style clown iterations=120 edit.steps=3"


def test_a_run_that_makes_nothing_is_the_one_that_made_the_product(tmp_path: Path, tracker: Tracker) -> None:
    again = Tracker(tmp_path, Settings(), "distill")
    assert again.adopt(tracker.run_id)
    again.result({"lpips": 0.5})
    with again.stage("distill") as log:
        log.summary({"seconds": 1.0}, {}, [])
    again.finish("FAILED")
    assert (again.run_id, read(tracker).metrics) == (tracker.run_id, {})
    assert again.experiment_id == tracker.experiment_id  # in the address of its page
    assert tracker.client.get_run(tracker.run_id).info.status == "RUNNING"
    assert not Tracker(tmp_path, Settings(), "distill").adopt("0" * 32)  # of another store
    with labelled("mine", None, None):
        assert not Tracker(tmp_path, Settings(), "distill").adopt(tracker.run_id)
    tracker.client.delete_run(tracker.run_id)
    assert not Tracker(tmp_path, Settings(), "distill").adopt(tracker.run_id)


def test_an_experiment_is_one_of_training(tracker: Tracker) -> None:
    experiment = tracker.client.get_experiment(tracker.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_link_opens_the_runs_of_the_newest_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page = "http://127.0.0.1:5000"
    assert runs_page(tmp_path, page) == f"{page}/#/experiments?workflowType=machine_learning"
    own = Tracker(tmp_path, Settings(), "distill")
    own.begin()
    assert newest_experiment(tmp_path) == own.experiment_id
    expected = f"{page}/#/experiments/{own.experiment_id}/runs?workflowType=machine_learning"
    assert runs_page(tmp_path, page) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*str.*dtypes")  # MLflow's of pandas
def test_a_table_begins_with_its_first_column(tracker: Tracker, tmp_path: Path) -> None:
    tracker.table([{"clip": 1.0, "method": "student"}, {"clip": 2.0, "method": "no edit"}], "table.json", "method")
    path = tracker.client.download_artifacts(tracker.run_id, "table.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["columns"] == ["method", "clip"]


def test_measures_of_a_student_stand_on_the_run_and_the_model_that_have_it(tracker: Tracker, mlflow_uri: str) -> None:
    client: MlflowClient = tracker.client
    model = client.create_logged_model(tracker.experiment_id, "student", tracker.run_id)
    name = f"students-{tracker.run_id[:6]}"
    client.create_registered_model(name)
    source = f"models:/{model.model_id}"
    client.create_model_version(name, source, tracker.run_id, tags={TAG: DIGEST})
    log_measures(client, "f" * 64, {"lpips": 9.0}, {})  # another student's
    log_measures(client, DIGEST, {"lpips": 0.25}, {"evaluate.student.id": 0.5})
    assert read(tracker).metrics == {"abstract/lpips": 0.25, "evaluate.student.id": 0.5}
    found = {metric.key: metric.value for metric in client.get_logged_model(model.model_id).metrics}
    assert found == {"abstract/lpips": 0.25, "evaluate.student.id": 0.5}
    assert "lpips 0.25" in client.get_model_version(name, "1").description


def test_the_loss_of_the_first_steps_is_a_series_of_its_own() -> None:
    assert told({"loss": 2.0, "lr": 0.1}) == {"loss_of_triplanes": 2.0, "lr": 0.1}
    assert told({"loss": 1.0, "loss_view": 0.5}) == {"loss": 1.0, "loss_view": 0.5}
