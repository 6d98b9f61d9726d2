"""Read a profile and its overrides; every mistake names the file and the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROFILES, read_argument, shown_path
from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.config.text_files import read_text

# Origin of each value on its way to the settings, by the path of its keys.
Origins = dict[tuple[str, ...], str]


class _UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML loader that rejects equal keys; YAML itself keeps the last one without a word."""


def _unique_mapping(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *name`: the keys beside it replace those of the other
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, list | dict) and key in seen:
            problem = f"the key '{key}' occurs twice"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen.add(str(key) if isinstance(key, list | dict) else key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def list_profiles(folder: Path = PROFILES) -> list[str]:
    """Names of the profiles there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_settings(profile: str, overrides: Sequence[str] = (), folder: Path = PROFILES) -> Settings:
    """Defaults, then the profile, then the overrides in their order."""
    path = folder / f"{profile}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", profile) or not path.is_file():
        raise UserError(
            f"there is no profile '{profile}'",
            folder=shown_path(folder),
            profiles=", ".join(list_profiles(folder)) or "none",
            hint=did_you_mean(profile, list_profiles(folder)).removeprefix("; ") or None,
        )
    document = read_yaml_mapping(path)
    origins: Origins = {}
    _check_keys(document, Settings, shown_path(path), (), origins)
    is_rendered = (document.get("portraits") or {}).get("source", PROCEDURAL) == PROCEDURAL
    for override in overrides:
        _apply_override(document, override, origins)
    _take_whole(document, is_rendered and origins.get(("portraits", "count")) == shown_path(path))
    document["profile"] = profile
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise _bad_value(error, origins, shown_path(path)) from None


def with_profile(command: str, profile: str) -> str:
    """Return a command as it is typed for a profile."""
    return command if profile == Settings().profile else f"{command} --profile {profile}"


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; an empty file is an empty mapping."""
    try:
        document = yaml.load(read_text(path), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{shown_path(path)}{where}: this is not YAML: {problem}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UserError(f"{shown_path(path)}: expected keys with values", found=type(document).__name__)
    return {str(key): value for key, value in document.items()}


def written_value(path: Path, keys: Sequence[str | int]) -> Any:
    """Return a value of a YAML file as it is written, a scalar as its text; None where the keys lead nowhere."""
    value = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    try:
        for key in keys:
            value = value[key]
    except (KeyError, IndexError, TypeError):
        return None
    return value


def cut_by_comment(path: Path) -> str:
    """Return a text in a YAML file that a `#` without a space behind it cuts off, with what is cut; or ""."""
    text = read_text(path)
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.end_mark
        if isinstance(event, yaml.ScalarEvent) and event.style is None and event.value and mark is not None:
            rest = text[mark.index :].partition("\n")[0]
            if re.match(r"\s+#[^\s#]", rest):
                return f"{event.value}{rest}"
    return ""


def _take_whole(document: dict[str, Any], of_rendered: bool) -> None:
    """Take a folder or zip whole where no count is given.  of_rendered: it is that of a profile's rendered heads."""
    portraits = document.get("portraits")
    if isinstance(portraits, dict) and portraits.get("source", PROCEDURAL) != PROCEDURAL:
        portraits |= {} if "count" in portraits and not of_rendered else {"count": None}


def _apply_override(document: dict[str, Any], override: str, origins: Origins) -> None:
    """Put `stage.key=value` into the document, the value read as YAML."""
    override = read_argument(override)
    label = f"--set {override}"
    name, equals, text = override.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise UserError(f"{label}: expected stage.key=value", hint="for example --set edit.steps=30")
    try:
        # *.png would be YAML's reference to a value that is not there.
        value = text if text.startswith("*") else yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        hint = "quote it: stage.key='\"...\"'"
        raise UserError(f"{label}: the value is not YAML", value=text, hint=hint) from None
    nested: Any = value
    for key in reversed(keys):
        nested = {key: nested}
    if len(keys) == 1 and _section_of(Settings, keys[0]) is not None and not isinstance(value, dict):
        raise UserError(f"{label}: '{keys[0]}' is a section", hint=f"--set {keys[0]}.KEY=VALUE")
    _check_keys(nested, Settings, label, (), origins)
    target = document
    for key in keys[:-1]:
        if not isinstance(target.get(key), dict):
            target[key] = {}
        target = target[key]
    target[keys[-1]] = value


def _check_keys(given: Any, model: type[BaseModel], label: str, path: tuple[str, ...], origins: Origins) -> None:
    """Refuse unknown keys, and note the origin of each known one."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise UserError(f"{label}, {'.'.join(path)}: expected keys with values, found {given!r}")
    for key, value in given.items():
        if key not in model.model_fields or (key == "profile" and not path):
            known = [name for name in model.model_fields if path or name != "profile"]
            where = f"{label}, {'.'.join(path)}" if path else label
            guess = did_you_mean(str(key), known)
            hint = None if guess else f"known keys: {', '.join(known)}"
            raise UserError(f"{where}: unknown key '{key}'{guess}", hint=hint)
        origins[(*path, key)] = label
        section = _section_of(model, key)
        if section is not None:
            _check_keys(value, section, label, (*path, key), origins)


def _section_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the model behind a field if the field is a section, else None."""
    if key not in model.model_fields:
        return None
    annotation = model.model_fields[key].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def did_you_mean(word: str, known: list[str]) -> str:
    """End a message about an unknown word with the known one that is like it; empty where none is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _bad_value(error: ValidationError, origins: Origins, default: str) -> UserError:
    """Turn pydantic's first complaint into a message for the user."""
    first = error.errors()[0]
    path = tuple(str(part) for part in first["loc"])
    origin = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), default)
    message = first["msg"][0].lower() + first["msg"][1:]
    hint = "quote the text: '\"no\"', '\"12\"'" if first["type"] == "string_type" else None  # YAML reads no as False
    return UserError(f"{origin}, {'.'.join(path)}: {message}", found=repr(first.get("input")), hint=hint)
