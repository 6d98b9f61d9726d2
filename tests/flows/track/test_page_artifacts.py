"""Artifacts of a flow run's page: its MLflow run, its files there, tables, and the stages that the flow makes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from data_catalog.config.settings import Settings
from data_catalog.workspace import Workspace
from flows.run import lifecycle
from flows.run.lifecycle import mlflow_page, tracked
from flows.run.run import own_stages
from flows.track.prefect_pages import flow_run_id, show_table
from tasks.stages import STAGES

PAGES = "http://127.0.0.1:5000"


def test_a_run_leads_to_mlflow_to_its_files_and_to_its_table(
    prefect_api: None, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    def page(tracker: Any) -> str:
        return f"{PAGES}/#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}"

    monkeypatch.setattr(lifecycle, "mlflow_page", page)
    seen: list[Any] = []

    @flow(name="evaluate")
    def evaluate() -> None:
        with tracked(Workspace(Settings(), tmp_path), "evaluate") as (tracker, _):
            for name in ("report.html", "a picture.png"):
                (tmp_path / name).write_text("x")
            tracker.file(tmp_path / "report.html")
            tracker.file(tmp_path / "a picture.png", "pictures")
            show_table("evaluation", [{"clip": 0.123456, "rows": 3, "method": "student"}], "Measures")
            seen.extend([flow_run_id(), page(tracker)])

    evaluate()
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [UUID(seen[0])]}))
    artifacts = {each.key: str(each.data) for each in found}
    assert set(artifacts) == {"mlflow-run", "results", "evaluation"}
    assert f"({seen[1]})" in artifacts["mlflow-run"]
    assert artifacts["results"].splitlines() == [
        f"- [report.html]({seen[1]}/artifacts/report.html)",
        f"- [pictures/a picture.png]({seen[1]}/artifacts/pictures/a%20picture.png)",
    ]
    assert artifacts["evaluation"] == '[{"method": "student", "clip": 0.1235, "rows": 3}]'


def test_the_page_in_mlflow_is_that_of_the_store_or_of_our_own_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker: Any = SimpleNamespace(root=tmp_path, uri="sqlite:///x.db", is_own=True, experiment_id="3", run_id="ab")
    assert mlflow_page(tracker) is None
    monkeypatch.setattr(lifecycle, "find_service", lambda folder, name: SimpleNamespace(url=f"{PAGES}/{folder.name}"))
    assert mlflow_page(tracker) == f"{PAGES}/mlflow/#/experiments/3/runs/ab"
    tracker.is_own = False  # a database elsewhere, whose pages are not known
    assert mlflow_page(tracker) is None
    tracker.uri = "http://me:secret@tracking:5000/"
    assert mlflow_page(tracker) == "http://tracking:5000/#/experiments/3/runs/ab"


def test_the_plan_of_a_flow_has_the_stages_that_the_flow_makes() -> None:
    plan: Any = SimpleNamespace(stages=STAGES)
    made = [stage.name for stage in STAGES]
    assert list(own_stages("build-dataset", plan, {})) == made[: made.index("dataset") + 1]
    assert list(own_stages("distill", plan, {"dataset/all": "1"})) == ["distill"]
    assert list(own_stages("evaluate", plan, {"dataset/all": "1", "distill/all": "2"})) == ["evaluate"]
    assert "dataset" not in own_stages("adapt-style", plan, {"dataset/all": "1", "distill/all": "2"})
    assert "edit" in own_stages("adapt-style", plan, {"dataset/all": "1", "distill/all": "2"})
