"""Portraits and styles that the networks of a world do not know, in lines for the user. Imports no engine."""

from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles, read_style, style_path
from tasks.language.encoder import KNOWN, read_notes, shorten
from tasks.sources.edits import given_style
from tasks.sources.photographs import HEADS_ONLY, beyond_networks


def tell_unknown(settings: Settings) -> list[str]:
    """List what the networks do not know: photographs, and the words of each style that the editor makes."""
    edited = [slug for slug in list_styles(settings) if given_style(settings, slug) is None]
    notes_of = read_notes(settings.world)
    notes = {slug: notes_of(read_style(style_path(settings, slug)).seed_prompt) for slug in edited}
    lines = [HEADS_ONLY] if beyond_networks(settings.world, settings.portraits.source) else []
    lines += [f"style {slug}: {'; '.join(shorten(found))}" for slug, found in notes.items() if found]
    known = any(KNOWN in note for found in notes.values() for note in found)
    return [*lines, KNOWN] if known else lines
