"""Check how docstrings open: with a verb or the noun itself. `make lint` runs it over all packages.

    python tests/prose.py

It prints each offender as `file:line: first words`, and exits with 1 if there is one.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PLACES = ("models", "data_catalog", "tasks", "flows", "benchmarks", "tests", "stillroom.py")
FORBIDDEN = re.compile(
    r"(?:What|Of|As|That|Where|How|One|Those|Who|Whom|Whose|Which|Why|When|Whatever|Whoever|Nobody|Another|All of)\b"
    # A noun that is explained by a relative clause: "The file that lists ...", "Everything that ...".
    r"|(?:All|Everything|Every [\w'-]+|The [\w'-]+(?: [\w'-]+)?) (?:that|which|who|whose|whom|what|where)\b"
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings of module, classes, functions and attributes, each with its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text.strip()


def offenders(source: str) -> list[tuple[int, str]]:
    """Line and first words of each docstring with a forbidden opening, in the order of the file."""
    return sorted((line, " ".join(text.split()[:4])) for line, text in docstrings(source) if FORBIDDEN.match(text))


def main() -> None:
    """Check all packages below the working directory."""
    places = [Path(place) for place in PLACES]
    files = sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py")))
    found = [f"{file}:{line}: {words} ..." for file in files for line, words in offenders(file.read_text("utf-8"))]
    if found:
        sys.exit("\n".join([*found, "a docstring opens with a verb or the noun itself"]))


if __name__ == "__main__":
    main()
