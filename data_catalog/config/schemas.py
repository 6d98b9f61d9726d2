"""JSON Schemas of profiles and style files, by which an editor completes and checks them.

    python -m data_catalog.config.schemas

writes both beside the files that they describe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_catalog.config.places import PROFILES, PROJECT
from data_catalog.config.settings import Settings
from data_catalog.config.styles import GATE_NAMES, StyleFile

PROFILE_SCHEMA = PROFILES / "schema.json"
STYLE_SCHEMA = PROJECT / "configs" / "styles" / "schema.json"


def profile_schema() -> dict[str, Any]:
    """Return the schema of a profile. Its name is that of its file."""
    schema = Settings.model_json_schema()
    del schema["properties"]["profile"]
    return schema


def style_schema() -> dict[str, Any]:
    """Return the schema of a style's YAML file. Its slug is the name of the file, its seed prompt may be in `train`."""
    schema = StyleFile.model_json_schema()
    del schema["properties"]["slug"], schema["required"]
    schema["anyOf"] = [{"required": ["prompts"]}, {"required": ["train"]}]
    schema["patternProperties"] = {"^(x-.*|<<)$": {}}  # merge keys, and what they name
    schema["properties"]["gates"]["propertyNames"] = {"enum": list(GATE_NAMES)}
    return schema


def schema_files() -> dict[Path, str]:
    """Return the text of each schema file."""
    schemas = {PROFILE_SCHEMA: profile_schema(), STYLE_SCHEMA: style_schema()}
    return {path: json.dumps(schema, indent=1) + "\n" for path, schema in schemas.items()}


if __name__ == "__main__":
    for path, text in schema_files().items():
        path.write_text(text, encoding="utf-8")
