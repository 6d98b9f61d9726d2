"""Pieces of HTML for the tabs: pictures with captions, notes, files to save. All text is escaped."""

import base64
from html import escape

import numpy as np

from data_catalog.config.errors import UserError
from tasks.pictures.inline import embed_picture

KINDS = {".png": "image/png", ".zip": "application/zip", ".mp4": "video/mp4", ".glb": "model/gltf-binary"}


def figure(picture: np.ndarray, caption: str, name: str = "") -> str:
    """A picture (H, W, 3) uint8 as a square with its caption. name: a class, for the style sheet."""
    image = f'<img src="{embed_picture(picture)}" alt="{escape(caption)}">'
    return f'<figure class="shot {escape(name)}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def warning(text: str) -> str:
    """Return a sentence that nobody should miss, about a result that is there."""
    return f'<p class="problem warning" role="status">{escape(text)}</p>'


def problem(error: UserError) -> str:
    """Return the mistake, the expected input and the next step, for the page's user."""
    details = [text for text in (error.fields.get("expected"), error.fields.get("detail"), error.hint) if text]
    text = error.message[:1].upper() + error.message[1:]
    more = f"<span>{escape(': '.join(details))}</span>" if details else ""
    return f'<p class="problem" role="alert">{escape(text)}.{more}</p>'


def file(data: bytes, name: str) -> str:
    """A link that saves a file, below its film where it is one."""
    kind = KINDS[name[name.rindex(".") :]]
    uri = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    film = f'<video src="{uri}" autoplay loop muted playsinline></video>' if kind.startswith("video/") else ""
    link = f'<a class="save" href="{uri}" download="{escape(name)}">{escape(name)}</a>'
    return f'<div class="saved">{film}<p class="note">Saved as {link}, {_size(len(data))}</p></div>'


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"
