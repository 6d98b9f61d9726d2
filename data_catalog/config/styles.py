"""Style files: one file in the styles folder is one style.

`<slug>.txt` holds instructions, one a line; the first is the seed prompt, lines that start with `#` are
comments.
`<slug>.yaml` may say more: see `StyleFile`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data_catalog.config.errors import UserError
from data_catalog.config.names import EXPECTED_SLUG, allowed_name, is_slug
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.plain_text import not_plain
from data_catalog.config.profiles import cut_by_comment, did_you_mean, read_yaml_mapping, written_value
from data_catalog.config.settings import SelectSettings, Settings, reject_bool
from data_catalog.config.text_files import kind_of, read_text

SUFFIXES = (".txt", ".yaml", ".yml")  # in any case
SHOWN = 200  # characters of a wrong prompt in a message
GATE_NAMES = tuple(n for n in SelectSettings.model_fields if n.startswith(("min_", "max_")) and n != "min_yield")


class StyleFile(BaseModel):
    """Style as its author wrote it.

    `prompts[0]` is the seed prompt, which is paraphrased; the other prompts are used as they are. `train` and `test`
    freeze prompts into a split. The captions describe a portrait before and after the edit, for directional
    CLIP. Guidance scales and gates (such as `min_clip_text`; null opens a gate) replace those of the profile.
    `changes_identity` allows prompts that change the person. `reference_images` are pictures of the style, by
    their paths from this file, for people and for `stillroom edit --reference`; no stage reads them.
    `edits` applies where edits come with the portraits (`edit.source`): the style's name there, or "editor" if the
    editor makes this style's edits all the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    _no_bool = field_validator("*", mode="before")(reject_bool)

    slug: str
    prompts: list[str] = Field(min_length=1)
    train: list[str] = []
    test: list[str] = []
    source_caption: str | None = None
    target_caption: str | None = None
    guidance_scale: float | None = Field(None, ge=1.0)
    image_guidance_scale: float | None = Field(None, ge=1.0)
    gates: dict[str, float | None] = {}
    changes_identity: bool = False
    edits: str | None = None
    reference_images: list[str] = []
    licence: str | None = None

    @field_validator("gates")
    @classmethod
    def _known_gates(cls, gates: dict[str, float | None]) -> dict[str, float | None]:
        for name, limit in gates.items():
            if name not in GATE_NAMES:
                raise ValueError(f"there is no gate '{name}'; gates: {', '.join(GATE_NAMES)}")
            try:
                SelectSettings.model_validate({name: limit})
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors()[0]['msg'].lower()}") from None
        return gates

    @model_validator(mode="before")
    @classmethod
    def _seed_from_train(cls, given: Any) -> Any:
        # A file that lists its training prompts may leave out the seed prompt.
        if isinstance(given, dict) and not given.get("prompts") and given.get("train"):
            return {**given, "prompts": list(given["train"])[:1]}
        return given

    @property
    def seed_prompt(self) -> str:
        return self.prompts[0]


def styles_folder(settings: Settings) -> Path:
    """The folder of the style files."""
    return find_path(settings.prompts.styles_dir)


def style_paths(folder: Path) -> dict[str, Path]:
    """Slug to file, in order of the slugs. Names are checked here, contents by `read_style`."""
    found: dict[str, Path] = {}
    for path in style_files(folder):
        check_style_name(path)
        if path.stem in found:
            raise UserError(
                f"there are two files for the style '{path.stem}'",
                first=shown_path(found[path.stem]),
                second=shown_path(path),
                hint="keep one of them",
            )
        found[path.stem] = path
    return dict(sorted(found.items()))


def style_files(folder: Path) -> list[Path]:
    """List what has the suffix of a style file, by name."""
    if not folder.is_dir():
        raise UserError(
            f"the styles folder {shown_path(folder)} does not exist",
            hint="set prompts.styles_dir, or make the folder",
        )
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    except OSError as error:
        raise UserError(f"the styles folder {shown_path(folder)} cannot be read", cause=error.strerror) from None


def list_styles(settings: Settings) -> list[str]:
    """Slugs of the styles that the settings choose, sorted."""
    folder = styles_folder(settings)
    known = list(style_paths(folder))
    if not known:
        hint = "write one, such as red-hair.txt with one line: Make the hair red"
        raise UserError(f"there is no style file in {shown_path(folder)}", hint=hint)
    if settings.prompts.styles is None:
        return [slug for slug in known if slug not in settings.prompts.held_out]
    for slug in settings.prompts.styles:
        if slug not in known:
            raise UserError(
                f"prompts.styles: there is no style '{slug}'{did_you_mean(slug, known)}",
                folder=shown_path(folder),
                styles=", ".join(known),
            )
    return sorted(set(settings.prompts.styles))


def style_path(settings: Settings, slug: str) -> Path:
    """The file of one style. Raises KeyError where there is none."""
    path = find_style(settings, slug)
    if path is None:
        raise KeyError(slug)
    return path


