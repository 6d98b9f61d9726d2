"""Templates of pages and cards, and how one is filled in."""

from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent
STEP_LABELS = {"clip": "CLIP"}


def render(template: str, **values: Any) -> str:
    """Fill in a template; an unknown name is an error, not a gap in the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = format_number
    environment.filters["title"] = lambda slug: slug.replace("-", " ").capitalize()
    environment.filters["step"] = lambda name: STEP_LABELS.get(name, name)
    return environment.get_template(template).render(**values)


def format_number(value: float | None, digits: int = 3) -> str:
    """Format a measured value for a reader; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"
