"""The procedural world: 3D heads with known cameras, depth, landmarks and edits (see `render`)."""

from models.procedural.person import Identity, Person, Scene, portrait
from models.procedural.photo import RawPhoto, raw_photo
from models.procedural.render import (
    CANONICAL_LANDMARKS,
    LANDMARK_MODES,
    STYLES,
    Picture,
    changed_mask,
    depths_of,
    landmarks,
    render,
    render_styles,
)

__all__ = [
    "CANONICAL_LANDMARKS",
    "LANDMARK_MODES",
    "STYLES",
    "Identity",
    "Person",
    "Picture",
    "RawPhoto",
    "Scene",
    "changed_mask",
    "depths_of",
    "landmarks",
    "portrait",
    "raw_photo",
    "render",
    "render_styles",
]
