"""Flow ablate: the numbers of styles of a base and of pairs of a new style (3DPE, Tables 2 and 3)."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from data_catalog.config.places import PROJECT
from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.config.styles import style_paths, styles_folder
from data_catalog.products.keys import DATASET
from data_catalog.products.students import ADAPTED
from data_catalog.workspace import Workspace
from flows.ask.plan import PlanShape
from flows.lab.arms import ArmWork, keep_arm, keep_arms, tell_command
from flows.run.adaptation import adapt_shape
from flows.run.declare import flow
from flows.run.form import Overrides, Profile, Seeds, shown
from flows.run.lifecycle import tracked
from tasks.adaptation.pairs import count_portraits
from tasks.lab.ablation import ARM, BASE, PAIRS, Arm, draw_styles, list_arms
from tasks.lab.ablation_page import LOOKS_PICTURE, PAGE, PICTURE, Result, write_page

FOLDER = "ablation"  # below the data root
STYLE = "Style to adapt to; empty: the first of prompts.held_out, or one that is drawn."
MORE_STYLES = PROJECT / "configs" / "styles" / "more"  # further styles that the embedded editor knows

log = logging.getLogger(__name__)


@flow(name="ablate")
def ablate(
    profile: Profile = "demo",
    overrides: Overrides = None,
    style: Annotated[str | None, shown("string", STYLE)] = None,
    seeds: Seeds = 3,
) -> dict[str, Any]:
    """Train bases of 3, 10 and 20 styles, adapt them to one more from 2 to 50 pairs, and write a page of the results.

    Fewer styles make smaller bases. Results are stored as they are made: a killed run resumes.
    """
    workspace = Workspace.open(profile, overrides)
    chosen = gather_styles(workspace)
    novel, styles = draw_styles(chosen.known, style or next(iter(workspace.settings.prompts.held_out), None))
    bases = [train_base(chosen.workspace, each) for each in styles]
    results = adapt_arms(chosen.workspace, novel, bases, list_arms(styles, seeds))
    return publish_ablation(workspace, novel, bases, results)


@dataclass(frozen=True)
class Styles:
    """The styles there are, and the workspace whose settings name their folder."""

    known: list[str]
    workspace: Workspace


@dataclass(frozen=True)
class Base:
    """Student to adapt, with its styles and its dataset."""

    styles: list[str]
    pins: dict[str, str]
    settings: Settings


def gather_styles(workspace: Workspace) -> Styles:
    """The profile's style files; in the embedded world with the others that its editor knows, in a folder of both."""
    paths = style_paths(styles_folder(workspace.settings))
    if workspace.settings.world != "embedded":
        return Styles(list(paths), workspace)
    folder = workspace.root / FOLDER / "styles"
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*paths.values(), *style_paths(MORE_STYLES).values()]:
        shutil.copyfile(path, folder / path.name)
    both = workspace.with_overrides(f"prompts.styles_dir={json.dumps(str(folder))}")
    return Styles(list(style_paths(folder)), both)


def train_base(workspace: Workspace, styles: Sequence[str]) -> Base:
    """Train a student on these styles only."""

    def shape(settings: Settings) -> PlanShape:
        from tasks.portraits import blocks
        from tasks.stages import STAGES

        names = [stage.name for stage in STAGES]
        stages = (*STAGES[: names.index("dataset") + 1], BASE)
        return PlanShape(stages, sorted(styles), blocks(settings))

    chosen = workspace.with_overrides(f"prompts.styles={json.dumps(sorted(styles))}")
    told = {"base_styles": ", ".join(styles)}
    kept = keep_arm("ablate", ArmWork(chosen, {}, shape, ["dataset", "base"], told))
    return Base(list(styles), {DATASET: kept.digests["dataset"], "base/all": kept.digests["base"]}, kept.settings)


def adapt_arms(workspace: Workspace, style: str, bases: Sequence[Base], arms: Sequence[Arm]) -> list[Result]:
    """Adapt the base of each arm to the style; returns the records' values."""
    works = {arm: _arm_work(workspace, style, bases, arm) for arm in arms}
    results = {}
    for arm, kept in keep_arms("ablate", works):
        document = json.loads((kept.folder / ADAPTED).read_text(encoding="utf-8"))
        log.info("arm        %s: %.3f to %.3f", arm, kept.metrics["lpips_before"], kept.metrics["lpips"])
        results[arm] = Result(arm, document["curve"], kept.metrics, document["held_out"], kept.folder, kept.settings)
    return [results[arm] for arm in arms]


def _arm_work(workspace: Workspace, style: str, bases: Sequence[Base], arm: Arm) -> ArmWork:
    base = next(base for base in bases if len(base.styles) == arm.styles)
    chosen = [f"adapt.pairs={arm.pairs}", f"adapt.seed={arm.seed}"]
    if base.settings.portraits.source == PROCEDURAL:  # endless: as many people as the most pairs need
        wanted = count_portraits(base.settings, PAIRS[-1])
        chosen.append(f"portraits.count={max(wanted, base.settings.portraits.count or 0)}")
    shape = adapt_shape(style, ARM, BASE, PAIRS[-1])  # every arm draws from the same pairs
    return ArmWork(workspace.with_overrides(*chosen), base.pins, shape, ["pairs", "arm"], {})


def publish_ablation(
    workspace: Workspace, style: str, bases: Sequence[Base], results: Sequence[Result]
) -> dict[str, Any]:
    """Write the page, and log its tables. Returns the values that the command prints."""
    root = workspace.root
    command = tell_command(f"stillroom ablate {style}", workspace)
    document = write_page(root / FOLDER, command, style, [base.styles for base in bases], bases[-1].settings, results)
    with tracked(workspace, "ablate") as (tracker, _):
        for name in ("styles", "pairs"):
            tracker.table(document[name], f"{name}.json", "value")
        files = [root / FOLDER / name for name in (PAGE, PICTURE, LOOKS_PICTURE)]
        for path in files:
            tracker.file(path)
    return {**document, "files": [str(path) for path in files], "mlflow_run_id": tracker.run_id}
