"""Pieces of HTML for the tabs: pictures with captions, notes, a video. All text is escaped."""

import base64
from html import escape

import numpy as np

from data_catalog.config.errors import UserError
from tasks.pictures.inline import embed_picture


def figure(picture: np.ndarray, caption: str, name: str = "") -> str:
    """A picture (H, W, 3) uint8 as a square with its caption. name: a class, for the style sheet."""
    image = f'<img src="{embed_picture(picture)}" alt="{escape(caption)}">'
    return f'<figure class="shot {escape(name)}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def problem(error: UserError) -> str:
    """Return the mistake, the expected input and the next step, for the page's user."""
    details = [text for text in (error.fields.get("expected"), error.fields.get("detail"), error.hint) if text]
    text = error.message[:1].upper() + error.message[1:]
    more = f"<span>{escape(': '.join(details))}</span>" if details else ""
    return f'<p class="problem" role="alert">{escape(text)}.{more}</p>'


def video(data: bytes, name: str) -> str:
    """An MP4 that plays in a loop, with a link that saves it."""
    uri = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    link = f'<a class="save" href="{uri}" download="{escape(name)}">Download {escape(name)}</a>'
    return f'<div class="turntable"><video src="{uri}" autoplay loop muted playsinline></video>{link}</div>'
