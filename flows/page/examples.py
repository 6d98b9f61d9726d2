"""Examples: portraits and pictures of styles from the procedural world, made when they are first shown."""

from functools import cache

import numpy as np

from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.config.styles import list_styles, read_style, style_path

# Seeds of people in no profile's training (which counts from 0), chosen to differ.
PEOPLE, PHOTOS = (100_005, 100_001, 100_012, 100_003, 100_017), (100_004,)
REFERENCE_PERSON = 100_013
REFERENCES_SHOWN = 6


Example = tuple[np.ndarray, str]  # picture (H, W, 3) uint8, and its name for a screen reader


@cache
def portraits() -> list[Example]:
    """Return portraits, the last ones as from a hand-held camera; 128 px."""
    from models import procedural
    from models.camera import orbit_label
    from models.pixels import to_levels
    from models.procedural.photo import RAW_SIZE_PX, raw_photo

    people = []
    for number, seed in enumerate(PEOPLE):
        label = orbit_label(0.12 * (-1) ** number, 0.03)[0]
        people.append(to_levels(procedural.render(procedural.portrait(seed), label, RAW_SIZE_PX).rgb))
    people += [raw_photo(seed).rgb for seed in PHOTOS]
    return [(rgb, f"person {number}") for number, rgb in enumerate(people, start=1)]


@cache
def references(size: int, styles: tuple[str, ...]) -> list[Example]:
    """Pictures of `size` px of one person in the first of these styles that the procedural world can draw."""
    from models import procedural
    from models.camera import orbit_label
    from models.pixels import to_levels

    person = procedural.portrait(REFERENCE_PERSON)
    known = [style for style in styles if style in procedural.STYLES][:REFERENCES_SHOWN]
    drawn = procedural.render_styles(person, orbit_label(0.0, 0.0)[0], size, [*known])
    return [(to_levels(picture.rgb), style) for picture, style in zip(drawn, known, strict=True)]


def fit(settings: Settings) -> bool:
    """Whether the settings' students know procedural heads."""
    return settings.portraits.source == PROCEDURAL


def prompts(settings: Settings) -> dict[str, str]:
    """Return the first prompt of each of the profile's styles, for a student of which no styles are known."""
    return {slug: read_style(style_path(settings, slug)).seed_prompt for slug in list_styles(settings)}
