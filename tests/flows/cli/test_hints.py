"""Commands that messages print are ones that can be typed."""

import ast
import re
from pathlib import Path

import typer
from typer.core import TyperGroup

from data_catalog.config.places import PROJECT
from flows.cli.commands import app
from flows.run.engine import FLOWS

TYPED = re.compile(r"\bstillroom ((?:[a-z][a-z-]*)(?: \S+)*)")
PACKAGES = ("flows", "tasks", "models", "data_catalog")


def texts(path: Path) -> set[str]:
    """Return the texts of a module, docstrings apart; a value that is put in is an X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = [node for node in ast.walk(tree) if not isinstance(node, ast.Expr)]
    return {
        "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
        for node in said
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.JoinedStr) or (isinstance(child, ast.Constant) and isinstance(child.value, str))
        for parts in [child.values if isinstance(child, ast.JoinedStr) else [child]]
    }


def problem(words: list[str]) -> str | None:
    """Say what of a command line there is not; None where it can be typed."""
    command = typer.main.get_command(app)
    while words and isinstance(command, TyperGroup) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if command.name == "stillroom":
        return "command"
    if command.name == "run" and words and words[0] not in (*FLOWS, "X", "--take-over"):
        return "flow"
    known = {option for parameter in command.params for option in parameter.opts}
    return next((word for word in words if word.startswith("--") and word.strip(",;`'\"") not in known), None)


def test_every_command_in_a_message_exists_with_its_options() -> None:
    found, wrong = 0, []
    for path in (path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")):
        for text in texts(path):
            for match in TYPED.finditer(text):
                words = re.split(r" {2,}|[,;`)] |\n", match[1])[0].strip(".,;`)").split()
                missing = problem([re.sub(r"^X.+", "X", word) for word in words])
                found += 1
                wrong += [f"{path.relative_to(PROJECT)}: stillroom {match[1]}: {missing}"] if missing else []
    assert found > 60
    assert wrong == []
