"""Check of this machine: interpreter, packages, weights, disk, services. Each check names the next step."""

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles
from data_catalog.workspace import Workspace
from flows.ask.missing import disk_needed, find_missing
from flows.care.training_memory import training_need
from flows.run import server
from flows.track.addresses import shown
from flows.track.mlflow_database import look_at_locations
from flows.track.mlflow_store import named_store

LOW_DISK = 5e9  # bytes; below it a build may stop half-way
# Bytes of memory: a worker of the embedded world; the largest stage of the paper's.
WORKER_MEMORY, PAPER_MEMORY = 1.5e9, 16e9
PAPER_GPU_MEMORY = 16e9  # the editor in bfloat16 with a batch of 8

Check = dict[str, str]


def examine(workspace: Workspace) -> dict[str, Any]:
    """Run the checks; `ok` is false if one failed (a warning does not count)."""
    settings, root = workspace.settings, workspace.root
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _packages,
        _torch,
        lambda: _device(settings),
        lambda: _training(settings),
        lambda: _memory(settings),
        lambda: _weights(settings),
        lambda: _inputs(settings),
        lambda: _disk(settings, root),
        lambda: _services(root),
        lambda: _tracking(settings, root),
    )
    checks = [check for group in groups for check in group()]
    return {"ok": all(check["state"] != "fail" for check in checks), "checks": checks}


def _check(name: str, ok: bool, found: object, hint: str = "", warn: bool = False) -> Check:
    state = "ok" if ok else ("warn" if warn else "fail")
    return {"check": name, "state": state, "found": str(found), "hint": "" if ok else hint}


def _python() -> Iterator[Check]:
    yield _check("python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer")


