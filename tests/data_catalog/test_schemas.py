"""The schemas beside profiles and styles are those of the code, and each file names its own."""

from pathlib import Path

import pytest

from data_catalog.config.places import PROJECT
from data_catalog.config.schemas import PROFILE_SCHEMA, STYLE_SCHEMA, profile_schema, schema_files, style_schema
from data_catalog.config.settings import Settings
from data_catalog.config.styles import GATE_NAMES, StyleFile

MODELINE = "# yaml-language-server: $schema="
CONFIGS = PROJECT / "configs"
FILES = [*CONFIGS.glob("profiles/*.yaml"), *CONFIGS.glob("styles/**/*.yaml")]


@pytest.mark.parametrize("path", [PROFILE_SCHEMA, STYLE_SCHEMA], ids=lambda path: path.parent.name)
def test_a_schema_is_current(path: Path) -> None:
    hint = "it is made again by: python -m data_catalog.config.schemas"
    assert path.read_text(encoding="utf-8") == schema_files()[path], hint


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_names_its_schema(path: Path) -> None:
    (line,) = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(MODELINE)]
    named = (path.parent / line.removeprefix(MODELINE)).resolve()
    assert named == (PROFILE_SCHEMA if path.parent.name == "profiles" else STYLE_SCHEMA)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "profiles"], ids=lambda path: path.stem)
def test_a_profile_says_on_line_one_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert not first.startswith(MODELINE)


def test_a_schema_knows_what_a_file_may_say_and_not_what_its_name_says() -> None:
    profile, style = profile_schema(), style_schema()
    assert set(profile["properties"]) == set(Settings.model_fields) - {"profile"}
    assert set(style["properties"]) == set(StyleFile.model_fields) - {"slug"}
    assert profile["$defs"]["EditSettings"]["additionalProperties"] is False
    assert style["properties"]["gates"]["propertyNames"] == {"enum": list(GATE_NAMES)}
