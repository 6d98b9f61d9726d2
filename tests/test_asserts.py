"""The program does the same under `python -O`, which leaves every assert out."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PURE = {"len", "isinstance", "all", "any", "set"}  # calls that change nothing
FILES = [path for name in ("flows", "tasks", "models", "data_catalog") for path in (PROJECT / name).rglob("*.py")]


def impure(source: str) -> list[str]:
    """Return the asserts that do something beside looking."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            for part in ast.walk(node.test):
                pure = not isinstance(part, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom) and not (
                    isinstance(part, ast.Call) and not (isinstance(part.func, ast.Name) and part.func.id in PURE)
                )
                if not pure:
                    found.append(ast.unparse(node))
    return found


def test_no_assert_of_the_program_does_anything_but_look() -> None:
    assert {str(path): found for path in FILES if (found := impure(path.read_text(encoding="utf-8")))} == {}


def test_no_error_of_an_assert_is_caught() -> None:
    """An error that somebody waits for is raised, with or without -O."""
    catching = [
        path
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and node.type is not None and "AssertionError" in ast.unparse(node.type)
    ]
    assert catching == []


@pytest.mark.parametrize("source", ["assert read(x) == 1", "assert (y := x)", "assert stream.read()"])
def test_what_is_lost_under_optimisation_is_found(source: str) -> None:
    assert impure(source) != []
