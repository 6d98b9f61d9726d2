"""Report of `doctor` for the paper's world: device, memory, files and disk, each with a next step."""

import pytest

from data_catalog.config.profiles import load_settings
from data_catalog.workspace import Workspace
from flows.ask.missing import disk_needed
from flows.care.doctor import examine


def checks_of(profile: str, *overrides: str) -> dict[str, dict[str, str]]:
    return {check["check"]: check for check in examine(Workspace.open(profile, list(overrides)))["checks"]}


def test_a_machine_without_files_or_gpu_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "STILLROOM_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = checks_of("paper")
    failed = {name for name, check in found.items() if check["state"] == "fail"}
    assert {"device", "weights teacher", "portraits.source", "OPENAI_API_KEY"} <= failed
    assert "weights landmarks" not in failed  # optional
    assert all(found[name]["hint"] for name in failed)


def test_the_papers_networks_are_not_wanted_on_a_cpu_nor_the_embedded_ones_on_a_gpu() -> None:
    assert checks_of("paper", "run.device=cpu")["device"]["state"] == "warn"
    assert checks_of("demo")["device"]["state"] == "ok"


def test_more_workers_want_more_memory_and_more_samples_more_disk() -> None:
    assert checks_of("demo", "run.workers=100000")["memory"]["state"] == "warn"
    paper, half = load_settings("paper", []), load_settings("paper", ["portraits.count=500"])
    assert disk_needed(half) < disk_needed(paper) < 2.2 * disk_needed(half)
