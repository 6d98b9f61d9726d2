"""Examples: portraits and pictures of styles from the procedural world, made when the page starts."""

from functools import cache

import numpy as np

from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.config.styles import list_styles, read_style, style_path

# Seeds of people in no profile's training (which counts from 0), chosen to differ.
PEOPLE, PHOTOS = (100_005, 100_001, 100_012, 100_003, 100_017), (100_004,)
REFERENCE_STYLES = ("bronze-statue", "neon", "red-hair", "zombie")
REFERENCE_PERSON = 100_013
PROMPTS_SHOWN = 8


@cache
def portraits() -> list[np.ndarray]:
    """Return portraits, the last ones as from a hand-held camera; (128, 128, 3) uint8."""
    from models import procedural
    from models.camera import orbit_label
    from models.pixels import to_levels
    from models.procedural.photo import RAW_SIZE_PX, raw_photo

    people = []
    for number, seed in enumerate(PEOPLE):
        label = orbit_label(0.12 * (-1) ** number, 0.03)[0]
        people.append(to_levels(procedural.render(procedural.portrait(seed), label, RAW_SIZE_PX).rgb))
    return people + [raw_photo(seed).rgb for seed in PHOTOS]


@cache
def references(size: int) -> list[np.ndarray]:
    """Pictures (size, size, 3) uint8 of one person in several styles."""
    from models import procedural
    from models.camera import orbit_label
    from models.pixels import to_levels

    person = procedural.portrait(REFERENCE_PERSON)
    drawn = procedural.render_styles(person, orbit_label(0.0, 0.0)[0], size, list(REFERENCE_STYLES))
    return [to_levels(picture.rgb) for picture in drawn]


def fit(settings: Settings) -> bool:
    """Whether the settings' students know procedural heads."""
    return settings.portraits.source == PROCEDURAL


def prompts(settings: Settings) -> list[str]:
    """Return the first prompts of the profile's styles."""
    return [read_style(style_path(settings, slug)).prompts[0] for slug in list_styles(settings)][:PROMPTS_SHOWN]
