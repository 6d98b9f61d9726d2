"""Checks of a prompt: it must not hide or harm the face, ask for another person, or name people.

Word lists instead of a language model: the answer is always the same and needs no download. They err on the side of
refusing, since another paraphrase is cheap.
"""

from __future__ import annotations

import re

from data_catalog.config.plain_text import markup_in
from data_catalog.config.styles import StyleFile
from tasks.language.wording import normalise

_WHOSE = r"(?:his|her|their|its|the|(?:the|this)\s+person's)\s+(?:whole\s+|entire\s+)?"
# The teacher needs a frontal face in the portrait's own camera; the other topics belong in no dataset.
NOT_FACE_SAFE = {
    "nudity": r"\b(?:naked|nud(?:e|ity)|topless|bare[- ]chested|undress\w*|sex(?:y|ual\w*)|erotic\w*|porn\w*)\b",
    "gore": r"\b(?:decapitat\w*|behead\w*|headless|mutilat\w*|dismember\w*|disembowel\w*|gor(?:e|y))\b",
    "the face is hidden": rf"\b(?:hid(?:e|es|ing)|cover(?:s|ing)?|conceal\w*|blur|obscure|erase|remove|delete)\s+"
    rf"{_WHOSE}(?:face|head)\b|\bfaceless\b|\bfrom behind\b|\bback of {_WHOSE}head\b|"
    r"\bface (?:is |was )?(?:hidden|covered|obscured)\b",
    "the head or the camera turns": rf"\b(?:turn|rotate|tilt|twist)\w*\s+{_WHOSE}(?:head|face)\s+"
    r"(?:away|around|left|right|sideways|up|down|to the (?:left|right|side))\b|\b(?:in|side) profile\b|"
    r"\b(?:profile|side) view\b|\bupside down\b|\bfrom (?:above|below|the side)\b|\bfull[- ]body\b|\bzoom (?:in|out)\b",
}
CHANGES_IDENTITY = (
    r"\b(?:some(?:one|body) else|(?:another|a (?:completely |totally )?(?:different|new)) "
    r"(?:person|human|man|woman|boy|girl|face|identity)|(?:face|gender|race)[- ]swap\w*|"
    rf"swap\w*\s+(?:{_WHOSE})?(?:faces?|heads?|genders?)|change\s+{_WHOSE}(?:gender|sex|race|ethnicity|identity)|"
    rf"replace\s+{_WHOSE}(?:face|head)\s+with\s+(?:the (?:face|head)|that) of)\b"
)
# Capitalised words that name no person: adjectives of places and times, brands of looks.
_NO_PERSON = """
i i'd i'm i'll i've english british irish scottish celtic french german italian spanish greek roman etruscan
egyptian african american mexican aztec mayan inca asian chinese japanese korean indian persian arabian
ottoman turkish russian nordic norse scandinavian viking dutch flemish venetian byzantine european western
eastern victorian edwardian georgian elizabethan tudor medieval gothic baroque rococo renaissance romantic
impressionist expressionist cubist surrealist art deco nouveau pop bauhaus ukiyo christmas halloween easter
hollywood bollywood broadway disney pixar dreamworks ghibli lego minecraft marvel photoshop polaroid kodak
instagram tv gi ai
"""
_WELL_KNOWN = """
michelangelo donatello rodin bernini rembrandt vermeer gogh picasso monet manet warhol dali kahlo klimt
botticelli caravaggio titian munch banksy matisse cezanne hokusai leonardo einstein newton darwin tesla
napoleon cleopatra caesar lincoln churchill gandhi hitler stalin lenin mandela trump obama biden putin merkel
musk zuckerberg elvis beyonce monroe chaplin audrey hepburn schwarzenegger dicaprio beckham ronaldo messi
"""
NO_PERSON, WELL_KNOWN = frozenset(_NO_PERSON.split()), frozenset(_WELL_KNOWN.split())


def unfit(text: str, style: StyleFile) -> str:
    """Return the reason why a prompt does not fit a style, or ""."""
    danger = not_face_safe(text)
    if danger:
        return f"not face-safe: {danger}"
    other = "" if style.changes_identity else changes_identity(text)
    if other:
        return f"changes who it is: '{other}'"
    own = " ".join((*style.prompts, *style.train, *style.test))
    markup = next((each for each in markup_in(text) if each not in own), "")
    if markup:
        return f"markup: {markup}"
    names = people_named(text, style)
    return f"names a person: {', '.join(names)}" if names else ""


def not_face_safe(text: str) -> str:
    """Return the danger to the face in a prompt, or ""."""
    return next((what for what, words in NOT_FACE_SAFE.items() if re.search(words, text, re.IGNORECASE)), "")


def changes_identity(text: str) -> str:
    """Return the words that ask for another person, or ""."""
    found = re.search(CHANGES_IDENTITY, text, re.IGNORECASE)
    return found[0] if found else ""


def people_named(text: str, style: StyleFile | None = None) -> list[str]:
    """Return words that look like names of people and are not in the style's own file.

    A capital letter inside a sentence marks a name, unless the word is known to name something else. Where every word
    has one, only well-known names count.
    """
    lines = [*style.prompts, *style.train, *style.test] if style else []
    said = set(normalise(" ".join(lines)).split()) | NO_PERSON
    words = [(m[0], _starts_sentence(text, m.start())) for m in re.finditer(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?", text)]
    inside = [word for word, starts in words if not starts]
    capitals = {word for word in inside if word[0].isupper() and not (word.isupper() and len(word) > 1)}
    if len(inside) > 3 and len(capitals) > len(inside) / 2:
        capitals = set()
    names = []
    for word, _ in words:
        plain = re.sub(r"['\u2019]s$", "", word.casefold())
        if plain not in said and (word in capitals or plain in WELL_KNOWN) and word not in names:
            names.append(word)
    return names


def _starts_sentence(text: str, position: int) -> bool:
    before = text[:position].rstrip(" \"'(\u201c\u2018")
    return not before or before[-1] in ".!?:;"
