"""Lines of a build about files that it leaves out, and samples that it rejects. Imports no engine."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.config.settings import Settings
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.stage import Stage

FILE = Path("runs") / "left_out.txt"  # below the data root

Document = dict[str, Any]


def list_left_out(settings: Settings) -> list[Document]:
    """List what the listing of the source already shows will not be taken: a line each, and all names."""
    from tasks.sources.left_out import find_left_out

    return [{"line": each.line, "names": each.shown} for each in find_left_out(settings)]


def tell_left_out(settings: Settings, root: Path) -> Document:
    """Write the whole list, and return its lines and its place; empty where nothing is left out."""
    found, path = list_left_out(settings), root / FILE
    if not found:
        path.unlink(missing_ok=True)
        return {}
    lines = [line for each in found for line in (each["line"], *(f"  {name}" for name in each["names"]))]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
    return {"left_out": [each["line"] for each in found], "left_out_list": shown_path(path)}


def count_reasons(catalog: Catalog, entries: Iterable[Entry]) -> Counter[str]:
    """Count the samples that partitions rejected, by reason."""
    reasons: Counter[str] = Counter()
    for entry in entries:
        if entry.rejected:
            reasons.update(catalog.read(entry).rejected)
    return reasons


def name_reasons(reasons: Counter[str]) -> str:
    """`3 no face found, 2 duplicate`: the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def tell_rejected(catalog: Catalog, entries: Iterable[Entry], snapshot: Path | None) -> Document:
    """Return the counted reasons, and where the list is; empty where nothing was rejected."""
    reasons = name_reasons(count_reasons(catalog, entries))
    place = {"rejected_list": shown_path(snapshot / "rejected.html")} if snapshot else {}
    return {"reasons": reasons} | place if reasons else {}


def check_left(stage: Stage, catalog: Catalog, entries: list[Entry]) -> None:
    """Raise UserError where a stage's partitions hold no sample: the stages after it would have nothing to do."""
    if not entries or any(entry.samples for entry in entries):
        return
    from tasks.tables.rejected import find_example

    examples = (find_example(catalog.folder(entry)) for entry in entries if entry.rejected)
    example = next((each for each in examples if each), None)
    rejected = name_reasons(count_reasons(catalog, entries))
    told = {"rejected": rejected, "example": example, "tables": shown_path(catalog.folder(entries[0]))}
    raise UserError(
        f"nothing is left after the stage {stage.name}: there is no sample to go on with",
        **{name: value for name, value in told.items() if value},
        hint="correct what the reasons name, then the same command; the dataset before stays the latest",
    )
