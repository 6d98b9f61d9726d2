"""Rehearsal: two small portraits through every stage of a profile, with its networks at full size, on this machine.

Stages, plan, store and loaders of weights are the real ones, on a data root of the rehearsal's own. It shows that
shapes, types and files fit together, and each stage's time and memory; it says nothing about the pictures' quality.
"""

import json
import logging
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.config.styles import GATE_NAMES, list_styles
from data_catalog.samples.encoding import encode_png
from data_catalog.store.heap import give_back, kept_memory
from data_catalog.workspace import Workspace
from flows.run import server
from flows.run.usage import UsageWatch
from flows.track.mlflow_client import database_uri
from tasks.dataset import MADE_FROM

log = logging.getLogger(__name__)

PORTRAITS = 2  # the least number with one portrait to train on and one to test on
NEEDED_BYTES = {
    "embedded": 1e9,
    "paper": 16e9,
}  # bytes on disk: half-precision weights, shards, a student, its checkpoint and export
TRACKING = "MLFLOW_TRACKING_URI"  # MLflow sets it when a student is registered; its folder is temporary here
BUILD = (*MADE_FROM, "dataset")

Row = dict[str, Any]


def rehearse(workspace: Workspace, random_weights: bool) -> dict[str, Any]:
    """Rehearse; returns a row for each stage with its cost and output. `ok` is false if there was a problem.

    random_weights: draw networks of the paper's size instead of loading those of configs/models.yaml. Everything is
    made in a temporary folder, which is deleted at the end.
    """
    settings = workspace.settings
    if random_weights and settings.world != "paper":
        raise UserError(
            f"the networks of profile '{workspace.profile}' come with the project; no random ones are needed",
            hint="stillroom doctor --profile paper --random-weights",
        )
    with _folder(settings) as folder, _environment(folder, random_weights), kept_memory():
        # The small values first, so that those of the command line count.
        own = replace(workspace, root=folder / "data").with_defaults(*small(settings, folder))
        return _Rehearsal(own, folder).run(random_weights)


