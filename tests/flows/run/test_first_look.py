"""A mistake that a look finds is no failed run: neither in Prefect nor in MLflow, and nothing is made."""

import logging
from pathlib import Path
from typing import Any

import pytest

from data_catalog.config.errors import UserError
from flows.run.engine import read_parameters, run_here
from flows.run.first_look import look


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def flow_runs() -> int:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return len(client.read_flow_runs())


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    ("flow", "given"),
    [
        ("adapt-style", {"style": "zombie"}),
        ("baselines", {"styles": ["nostyle"]}),
        ("edit-video", {"video": "nothing.mp4", "prompt": "make him a zombie"}),
        ("evaluate", {}),
        ("build-dataset", {"tags": ["why"]}),
    ],
)
def test_a_mistake_found_before_the_work_is_no_run(
    flow: str, given: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    before = flow_runs()
    with pytest.raises(UserError):
        run_here(flow, "demo", [], **given)
    assert flow_runs() == before
    assert not (root / "mlflow").exists()
    assert not (root / "runs").exists()


def test_a_look_at_a_flow_without_mistakes_makes_nothing_and_logs_as_before(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flows.build_dataset import build_dataset

    look(build_dataset.fn, profile="demo", overrides=["portraits.count=2", "prompts.styles=[zombie]"])
    assert not (root / "store").exists()
    assert not (root / "mlflow").exists()
    with caplog.at_level(logging.INFO):
        logging.getLogger("flows.run").warning("after the look")
    assert "after the look" in caplog.text


def test_a_parameter_of_a_flow_of_the_wrong_type_is_a_message_and_a_digest_of_digits_a_text() -> None:
    assert read_parameters("distill", ["dataset=12345678"]) == {"dataset": "12345678"}
    assert read_parameters("distill", ["dataset=null"]) == {"dataset": None}
    for given in ("force=3", "force={a: 1}"):
        with pytest.raises(UserError, match="wrong value of a parameter of the flow build-dataset") as raised:
            read_parameters("build-dataset", [given])
        assert "force: Input should be a valid list" in str(raised.value)
    with pytest.raises(UserError, match="portraits: Input should be a valid integer"):
        read_parameters("baselines", ["portraits=many"])
