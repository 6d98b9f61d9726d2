"""Parameters of the flows as the form of Prefect's pages shows them: described, with choices where there are any.

A parameter that may be left out is None in Python, and an empty field of the form.
"""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from data_catalog.config.profiles import list_profiles


def shown(kind: str, description: str, **more: Any) -> WithJsonSchema:
    """Show a parameter as one field of this JSON type; Prefect would offer `None` beside it."""
    return WithJsonSchema({"type": kind, "description": description, **more})


def listed(description: str, **of: Any) -> WithJsonSchema:
    """Show a parameter as a list of texts. of: further words of the JSON schema about each."""
    return shown("array", description, items={"type": "string", **of})


Profile = Annotated[str, shown("string", "A file of configs/profiles.", enum=list_profiles())]
Overrides = Annotated[
    list[str] | None,
    listed("Settings to change, each STAGE.KEY=VALUE as after --set on the command line: edit.steps=30"),
    Field(json_schema_extra={"title": "set"}),
]
Cluster = Annotated[
    str | None, shown("string", "A file of configs/clusters, or tcp://HOST:PORT; empty: processes of this machine.")
]
Force = Annotated[
    list[str] | None, listed("Stages, stage/style or partitions to make again although they are there: edit/zombie")
]
Only = Annotated[
    list[str] | None,
    listed("Partitions that may be made, as `stillroom retry` names them; empty: all."),
]
DatasetName = Annotated[
    str | None,
    shown("string", "Name or digest (or its beginning) of a dataset, or latest; empty: of the settings."),
]
OtherDataset = Annotated[
    str | None,
    shown("string", "Name or digest of a dataset of other portraits; empty: the student's."),
]
StudentName = Annotated[
    str | None,
    shown("string", "Name or digest (or its beginning) of a student, or latest; empty: of the settings."),
]
RunName = Annotated[str | None, shown("string", "Name of the run in MLflow; empty: its settings.")]
RunNote = Annotated[str | None, shown("string", "Description of the run in MLflow.")]
RunTags = Annotated[list[str] | None, listed("Tags of the run in MLflow, each KEY=VALUE.")]
Seeds = Annotated[int, shown("integer", "Trainings of each arm, which differ in their seed.", minimum=1)]
