"""A mistake in what a deployment's run was given: the words of its state, and nothing made."""

import logging
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from flows.distill import distill
from flows.reproduce import reproduce
from flows.run.declare import flow


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.usefixtures("prefect_api")
def test_a_mistake_is_one_line_of_the_flow_run_and_makes_nothing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        state = distill(overrides=["edit.stesp=5"], return_state=True)
        below = reproduce(overrides=["edit.steps=-3"], return_state=True)
    assert (state.name, state.message) == (
        "Failed",
        "--set edit.stesp=5, edit: unknown key 'stesp'; did you mean 'steps'?",
    )
    assert below.message == "--set edit.steps=-3, edit.steps: input should be greater than or equal to 1; found -3"
    assert "Traceback" not in caplog.text
    assert not root.exists()
    with pytest.raises(UserError, match="no dataset starts with the digest 'nosuch'"):
        distill(dataset="nosuch")


@flow(name="broken")
def broken() -> None:
    raise ValueError("a bug")


@pytest.mark.usefixtures("prefect_api")
def test_a_bug_keeps_its_class_in_the_state() -> None:
    assert broken(return_state=True).message == "Flow run encountered an exception: ValueError: a bug"
    with pytest.raises(ValueError, match="a bug"):
        broken.fn()
