"""Names that users give: refused where they cannot be, with the nearest one that can."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.config.errors import UserError
from data_catalog.config.names import allowed_name, check_slug, is_slug
from data_catalog.config.profiles import load_settings
from tests.flows.cli.test_cli import stillroom


@given(st.text())
def test_the_nearest_name_is_one(name: str) -> None:
    assert is_slug(allowed_name(name))
    if is_slug(name):
        assert allowed_name(name) == name


@pytest.mark.parametrize(
    ("name", "near"),
    [("Gold Statue", "gold-statue"), ("1920s", "my-1920s"), ("all", "my-all"), ("a/b", "a-b"), ("..", "my"),
     ("gold_statue", "gold-statue"), ("", "my"), ("a" * 41, "a" * 40), ("gold\n", "gold")],
)  # fmt: skip
def test_a_name_that_is_no_slug_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match="cannot be a style's name") as caught:
        check_slug(name)
    assert caught.value.hint == f"for example {near}"


@pytest.mark.parametrize("name", ["../demo", "a" * 5000, "", "demo\n", "a/b", "\udce9"])
def test_a_profile_that_cannot_be_is_said(name: str) -> None:
    with pytest.raises(UserError, match="there is no profile"):
        load_settings(name)


@pytest.mark.parametrize(
    "command",
    [
        ["adapt", "Gold Statue", "--pairs", "x", "--prompt", "x"],
        ["adapt", "Gold Statue"],
        ["styles", "add", "make it gold", "--name", "Gold Statue"],
    ],
)
def test_a_style_that_is_no_slug_is_said_before_any_work(command: list[str], tmp_path: Path) -> None:
    ended = stillroom(*command, root=tmp_path / "data")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: 'Gold Statue' cannot be a style's name\n")
    assert "hint      for example gold-statue" in ended.stderr
    assert not (tmp_path / "data").exists()
