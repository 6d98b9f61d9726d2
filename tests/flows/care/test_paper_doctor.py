"""Report of `doctor` for the paper's world: device, memory, files and disk, each with a next step."""

from types import SimpleNamespace

import pytest

from data_catalog.config.profiles import load_settings
from data_catalog.workspace import Workspace
from flows.ask.missing import disk_needed
from flows.care.doctor import _training, examine
from tasks.training import footprint
from tasks.training.footprint import StepBytes


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


def test_the_need_of_these_settings_is_compared_with_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    # As counted at the paper's size (tests/tasks/training/test_footprint.py), which takes seconds each time.
    counted = lambda config, settings, samples: StepBytes(0, int((1.8 + 0.98 * samples) * 1e9))  # noqa: E731
    monkeypatch.setattr(footprint, "count_step", counted)

    def on_card(gigabytes: float, count: int, *overrides: str) -> dict[str, str]:
        card = SimpleNamespace(total_memory=gigabytes * 1e9, name="a card")
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.is_available", lambda: True)
            patch.setattr("torch.cuda.device_count", lambda: count)
            patch.setattr("torch.cuda.get_device_properties", lambda device: card)
            return next(_training(load_settings("paper", list(overrides))))

    eight, one = on_card(40, 8), on_card(80, 1)
    assert eight["state"] == one["state"] == "ok"
    assert "for 4 of 4 samples of each of 8 processes at once" in eight["found"]
    assert "for 32 of 32 samples at once" in one["found"]
    assert "for 16 of 32 samples at once" in on_card(30, 1)["found"]
    tight = on_card(30, 1, "distill.micro_batch=32")
    assert tight["state"] == "warn"
    assert tight["hint"] == "set distill.micro_batch to auto"
    small = on_card(6, 8)
    assert small["state"] == "warn"
    assert "for 1 of 4 samples" in small["found"]
    assert "distill.prompt_encoder=frozen" in small["hint"]
    assert not list(_training(load_settings("demo")))


def test_the_papers_networks_are_not_wanted_on_a_cpu_nor_the_embedded_ones_on_a_gpu() -> None:
    assert checks_of("paper", "run.device=cpu")["device"]["state"] == "warn"
    assert checks_of("demo")["device"]["state"] == "ok"


def test_more_workers_want_more_memory_and_more_samples_more_disk() -> None:
    assert checks_of("demo", "run.workers=4000")["memory"]["state"] == "warn"
    paper, half = load_settings("paper", []), load_settings("paper", ["portraits.count=700"])
    assert disk_needed(half) < disk_needed(paper) < 2.2 * disk_needed(half)
