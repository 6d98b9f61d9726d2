"""Plan noted by a build, shown again while every file that it depends on is unchanged.

A plan of a thousand partitions is quick; loading the libraries that it needs is not. So a build notes its plan
with a stamp (mtime, ctime, size, inode) of every file that the plan depends on: code, configs, weights, styles, the
index, each record and each file of each partition. One stamp that differs, and the plan is made as always.
`stillroom plan` itself writes nothing.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.config.places import PROJECT, data_root

if TYPE_CHECKING:
    from data_catalog.plan.plan import Plan

log = logging.getLogger(__name__)

FORMAT = 1
MEMO = "catalog/plan-memo.json"  # below the data root
CODE = ("flows", "tasks", "models", "data_catalog", "configs", "benchmarks")  # below the project
Stamp = list[int] | None  # None: nothing there


def recall(profile: str, overrides: list[str]) -> dict[str, Any] | None:
    """Return the document of `describe_plan` for these settings if all its files are unchanged; else None."""
    started, root = time.perf_counter(), data_root()
    try:
        memo = json.loads((root / MEMO).read_bytes())
        if memo["format"] != FORMAT or memo["question"] != _question(root, profile, overrides):
            return None
        if any(_tree_digest(tree) != digest for tree, digest in memo["trees"].items()):
            return None
        base = f"{root}/"
        if any(_stamp(base + path) != stamp for path, stamp in memo["stamps"].items()):
            return None
        document: dict[str, Any] = memo["document"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # only a memory
    return {**document, "seconds": round(time.perf_counter() - started, 3)}


def remember(profile: str, overrides: list[str]) -> None:
    """Note the present plan, unless the existing note still holds."""
    if recall(profile, overrides) is not None:
        return
    from data_catalog.config.profiles import load_settings
    from data_catalog.store.fingerprint import write_atomically
    from flows.ask.plan import describe_plan, open_plan

    root = data_root()
    plan = open_plan(load_settings(profile, overrides), root)
    paths, trees = _watched_files(plan), _watched_trees(plan)
    if paths is None or trees is None:
        return
    # Stamps first: what changes while the plan is described is then a change.
    memo: dict[str, Any] = {
        "format": FORMAT,
        "question": _question(root, profile, overrides),
        "trees": {str(tree): _tree_digest(str(tree)) for tree in trees},
        "stamps": {path: _stamp(f"{root}/{path}") for path in paths},
    }
    memo["document"] = describe_plan(profile, overrides)
    try:
        write_atomically(root / MEMO, json.dumps(memo).encode())
    except OSError as error:
        log.debug("the plan is not remembered: %s", error)


def _question(root: Path, profile: str, overrides: list[str]) -> dict[str, Any]:
    own = {name: value for name, value in os.environ.items() if name.startswith("STILLROOM_")}
    return {"root": str(root), "cwd": str(Path.cwd()), "profile": profile, "overrides": overrides, "environment": own}


def _watched_files(plan: "Plan") -> list[str] | None:
    """Return the files that the plan read below the data root; None where the list may be incomplete."""
    paths = ["catalog/records.parquet", "catalog/damaged.json"]
    paths += [f"store/{entry.partition}/{plan.catalog.folder(entry).name}/record.json" for entry in plan.passed]
    for step in plan.steps.values():
        if step.state == "cached" and step.entry is not None:
            folder = f"store/{step.key}/{plan.catalog.folder(step.entry).name}"
            paths += [f"{folder}/record.json", *(f"{folder}/{name}" for name in step.entry.sizes)]
        elif not (plan.store.folder_of_all / step.key).exists():
            paths.append(f"store/{step.key}")  # new, and so while nothing is there
        else:
            return None  # compared with past records: too many ways to change
    return paths


def _watched_trees(plan: "Plan") -> Iterable[Path] | None:
    """Folders and files outside the store; None where portraits come from a folder."""
    from data_catalog.config.places import find_path
    from data_catalog.config.styles import styles_folder
    from models.zoo import zoo

    trees = {PROJECT / name for name in CODE} | {styles_folder(plan.settings), plan.store.root / "catalog" / "code"}
    source = plan.settings.portraits.source
    if source != "procedural":
        if not find_path(source).is_file():
            return None
        trees.add(find_path(source))
    for row in zoo.describe(plan.settings.world):
        path = Path(row["source"]).expanduser()
        trees.add(path if path.is_absolute() else PROJECT / path)
    for stage in plan.stages:
        for step in plan.by_stage[stage.name]:
            trees.update(stage.sources(plan.settings, step.partition).values())
    return sorted(tree.absolute() for tree in trees)


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116 - tens of thousands of them
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def _tree_digest(tree: str) -> str:
    """Digest of the names and stamps of all files below a folder, or of one file."""
    found = [(tree, _stamp(tree) if not os.path.isdir(tree) else None)]  # noqa: PTH112
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        found += [(f"{folder}/{name}", _stamp(f"{folder}/{name}")) for name in sorted(names)]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
