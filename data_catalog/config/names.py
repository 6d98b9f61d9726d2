"""Names that users give: of styles and of students. One check, with the nearest name that is allowed."""

from __future__ import annotations

import re

from data_catalog.config.errors import UserError

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SLUG_MAX = 40  # characters; portrait id, style, prompt number and attempt share the 96 of a sample's key
ALL = "all"  # the partition of every style
EXPECTED_SLUG = f"lower-case letters, digits, single hyphens, a letter first, at most {SLUG_MAX}"


def is_slug(name: str) -> bool:
    """Whether a name can be that of a style."""
    return SLUG.fullmatch(name) is not None and len(name) <= SLUG_MAX and name != ALL


def check_slug(name: str) -> None:
    """Refuse a style's name that is no slug; the message has the nearest one."""
    if not is_slug(name):
        hint = f"for example {allowed_name(name)}"
        raise UserError(f"'{name}' cannot be a style's name", expected=EXPECTED_SLUG, hint=hint)


def nearest_slug(name: str) -> str:
    """Return a name in the letters of a slug, cut after a word; it may still start with a digit, or be empty."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if len(slug) <= SLUG_MAX else slug[: SLUG_MAX + 1].rpartition("-")[0] or slug[:SLUG_MAX]


def allowed_name(name: str, prefix: str = "my") -> str:
    """Return the nearest slug to any text, with a prefix where it would be none."""
    slug = nearest_slug(name)
    return slug if is_slug(slug) else nearest_slug(f"{prefix}-{slug}")
