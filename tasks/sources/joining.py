"""Things that are given about portraits by name, joined with the pictures of a source."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from data_catalog.config.errors import UserError
from tasks.sources.files import Listing, may_read
from tasks.sources.names import LeftOut, counted, join


class About(NamedTuple):
    """Files about the portraits of a source: one of them all, or one of each portrait."""

    file: Path | None
    names: Mapping[str, str]  # by portrait: its name in that file
    files: Mapping[str, Path]  # by portrait: its own file
    left_out: list[LeftOut]

    def sources(self, portraits: Iterable[str], name: str, prefix: str = "") -> dict[str, Path]:
        """Return the files behind these portraits, as a partition's sources: one by the name, or by its portrait."""
        if self.file is not None:
            return {prefix + name: self.file}
        found = {portrait: self.files[portrait] for portrait in portraits if portrait in self.files}
        return {prefix + portrait: path for portrait, path in found.items() if may_read(path)}


def join_file(file: Path, given: Collection[str], listing: Listing | None, noun: str, base: str = "") -> About:
    """Join the names in a file of all pictures; without a listing they are the portraits' own."""
    if listing is None or not given:
        return About(file, {name: name for name in given}, {}, [])
    names, lost = join_portraits(given, listing, noun, f" of {file.name}", base)
    return About(file, names, {}, lost)


def join_files(given: Mapping[str, Path], listing: Listing | None, noun: str) -> About:
    """Join the files of one portrait each, by their names without suffix."""
    if listing is None or not given:
        return About(None, {}, given, [])
    names, lost = join_portraits(given, listing, noun)
    return About(None, {}, {portrait: given[name] for portrait, name in names.items()}, lost)


def join_portraits(
    given: Collection[str], listing: Listing, noun: str, where: str = "", base: str = ""
) -> tuple[dict[str, str], list[LeftOut]]:
    """Join given names with the portraits below `base`: {portrait: given name}, and what joins with nothing.

    noun, where: for messages, such as "label" and " of dataset.json". Raises UserError where nothing joins.
    """
    names = _below(base, listing.names)
    joined = {base + picture: name for picture, name in join(given, names).items()}
    used = set(joined.values())
    lost = [name for name in given if name not in used]
    if lost and listing.others:  # of an edit, or of a picture that the pattern leaves out
        elsewhere = set(join(lost, _below(base, listing.others)).values())
        lost = [name for name in lost if name not in elsewhere]
    said = f"{counted(len(lost), noun, len(given))}{where} name{'s' if len(lost) == 1 else ''} no picture here"
    if lost and len(lost) == len(given):
        raise UserError(
            f"0 of {counted(len(given), noun)}{where} name a picture here",
            named=lost[0],
            pictures=f"{len(names)}, such as {names[0]}" if names else "none",
            hint="names are joined by path, or by a file name that no other picture has",
        )
    return joined, [LeftOut(said, tuple(lost))] if lost else []


def _below(base: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(base) for name in names if name.startswith(base)]
