"""The prompt of `stillroom adapt` on its way into the settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.config.errors import UserError
from data_catalog.config.plain_text import bad_character
from data_catalog.config.profiles import load_settings
from flows.run.adaptation import adapt_settings


@given(st.text() | st.sampled_from(["make her a {gold} statue", "🧟 ~ no: # 1", "'\"[b]", "a\nb\tc", "\x85"]))
def test_a_prompt_arrives_as_it_was_typed_or_is_refused(prompt: str) -> None:
    line = " ".join(prompt.split())
    if not line or bad_character(line):
        with pytest.raises(UserError, match=r"the prompt is (empty|not plain text)"):
            adapt_settings([], None, prompt)
        return
    assert load_settings("demo", adapt_settings([], None, prompt)).adapt.prompt == line