class _Rehearsal:
    """State of a rehearsal: the rows so far, and the way to add one."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace, self.settings, self.folder = workspace, workspace.settings, folder
        self.rows: list[Row] = []

    def run(self, random_weights: bool) -> dict[str, Any]:
        started = time.monotonic()
        if random_weights:
            self.measured("random weights", self.draw_weights)
        self.measured("pictures", lambda: write_pictures(self.folder / "portraits.zip", self.settings.align.size))
        self.run_flow("build-dataset", BUILD)
        self.run_flow("distill", ("distill",))
        self.run_flow("evaluate", ("evaluate",))
        self.measured("verify", self.verify)
        return {
            "profile": self.workspace.profile,
            "world": self.settings.world,
            "random_weights": random_weights,
            "ok": all(not row["problems"] for row in self.rows),
            "stages": self.rows,
            "peak_gb": max(row["peak_gb"] for row in self.rows),
            "cpu_seconds": round(sum(row["cpu_seconds"] for row in self.rows), 1),
            "seconds": round(time.monotonic() - started, 1),
        }

    def measured(self, name: str, work: Callable[[], tuple[str, list[str]]]) -> None:
        """Do a piece of work and add its row: the description of its output, and the problems."""
        started = time.monotonic()
        with UsageWatch() as watch:
            made, problems = work()
            give_back()  # memory is measured from the level before the next piece of work
        seconds = round(time.monotonic() - started, 1)
        took = {"seconds": seconds, "cpu_seconds": watch.cpu_seconds, "peak_gb": watch.peak_gb}
        self.rows.append({"stage": name, **took, "made": made, "problems": problems})
        log.info("%-14s %6.1f s (%.1f of CPU) %5.1f GB  %s", name, seconds, watch.cpu_seconds, watch.peak_gb, made)
        for problem in problems:
            log.error("%s: %s", name, problem)

    def run_flow(self, flow: str, stages: tuple[str, ...]) -> None:
        """Make the stages of a flow as the flow does, and check its results at the end."""
        from flows.run import products
        from flows.run.run import FlowRun, open_run

        ends: dict[str, tuple[str, Callable[[FlowRun], Any]]] = {
            "build-dataset": ("snapshot", products.publish_dataset),
            "distill": ("register", products.register_student),
            "evaluate": ("report", products.publish_evaluation),
        }
        pins = {"distill": products.find_dataset, "evaluate": products.find_student}
        pinned = pins[flow](None, self.workspace) if flow in pins else None
        with open_run(flow, self.workspace, pinned) as run:
            for name in stages:
                self.measured(name, lambda name=name: self.make_stage(run, name))  # type: ignore[misc]
            name, hand_on = ends[flow]
            self.measured(name, lambda: (type(hand_on(run)).__name__, []))

    def make_stage(self, run: Any, name: str) -> tuple[str, list[str]]:
        """Make a stage and check its output."""
        from tasks.stage_checks import check_stage

        result = run.stage(name)
        run.check()
        waiting = [f"{step.key}: {step.note}" for step in result.steps if not step.made]
        if waiting:
            raise UserError(f"the rehearsal stops at {name}", cause="; ".join(waiting))
        findings = [check_stage(run.plan.catalog.folder(step.entry), name, self.settings) for step in result.steps]
        made = [finding.made for finding in findings]
        return "; ".join(dict.fromkeys(made)), [problem for finding in findings for problem in finding.problems]

    def draw_weights(self) -> tuple[str, list[str]]:
        from models.zoo.random_weights import write_world

        registry = write_world(self.folder / "weights")
        size = sum(path.stat().st_size for path in registry.parent.rglob("*") if path.is_file())
        return f"{size / 1e9:.1f} GB of files as published", []

    def verify(self) -> tuple[str, list[str]]:
        from data_catalog.care.verify import verify

        seen = verify(self.workspace.root)
        return f"{seen.records} records, {seen.files} files", [str(damage) for damage in seen.damaged]


def small(settings: Settings, folder: Path) -> list[str]:
    """Overrides that make a profile's work small and its gates open, and leave sizes and networks as they are."""
    style = next((slug for slug in list_styles(settings) if slug == "bronze-statue"), list_styles(settings)[0])
    values: dict[str, Any] = {
        "portraits.source": str(folder / "portraits.zip"),
        "portraits.pattern": "*",
        "portraits.count": PORTRAITS,
        "portraits.block_size": PORTRAITS,
        "prompts.styles": [style],
        "prompts.backend": "builtin",
        "prompts.max_clip_text": None if settings.prompts.max_clip_text is None else 1.0,
        "edit.source": "editor",
        "edit.steps": 1,
        "edit.prompts_per_portrait": 1,
        **{f"select.{name}": None for name in GATE_NAMES},
        "select.calibration": "none",
        "select.min_yield": 0,
        "select.keep": None,
        "teach.views": 1,
        "distill.iterations": 2,
        "distill.triplane_iterations": 0,
        "distill.batch_size": 1,
        "distill.warmup": 0,
        "distill.checkpoint_every": 2,
        "distill.log_every": 1,
        "distill.grid_every": 2,
        "evaluate.timing_repeats": 0,
        "evaluate.timed_editor_steps": None,
        "evaluate.pictures_per_style": 1,
        "evaluate.turntable_frames": 2,
        "evaluate.bootstrap": 100,
        "run.workers": 1,
        "run.threads": len(os.sched_getaffinity(0)),
        "run.device": "cpu",
        "run.cluster": None,
        "run.mlflow_uri": database_uri(folder / "mlflow.db"),
    }
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def write_pictures(path: Path, size: int) -> tuple[str, list[str]]:
    """Write an EG3D zip of heads of the procedural world, with their cameras as labels."""
    from models import procedural
    from models.camera import orbit_label
    from models.pixels import to_levels

    labels = []
    with zipfile.ZipFile(path, "w") as archive:
        for seed in range(PORTRAITS):
            label = orbit_label(0.2 * seed - 0.1, 0.05)[0]
            rgb = procedural.render(procedural.portrait(seed), label, size).rgb
            name = f"00000/img{seed:08d}.png"
            archive.writestr(name, encode_png(to_levels(rgb)))
            labels.append([name, [float(value) for value in label]])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return f"{PORTRAITS} portraits {size}x{size} with labels", []


@contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """Yield an empty temporary folder on a disk with enough space."""
    place = Path(tempfile.gettempdir())
    needed, free = NEEDED_BYTES[settings.world], shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            "there is not enough disk space for a rehearsal",
            folder=place,
            expected=f"{needed / 1e9:.0f} GB",
            found=f"{free / 1e9:.1f} GB",
            hint="set TMPDIR to a folder on another disk",
        )
    with tempfile.TemporaryDirectory(prefix="stillroom-rehearsal-") as folder:
        yield Path(folder).resolve()


@contextmanager
def _environment(folder: Path, random_weights: bool) -> Iterator[None]:
    """Set a data root and a registry of weights for the rehearsal; worker processes inherit both."""
    given = {**server.without_server(folder / "data"), "STILLROOM_DATA": str(folder / "data")}
    if random_weights:
        given["STILLROOM_MODELS"] = str(folder / "weights" / "models.yaml")
    before = {name: os.environ.get(name) for name in (*given, TRACKING)}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
