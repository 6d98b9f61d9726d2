"""The page of the paper profile: every setting in its table has the value that the profile gives it."""

import re
from typing import Any

import yaml

from data_catalog.config.places import PROJECT
from data_catalog.config.profiles import load_settings

PAGE = PROJECT / "docs" / "paper.md"
HEAD = "| statement | profile | whose |"
SETTING = re.compile(r"`([a-z_]+\.[a-z_0-9]+)=([^`]+)`")


def rows(page: str) -> list[list[str]]:
    """The cells of each row of the table, without its head."""
    lines = page[page.index(HEAD) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def read_value(text: str) -> Any:
    """The value of a setting as YAML reads it; 5e-5, too, is a number."""
    try:
        return float(text)
    except ValueError:
        return yaml.safe_load(text)


def wrong_settings(page: str) -> list[str]:
    """Settings in the middle column that the profile has other values for."""
    settings = load_settings("paper").model_dump(mode="json")
    wrong = []
    for row in rows(page):
        for name, text in SETTING.findall(row[1]):
            section, key = name.split(".")
            if settings[section][key] != read_value(text):
                wrong.append(f"{name}={text}, and the profile has {settings[section][key]}")
    return wrong


def test_each_setting_in_the_table_has_the_profiles_value() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not wrong_settings(page)
    assert sum(len(SETTING.findall(row[1])) for row in rows(page)) >= 20


def test_a_wrong_value_in_the_table_is_found() -> None:
    row = "| a | `distill.batch_size=33`, `distill.lr=5e-5`, `distill.patch_rays=null`, `adapt.looks_s=[1]` | b |"
    wrong = wrong_settings(f"{HEAD}\n| --- | --- | --- |\n{row}\n")
    assert [each.split("=")[0] for each in wrong] == ["distill.batch_size", "adapt.looks_s"]


def test_each_row_says_whose_its_choice_is() -> None:
    for row in rows(PAGE.read_text(encoding="utf-8")):
        assert len(row) == 3, row
        assert re.match(r"(the paper's|the public code's|ours)", row[2]), row