def find_style(settings: Settings, slug: str) -> Path | None:
    """Find a style's file, if there is one. The others are not looked at: `list_styles` checks them once."""
    folder = styles_folder(settings)
    usual = (folder / f"{slug}{suffix}" for suffix in SUFFIXES)
    found = next((path for path in usual if path.is_file()), None)
    if found is not None or not folder.is_dir():
        return found
    return next((path for path in style_files(folder) if path.stem == slug), None)


def style_gates(settings: Settings, slug: str) -> SelectSettings:
    """The settings of `select` for one style: the profile's, with the gates that the style's file sets."""
    path = find_style(settings, slug)
    gates = read_style(path).gates if path is not None else {}
    return settings.select.model_copy(update=dict(gates)) if gates else settings.select


def read_style(path: Path) -> StyleFile:
    """Read and check a style file."""
    check_style_name(path)
    if path.suffix.lower() != ".txt":
        return _read_yaml_style(path)
    return _checked(path, {"prompts": prompt_lines(read_text(path))})


def prompt_lines(text: str) -> list[str]:
    """Return the prompts of a `.txt` file: its lines, without comments and empty ones."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def style_text(prompt: str) -> tuple[str, str]:
    """Return suffix and text of the style file from which a prompt reads back as it is."""
    text = f"{prompt}\n"
    if prompt_lines(text) == [prompt] and not prompt.startswith("\ufeff"):  # a byte order mark
        return ".txt", text
    return ".yaml", yaml.safe_dump({"prompts": [prompt]}, allow_unicode=True, width=math.inf)


def _read_yaml_style(path: Path) -> StyleFile:
    document = {key: value for key, value in read_yaml_mapping(path).items() if not key.startswith("x-")}
    known = [name for name in StyleFile.model_fields if name != "slug"]
    for key in document:
        if key not in known:
            message = f"{shown_path(path)}: unknown key '{key}'{did_you_mean(key, known)}"
            raise UserError(message, known=", ".join(known))
    cut = cut_by_comment(path)
    if cut:
        hint = f"quote it: {json.dumps(cut, ensure_ascii=False)}; or put a space behind the #"
        raise UserError(f"{shown_path(path)}: YAML reads a text from its # on as a comment", found=cut, hint=hint)
    return _checked(path, document)


def _checked(path: Path, document: dict[str, Any]) -> StyleFile:
    if not document.get("prompts") and not document.get("train"):
        raise UserError(
            f"the style file {shown_path(path)} holds no prompt",
            expected="an instruction on its first line, such as: Turn it into a bronze statue",
        )
    try:
        style = StyleFile.model_validate({**document, "slug": path.stem})
    except ValidationError as error:
        raise _bad_value(path, error) from None
    for name in ("prompts", "train", "test"):
        for prompt in getattr(style, name):
            wrong = not_plain(" ".join(prompt.split()))
            if wrong or not prompt.strip():
                raise UserError(f"{shown_path(path)}, {name}: {wrong or 'a prompt is empty'}", prompt=prompt[:SHOWN])
    for prompt in set(style.train) & set(style.test):
        raise UserError(f"{shown_path(path)}: a prompt is in both train and test", prompt=prompt)
    for name in style.reference_images:
        if not (path.parent / name).is_file():
            raise UserError(f"{shown_path(path)}, reference_images: there is no file {name}", folder=path.parent)
    return style


def _bad_value(path: Path, error: ValidationError) -> UserError:
    """Return the message for the first wrong value: as it is written, and what YAML makes of it."""
    first = error.errors()[0]
    keys, value = first["loc"], first.get("input")
    where = f"{shown_path(path)}, {'.'.join(str(key) for key in keys)}: {first['msg'].lower()}"
    written = path.suffix.lower() != ".txt" and written_value(path, keys)
    if first["type"] != "string_type" or (value is None and not written):
        example = 'a list: prompts: ["make her a porcelain doll"]' if first["type"] == "list_type" else None
        return UserError(where, found=repr(value), hint=example)
    if not isinstance(written, str):
        return UserError(where, found=json.dumps(value, ensure_ascii=False, default=str), hint=_QUOTE)
    kind = _KINDS.get(type(value).__name__, type(value).__name__)
    return UserError(where, found=f"{written}, which YAML reads as {kind}", hint=f"quote it: {json.dumps(written)}")


_QUOTE = 'quote the text: a colon, a bracket or a dash in it is YAML\'s: "make her: a doll"'
_KINDS = {"bool": "yes or no", "int": "a number", "float": "a number", "date": "a date", "datetime": "a time"}
_KINDS |= {"NoneType": "nothing", "dict": "keys with values", "list": "a list"}


def check_style_name(path: Path) -> None:
    """Refuse a style file that is no file, or is not named by a slug; the message suggests a name."""
    if not is_slug(path.stem):
        raise UserError(
            f"the style file {shown_path(path)} is not named by a slug",
            found=path.stem,
            expected=EXPECTED_SLUG,
            hint=f"rename it to {allowed_name(path.stem)}{path.suffix.lower()}",
        )
    kind = kind_of(path)
    if kind != "a file":
        raise UserError(f"the style file {shown_path(path)} cannot be read: it is {kind}", expected="a file of text")
