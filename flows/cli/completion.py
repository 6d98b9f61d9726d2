"""Shell completion: words that fit what was typed so far. Imports no engine."""

from collections.abc import Iterable

import typer

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT, data_root

DIGEST_CHARS = 12  # of a completed digest: enough to tell results of one data root apart
STAGES = ("portraits", "align", "prompts", "edit", "score", "select", "teach", "dataset", "distill", "evaluate")


def complete_profile(incomplete: str) -> list[str]:
    """List the profiles."""
    from data_catalog.config.profiles import list_profiles

    return _fitting(list_profiles(), incomplete)


def complete_setting(incomplete: str) -> list[str]:
    """List the settings as `stage.key=`."""
    from data_catalog.config.settings import Section, Settings

    sections = ((name, field.annotation) for name, field in Settings.model_fields.items())
    keys = [
        f"{name}.{key}="
        for name, section in sections
        if isinstance(section, type) and issubclass(section, Section)
        for key in section.model_fields
    ]
    return _fitting(keys, incomplete)


def complete_stage(incomplete: str) -> list[str]:
    """List the stages."""
    return _fitting(STAGES, incomplete)


def complete_style(context: typer.Context, incomplete: str) -> list[str]:
    """List the styles of the chosen profile."""
    from data_catalog.config.profiles import load_settings
    from data_catalog.config.styles import style_paths, styles_folder

    try:
        settings = load_settings(context.params.get("profile") or "demo", context.params.get("overrides") or [])
        return _fitting(style_paths(styles_folder(settings)), incomplete)
    except UserError:  # the command itself will say it
        return []


def complete_partition(incomplete: str) -> list[str]:
    """List stages, and below a stage the partitions that the store holds."""
    store = data_root() / "store"
    stage = incomplete.partition("/")[0]
    if "/" not in incomplete:
        return complete_stage(incomplete)
    # A partition's folder holds one folder for each fingerprint, with its record.
    records = (store / stage).glob("**/record.json") if stage in STAGES else ()
    return _fitting(sorted({path.parents[1].relative_to(store).as_posix() for path in records}), incomplete)


def complete_student(incomplete: str) -> list[str]:
    """List names and digests of students."""
    from data_catalog.products.names import read_names
    from data_catalog.products.students import list_students
    from data_catalog.store.catalog import Catalog
    from data_catalog.store.store import Store

    root = data_root()
    digests = [entry.digest[:DIGEST_CHARS] for entry in list_students(Catalog(Store(root)))]
    return _fitting(["latest", *sorted(read_names(root)), *digests], incomplete)


def complete_dataset(incomplete: str) -> list[str]:
    """List digests of datasets, and the names of the students that learned from them."""
    from data_catalog.products.names import read_names

    root = data_root()
    digests = sorted(path.parent.name for path in (root / "datasets").glob("*/manifest.json"))
    return _fitting(["latest", *sorted(read_names(root)), *digests], incomplete)


def complete_cluster(incomplete: str) -> list[str]:
    """List the clusters."""
    return _fitting(sorted(path.stem for path in (PROJECT / "configs" / "clusters").glob("*.yaml")), incomplete)


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
