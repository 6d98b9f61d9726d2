"""The flow baselines: mistakes, missing weights, no GPU; the table as the terminal shows it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.store.record import Record
from data_catalog.store.store import Store
from flows.baselines import check_device, choose_styles, find_absent, seconds_left
from flows.cli.baselines import show_table
from models.zoo import zoo
from tasks import dataset, distill
from tasks.baselines.methods import STAGES
from tests.worlds.declared import SOURCE, Workshop


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of networks of the test's own, at first the project's."""
    path = tmp_path / "models.yaml"
    path.write_text(zoo.REGISTRY.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv("STILLROOM_MODELS", str(path))
    return path


def change(registry: Path, world: str, **entries: dict[str, Any]) -> None:
    document = yaml.safe_load(registry.read_text(encoding="utf-8"))
    document[world] |= entries
    registry.write_text(yaml.safe_dump(document), encoding="utf-8")


def test_a_method_without_its_weights_is_named_with_how_to_get_them(registry: Path, tmp_path: Path) -> None:
    assert find_absent("embedded") == {}
    change(registry, "embedded", generator={"path": None, "optional": True, "get": "train it: stillroom pretrain"})
    zoo._registry.cache_clear()
    absent = find_absent("embedded")
    assert set(absent) == {"PTI + StyleCLIP", "SPI + StyleGAN-NADA"}
    assert absent["PTI + StyleCLIP"] == "no generator: train it: stillroom pretrain"
    change(registry, "embedded", generator={"path": str(tmp_path / "nowhere"), "get": "git checkout"})
    zoo._registry.cache_clear()
    assert "are missing" in find_absent("embedded")["SPI + StyleGAN-NADA"]


def test_the_paper_world_names_the_public_generator() -> None:
    assert "ffhqrebalanced512-128" in zoo.missing("generator", "paper")
    assert zoo.missing("captioner", "paper") == ""  # from the hub


def test_no_gpu_in_the_paper_world_asks_for_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    paper = load_settings("paper")
    with pytest.raises(UserError, match="no GPU") as raised:
        check_device(paper, 20, yes=False)
    assert "200 with each method" in str(raised.value)
    assert "--yes" in str(raised.value)
    check_device(paper, 20, yes=True)
    check_device(load_settings("demo"), 20, yes=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device(paper, 20, yes=False)


def test_a_style_that_is_not_there_is_said_with_those_that_are() -> None:
    demo = load_settings("demo")
    assert choose_styles(demo, ["zombie", "bronze-statue", "zombie"]) == ["bronze-statue", "zombie"]
    assert "elf-ears" in choose_styles(demo, None)
    with pytest.raises(UserError, match="no such style") as raised:
        choose_styles(demo, ["zombi"])
    assert "zombi" in str(raised.value)
    assert "zombie" in str(raised.value)


def test_the_terminal_shows_a_steered_methods_clip_in_parentheses() -> None:
    row = {"id": 0.5, "clip": 0.75, "three_d": 0.5, "lpips": None, "reconstruction_psnr": None, "edits": 4}
    row |= {"seconds_per_image": 1.5, "rejected": 1}
    document: dict[str, Any] = {
        "table": [{**row, "method": "PTI + StyleCLIP", "steered": True}, {**row, "method": "ours", "steered": False}],
        "order": [{"column": "ID_t", "verdict": "opposite"}],
        "absent": {"SPI + StyleGAN-NADA": "no generator: get it"},
        **dict.fromkeys(("files", "partitions_run", "partitions_cached", "rejected", "mlflow_run_id", "seconds")),
    }
    console = Console(width=140, record=True)
    show_table(document, console)
    text = console.export_text()
    assert "(0.7500)" in text
    assert text.count("0.7500") == 2
    assert "ours first by ID_t: opposite" in text
    assert "SPI + StyleGAN-NADA did not run: no generator: get it" in text


def test_the_time_left_is_that_of_each_systems_own_records(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.build(until="distill")
    made = {key: shop.plan().steps[key].entry for key in ("dataset/all", "distill/all")}
    pins = {key: entry.digest for key, entry in made.items() if entry is not None}
    stages = (dataset.STAGE, distill.STAGE, STAGES["pti-styleclip"], STAGES["ours"])

    def plan() -> Plan:
        return make_plan(stages, shop.settings, Store(shop.root), ["zombie"], [], str, pins=pins, source=SOURCE)

    assert seconds_left(plan(), ["pti-styleclip", "ours"]) is None, "never run"
    step = plan().by_stage[STAGES["pti-styleclip"].name][0]
    inputs = plan().now(step) | {"settings": plan().now(step)["settings"] | {"world": "another"}}
    record = Record(
        partition=step.key, stage=step.partition.stage, version=1, fingerprint="f" * 64, fingerprint_inputs=inputs,
        digest="", files={}, samples=8, seconds=100.0,
    )  # fmt: skip
    store = Store(shop.root)
    store.commit(store.begin(step.partition, record.fingerprint), record)
    assert seconds_left(plan(), ["pti-styleclip"]) == pytest.approx(100.0)  # 4 portraits, by words and by a picture
    assert seconds_left(plan(), ["pti-styleclip", "ours"]) is None
