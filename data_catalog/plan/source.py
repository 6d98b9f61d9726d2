"""Source digests: did the code behind a stage change in a way that may change its bytes?

All first-party source that a stage's module reaches by import statements, also inside functions, is parsed
and normalised: comments, docstrings, formatting, the order of imports and of functions do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_catalog.config.places import PROJECT
from data_catalog.store.fingerprint import digest_json, write_atomically

PACKAGES = ("flows", "tasks", "models", "data_catalog")
FORMAT = 1  # of the remembered analysis; raised when the normalisation changes

# Modules that cannot change what a stage computes, each with the reason. Their imports are not followed.
WITHOUT_EFFECT = {
    "data_catalog.config.errors": "messages",
    "data_catalog.config.disk_errors": "messages",
    "data_catalog.config.addresses": "refuses a value, changes none",
    "data_catalog.config.places": "where files lie, not what they hold",
    "data_catalog.config.settings": "the values that a stage reads are in its fingerprint",
    "data_catalog.config.profiles": "as the settings",
    "data_catalog.workspace": "as the settings",
    "data_catalog.store.stage": "declarations; a stage's own is in its module",
    "data_catalog.store.record": "describes what was made",
    "data_catalog.store.fingerprint": "the mechanism itself",
    "data_catalog.plan.source": "the mechanism itself",
    "data_catalog.store.store": "the mechanism itself",
    "data_catalog.store.catalog": "the mechanism itself",
    "data_catalog.plan.plan": "the mechanism itself",
    "data_catalog.plan.reasons": "the mechanism itself",
    "data_catalog.store.execute": "the mechanism itself",
    "data_catalog.care.verify": "reads, never writes",
    "tasks.progress": "tells a listener, returns nothing",
}


@dataclass(frozen=True)
class SourceDigest:
    """`digest` of all the code; `definitions` of each function, class and module body, to name changes."""

    digest: str
    definitions: dict[str, str]


@dataclass
class _Module:
    """Imports of a file that may be first-party, and a short digest of each definition."""

    imports: list[str] = field(default_factory=list)
    definitions: dict[str, str] = field(default_factory=dict)


class SourceReader:
    """Digests of modules below `project`. Analyses are remembered by file content in `memory`, if given."""

    def __init__(self, project: Path = PROJECT, memory: Path | None = None) -> None:
        self.project = project
        self.memory = memory
        self.changed = False
        self.modules: dict[str, _Module] = {}
        self._files: dict[str, Path | None] = {}
        self.known: dict[str, Any] = {}
        try:
            stored = json.loads(memory.read_text(encoding="utf-8")) if memory else {}
            self.known = stored["files"] if stored.get("format") == FORMAT else {}
        except (OSError, ValueError, KeyError, AttributeError):
            self.known = {}  # only a memory: the files are parsed again

    def digest(self, roots: Iterable[str], without: Iterable[str] = ()) -> SourceDigest:
        """Digest of all first-party modules that the roots reach, less those `without` effect."""
        skipped = {*WITHOUT_EFFECT, *without}
        waiting, reached = list(roots), set()
        definitions: dict[str, str] = {}
        while waiting:
            name = waiting.pop()
            if name in reached or name in skipped:
                continue
            reached.add(name)
            module = self._read(name)
            if module is not None:
                definitions.update({f"{name}.{part}": value for part, value in module.definitions.items()})
                waiting.extend(module.imports)
        return SourceDigest(digest_json(definitions), definitions)

    def save(self) -> None:
        """Keep the analyses for the next process."""
        if self.memory is not None and self.changed:
            stored = {"format": FORMAT, "files": self.known}
            write_atomically(self.memory, json.dumps(stored, sort_keys=True).encode())
            self.changed = False

    def _read(self, name: str) -> _Module | None:
        if name not in self.modules:
            path = self._file(name)
            if path is None:
                return None
            data = path.read_bytes()
            key = f"{name}:{hashlib.sha256(data).hexdigest()}"
            if key not in self.known:
                # A package's own relative imports start at itself, a module's at its parent.
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                self.known[key] = _analyse(ast.parse(data, str(path)), package)
                self.changed = True
            candidates, definitions = self.known[key]
            imports = [found for found in candidates if self._file(found) is not None]
            self.modules[name] = _Module(imports, definitions)
        return self.modules[name]

    def _file(self, name: str) -> Path | None:
        """The file of a first-party module, or of a loaded one (a stage defined in a test)."""
        if name.partition(".")[0] not in PACKAGES:
            file = getattr(sys.modules.get(name), "__file__", None)
            return Path(file) if file else None
        if name not in self._files:
            base = f"{self.project}/{name.replace('.', '/')}"
            paths = (f"{base}.py", f"{base}/__init__.py")
            # Every name that is imported from a module may be one: hundreds are looked for.
            found = next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113
            self._files[name] = Path(found) if found else None
        return self._files[name]


def _analyse(tree: ast.Module, package: str) -> tuple[list[str], dict[str, str]]:
    """(modules that may be imported, digest per definition) of one parsed file."""
    imports = sorted({name for node in ast.walk(tree) for name in _imported(node, package)})
    definitions: dict[str, str] = {}
    body: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            definitions[node.name] = _digest(node)
        elif isinstance(node, ast.ClassDef):
            definitions.update(_class_digests(node))
        else:
            body.append(node)
    definitions["(module)"] = _digest(ast.Module(body, []))
    return imports, definitions


def _class_digests(node: ast.ClassDef) -> dict[str, str]:
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    names = [method.name for method in methods]
    if len(set(names)) < len(names):  # properties with setters: one name, several functions
        return {node.name: _digest(node)}
    rest = [part for part in node.body if part not in methods]
    # The order of fields is kept in the rest; that of methods does not matter.
    shell = ast.ClassDef(node.name, node.bases, node.keywords, rest, node.decorator_list)
    return {node.name: _digest(shell)} | {f"{node.name}.{method.name}": _digest(method) for method in methods}


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """First-party modules that an import statement may load, their packages included."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, *([node.module] if node.module else [])])
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in names:
        parts = name.split(".")
        if parts[0] in PACKAGES:
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _digest(node: ast.AST) -> str:
    return digest_json(_plain(node))[:16]


def _plain(value: Any) -> Any:
    """A syntax tree as JSON values. Empty fields are left out, since they differ between Python versions."""
    if isinstance(value, ast.AST):
        plain: dict[str, Any] = {"": type(value).__name__}
        for name, child in ast.iter_fields(value):
            if name == "body" and isinstance(child, list):
                child = _without_noise(child)
            if name in ("ctx", "kind", "type_comment") or child is None or child == []:
                continue
            plain[name] = _plain(child)
        return plain
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return value if isinstance(value, str | int | bool) else repr(value)


def _without_noise(body: list[ast.stmt]) -> list[Any]:
    """A body without docstring and type-checking imports, its imports first and sorted."""
    kept: list[Any] = []
    imports: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            imports.update(f"import {alias.name} as {alias.asname}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = f"{'.' * node.level}{node.module or ''}"
            if origin != "__future__":
                imports.update(f"from {origin} import {alias.name} as {alias.asname}" for alias in node.names)
        elif not (_is_docstring(node) or _is_type_checking(node)):
            kept.append(node)
    return [*sorted(imports), *kept]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
