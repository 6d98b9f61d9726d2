"""The command line with instant stages: `python -m benchmarks.instant` takes all that `stillroom` takes.

They stand in for `tasks.stages` when that is imported, and not before: a command that needs no stages loads none.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from flows.cli import main


class InsteadOfStages(MetaPathFinder):
    """Finds `tasks.stages` in a file of ours."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "tasks.stages":
            return None
        return importlib.util.spec_from_file_location(name, Path(__file__).with_name("stages_in_place.py"))


if __name__ == "__main__":
    sys.meta_path.insert(0, InsteadOfStages())
    main()
