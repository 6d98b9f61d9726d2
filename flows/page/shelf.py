"""Students for the page: those of the store and their adapted styles; a few stay loaded."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from data_catalog.products.keys import STUDENT
from data_catalog.products.students import adapted_styles
from data_catalog.store.catalog import Catalog
from data_catalog.workspace import Workspace

if TYPE_CHECKING:
    from tasks.student.api import Student

KEPT = 3  # students in memory; two are compared while a third is edited with
SHORT = 8  # characters of a digest on the page


@dataclass(frozen=True)
class Choice:
    """Student, or an adapted style of one. `key` names it on the page."""

    label: str
    student: str  # digest
    adapted: str | None = None  # digest of the adapted style
    own: bool = True  # made by the settings that the page was started with

    @property
    def key(self) -> str:
        return f"{self.student}+{self.adapted}" if self.adapted else self.student


class Shelf:
    """Choices of the page, and the last chosen students. Safe to share between threads."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._loaded: OrderedDict[str, Student] = OrderedDict()
        self._lock = threading.Lock()

    def choices(self) -> list[Choice]:
        """List the students, each followed by the styles that it was adapted to.

        Those that these settings made come first, and of each kind the newest.
        """
        from tasks.datasets.made import is_student_of

        settings = self.workspace.settings
        catalog = Catalog(self.workspace.store)  # one of this call's own: a catalog is not shared between threads
        students = [(not is_student_of(catalog, entry, settings), entry) for entry in catalog.history(STUDENT)]
        found: list[Choice] = []
        for other, entry in sorted(students, key=lambda each: each[0]):
            kind = "other settings' student" if other else "student" if found else "newest student"
            label = f"{kind} {entry.digest[:SHORT]} · {_when(entry.created)}"
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

    def _load(self, key: str) -> "Student":
        from tasks.student.api import Student

        digest, _, adapted = key.partition("+")
        student = Student.from_workspace(self.workspace, digest, adapted or None)
        student.warm_up()
        return student


def _when(created: str) -> str:
    """A record's time as a person reads it: 23 Nov 18:05, UTC."""
    moment = datetime.fromisoformat(created)
    return f"{moment.day} {moment:%b %H:%M}"
