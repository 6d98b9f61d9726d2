"""The style and the prompt of `stillroom adapt` on their way into the plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.config.errors import UserError
from data_catalog.config.plain_text import bad_character
from data_catalog.config.profiles import load_settings
from flows.run.adaptation import adapt_settings, adapt_shape


@given(st.text() | st.sampled_from(["make her a {gold} statue", "🧟 ~ no: # 1", "'\"[b]", "a\nb\tc", "\x85"]))
def test_a_prompt_arrives_as_it_was_typed_or_is_refused(prompt: str) -> None:
    line = " ".join(prompt.split())
    if not line or bad_character(line):
        with pytest.raises(UserError, match=r"the prompt is (empty|not plain text)"):
            adapt_settings([], None, prompt)
        return
    assert load_settings("demo", adapt_settings([], None, prompt)).adapt.prompt == line


def test_a_style_without_a_file_and_without_pairs_says_both_ways() -> None:
    shape = adapt_shape("my-look")
    with pytest.raises(UserError, match="there is no style file 'my-look'") as raised:
        shape(load_settings("demo"))
    assert "zombie" in raised.value.fields["styles"]
    assert str(raised.value.hint).startswith("stillroom adapt my-look --pairs FOLDER --prompt TEXT")
    assert shape(load_settings("demo", ["adapt.pairs_folder=/pairs"])).styles == ["my-look"]
    assert adapt_shape("zombie")(load_settings("demo")).styles == ["zombie"]