def _packages() -> Iterator[Check]:
    """Check that every dependency of the pipeline is installed in an allowed version."""
    from packaging.requirements import Requirement

    problems = []
    requirements = [Requirement(text) for text in importlib.metadata.requires("stillroom") or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": "pipeline"})]
    for requirement in needed:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(re.sub(r"\+.*", "", version), prereleases=True):
            problems.append(f"{requirement.name} {version} is not {requirement.specifier}")
    yield _check("packages", not problems, "; ".join(problems) or f"{len(needed)} as required", "make setup")


def _torch() -> Iterator[Check]:
    torch = importlib.import_module("torch")
    cuda = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
    yield _check("torch", True, f"{torch.__version__}, {cuda}, {torch.get_num_threads()} threads")
    libraries = importlib.import_module("models.libraries")
    try:
        for name in ("diffusers", "transformers", "lpips"):
            getattr(libraries, name)
        yield _check("torchvision", True, "diffusers, transformers and lpips import beside it")
    except (ImportError, RuntimeError) as error:
        yield _check("torchvision", False, error, "make setup")


def _weights(settings: Settings) -> Iterator[Check]:
    from models.zoo import zoo

    for model in zoo.describe(settings.world):
        there = model["state"] in ("ready", "absent")  # absent: optional, and not given
        if model["state"] == "not fetched":
            hint = f"stillroom models fetch {model['name']}    (or it is fetched at first use)"
            yield _check(f"weights {model['name']}", False, "from the hub, not fetched", hint, warn=True)
            continue
        first, *rest = [line.strip() for line in (model["problem"] or model["state"]).splitlines()]
        yield _check(f"weights {model['name']}", there, first, " ".join(rest[-1:]).removeprefix("hint").strip())


def _device(settings: Settings) -> Iterator[Check]:
    """Check that `run.device` exists and, in the paper's world, is large enough."""
    torch, wanted = importlib.import_module("torch"), settings.run.device
    if not wanted.startswith("cuda"):
        slow = settings.world == "paper"
        yield _check("device", not slow, wanted, "the paper's networks want a GPU: run.device=cuda", warn=True)
    elif not torch.cuda.is_available():
        yield _check("device", False, f"{wanted}, and torch sees no CUDA device", "a CUDA build of torch and a driver")
    else:
        card = torch.cuda.get_device_properties(torch.device(wanted))
        enough = card.total_memory >= PAPER_GPU_MEMORY or settings.world != "paper"
        found = f"{wanted}: {card.name}, {card.total_memory / 1e9:.0f} GB"
        yield _check("device", enough, found, "set edit.batch_size to auto", warn=True)


def _training(settings: Settings) -> Iterator[Check]:
    """Check that a training with these settings fits into the card, at the paper's size."""
    if settings.world != "paper":
        return
    torch = importlib.import_module("torch")
    on_card = settings.run.device.startswith("cuda") and torch.cuda.is_available()
    card = float(torch.cuda.get_device_properties(torch.device(settings.run.device)).total_memory) if on_card else None
    need = training_need(settings, card)
    each = f" of each of {need.processes} processes" if need.processes > 1 else ""
    found = f"distill needs {need.bytes / 1e9:.0f} GB for {need.micro_batch} of {need.share} samples{each} at once"
    if need.micro_batch > 1:
        found += f", {need.least / 1e9:.0f} GB for one"
    if card is None:
        yield _check("training", True, found)
        return
    if need.least <= card:
        hint = "set distill.micro_batch to auto"
    else:
        hint = "a larger GPU, or other training than the paper's: distill.prompt_encoder=frozen, distill.patch_rays=64"
    yield _check("training", need.bytes <= card, f"{found}; the GPU has {card / 1e9:.0f} GB", hint, warn=True)


def _memory(settings: Settings) -> Iterator[Check]:
    import psutil

    paper = settings.world == "paper"
    # On a GPU, the paper's networks lie there; a process then needs the memory of a small worker, and its loader's.
    on_cpu = paper and not settings.run.device.startswith("cuda")
    needed = PAPER_MEMORY if on_cpu else WORKER_MEMORY * settings.run.workers
    free = psutil.virtual_memory().available
    found = f"{free / 1e9:.0f} GB free, about {needed / 1e9:.0f} wanted by {settings.run.workers} workers"
    yield _check("memory", free >= needed, found, "fewer workers: run.workers=1", warn=True)


def _inputs(settings: Settings) -> Iterator[Check]:
    """Check style files, portraits and keys."""
    try:
        yield _check("styles", True, f"{len(list_styles(settings))} style files")
    except UserError as error:
        yield _check("styles", False, error.message, error.hint or "")
    for lack in find_missing(settings):
        if not lack.what.startswith("weights "):
            yield _check(lack.where, False, f"not there: {lack.what}", lack.get)


def _disk(settings: Settings, root: Path) -> Iterator[Check]:
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    needed = max(LOW_DISK, disk_needed(settings) if settings.world == "paper" else 0)
    found = f"{free / 1e9:.1f} GB free at {root}, {needed / 1e9:.0f} wanted"
    yield _check("disk", free > needed, found, "make room, or STILLROOM_DATA on another disk", warn=True)
    probe = Path(place) / ".stillroom-probe"
    try:
        probe.touch()
        probe.unlink()
        yield _check("data root", True, root)
    except OSError as error:
        yield _check("data root", False, error, "set STILLROOM_DATA to a folder that can be written")


def _services(root: Path) -> Iterator[Check]:
    try:
        api_url = server.find_api(root)
        found = (
            "no server is up; build, distill and evaluate need none (make up)" if api_url is None else shown(api_url)
        )
        yield _check("prefect", True, found)
    except UserError as error:
        yield _check("prefect", False, error.message, error.hint or "")


def _tracking(settings: Settings, root: Path) -> Iterator[Check]:
    """Check that MLflow's artifact locations are below the data root, also after it was moved."""
    if (named := named_store(settings)) is not None:
        try:
            named.check()
            yield _check("mlflow", True, shown(named.uri))
        except UserError as error:
            yield _check("mlflow", False, error.message, error.hint or "")
        return
    problems = look_at_locations(root)
    hint = "stillroom verify    (lets the locations follow the data root, and names what is lost)"
    yield _check("mlflow", not problems, "; ".join(problems) or f"artifacts below {root}", hint, warn=True)
