"""Students for the page: those of the store and their adapted styles; a few stay loaded."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.config.errors import UserError
from data_catalog.products.keys import STUDENT
from data_catalog.products.names import names_of
from data_catalog.products.students import adapted_styles, student_entry
from data_catalog.store.catalog import Catalog
from data_catalog.workspace import Workspace
from flows.page import examples

if TYPE_CHECKING:
    from tasks.student.api import Student

KEPT = 3  # students in memory; two are compared while a third is edited with
SHORT = 8  # characters of a digest on the page


@dataclass(frozen=True)
class Choice:
    """Student, or an adapted style of one. `key` names it on the page."""

    label: str
    student: str  # digest, or an exported folder
    adapted: str | None = None  # digest of the adapted style
    own: bool = True  # made by the settings that the page was started with

    @property
    def key(self) -> str:
        return f"{self.student}+{self.adapted}" if self.adapted else self.student


class Shelf:
    """Choices of the page, and the last chosen students. Safe to share between threads.

    first: the student that comes first, by the names of `Student.load`.
    """

    def __init__(self, workspace: Workspace, first: str | None = None) -> None:
        self.workspace = workspace
        self.first = first
        self._loaded: OrderedDict[str, Student] = OrderedDict()
        self._lock = threading.Lock()

    def choices(self) -> list[Choice]:
        """List the students, each followed by the styles that it was adapted to.

        The named one comes first, then those that these settings made, and of each kind the newest.
        Raises UserError where there is no student of that name.
        """
        from tasks.datasets.made import is_student_of
        from tasks.student.api import check_folder, is_folder

        settings, root = self.workspace.settings, self.workspace.root
        catalog = Catalog(self.workspace.store)  # one of this call's own: a catalog is not shared between threads
        found: list[Choice] = []
        first = self.first
        if first is not None and is_folder(first, root):
            check_folder(Path(first))
            found, first = [Choice(f"the folder {first}", first)], None
        named = None if first is None else student_entry(catalog, first).digest
        students = [(not is_student_of(catalog, entry, settings), entry) for entry in catalog.history(STUDENT)]
        newest = next((entry.digest for other, entry in students if not other), None)
        for other, entry in sorted(students, key=lambda each: (each[1].digest != named, each[0])):
            kind = "newest student" if entry.digest == newest else "student"
            called, where = ", ".join(names_of(root, entry.digest)) or kind, ", other settings" if other else ""
            label = f"{called} {entry.digest[:SHORT]} · {_when(entry.created)}{where}"
            found.append(Choice(label, entry.digest, own=not other))
            found += [
                Choice(f"adapted to {adapted.style} · {_when(adapted.created)}", entry.digest, adapted.digest)
                for adapted in adapted_styles(catalog)
                if adapted.base == entry.digest
            ]
        return found

    def options(self) -> list[tuple[str, str]]:
        """Return the choices for a menu: label and key."""
        return [(choice.label, choice.key) for choice in self.choices()]

    def open(self, key: str) -> "Student":
        """Return the student of a choice, loaded and warm. The first call for a student takes seconds.

        Raises UserError if the student no longer exists.
        """
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = self._load(key)
            self._loaded.move_to_end(key)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def prompts(self, *keys: str) -> dict[str, str]:
        """Return a prompt for each style that the students of some choices know, by style.

        Those of the settings' styles where a student does not say what it knows.
        """
        known = {style: text for key in reversed(keys) for style, text in self.open(key).prompts.items()}
        return known or examples.prompts(self.workspace.settings)

    def _load(self, key: str) -> "Student":
        from tasks.student.api import Student

        choice = next((choice for choice in self.choices() if choice.key == key), None)
        if choice is None:
            raise UserError("this student is no longer there", hint="load the page again, and choose another")
        student = Student.from_workspace(self.workspace, choice.student, choice.adapted)
        student.warm_up()
        return student


def _when(created: str) -> str:
    """A record's time as a person reads it: 23 Nov 18:05, UTC."""
    moment = datetime.fromisoformat(created)
    return f"{moment.day} {moment:%b %H:%M}"
