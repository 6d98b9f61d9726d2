"""The form of a run on Prefect's pages: each parameter described, choices offered, and what left it out still taken."""

from typing import Any

import pytest

from data_catalog.config.profiles import list_profiles
from flows.run.engine import FLOWS, load_flow

KINDS = {"profile": "string", "overrides": "array", "force": "array", "student": "string", "seeds": "integer"}


@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_is_one_described_field(name: str) -> None:
    flow = load_flow(FLOWS[name])
    fields: dict[str, Any] = flow.parameters.properties
    assert set(fields) == set(flow.fn.__annotations__) - {"return"}
    for parameter, field in fields.items():
        assert "anyOf" not in field, f"{parameter}: the form would offer None beside it"
        assert field["description"].endswith((".", "edit.steps=30", "edit/zombie")), parameter
        assert field["type"] == KINDS.get(parameter, field["type"])
    assert fields["profile"]["enum"] == list_profiles()
    assert fields["overrides"]["title"] == "set"


def test_a_parameter_that_was_null_before_may_be_null() -> None:
    flow = load_flow(FLOWS["build-dataset"])
    given = dict.fromkeys(flow.parameters.properties) | {"profile": "demo"}
    assert flow.validate_parameters(given) == given


@pytest.mark.parametrize("name", [each for each in FLOWS if each not in ("ablate", "claims")])
def test_a_run_of_a_deployment_has_a_name_a_note_and_tags_as_one_of_the_command_line(name: str) -> None:
    flow = load_flow(FLOWS[name])
    given = {"name": "first try", "note": "Why.", "tags": ["why=baseline"]}
    required = {"style": "zombie"} if name == "adapt-style" else {}
    assert flow.validate_parameters(required | given).items() >= given.items()
    assert flow.parameters.properties["tags"]["type"] == "array"


def test_networks_to_train_are_choices() -> None:
    from tasks.lab.pretraining import recipes

    networks = load_flow(FLOWS["pretrain-embedded"]).parameters.properties["networks"]
    assert networks["items"]["enum"] == list(recipes.NEEDS)
