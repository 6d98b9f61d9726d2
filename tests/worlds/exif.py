"""Pictures as a camera stores them that is held in another way."""

from PIL import Image

# Undoes what a viewer does for each orientation of EXIF; 1 is upright.
_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def store(upright: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """Return the pixels that lie in the file, and the EXIF that a viewer turns them upright by."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return upright.transpose(_UNDO[orientation]) if orientation in _UNDO else upright, exif
