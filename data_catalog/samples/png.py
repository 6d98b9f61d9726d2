"""Chunks of a PNG that Pillow does not tell, or refuses a whole picture for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 1 << 24  # bytes
KEPT = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"eXIf")  # ancillary chunks that change what is seen


class Chunk(NamedTuple):
    """Chunk of a PNG; whole: with its length and its checksum."""

    name: bytes
    body: bytes
    whole: bytes

    @property
    def is_critical(self) -> bool:
        return self.name[:1].isupper()

    @property
    def is_sound(self) -> bool:
        return zlib.crc32(self.whole[4:-4]) == int.from_bytes(self.whole[-4:], "big")


def read_chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks that are whole, in their order."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        yield Chunk(data[place + 4 : place + 8], data[place + 8 : end - 4], data[place:end])
        place = end


def read_colour(data: bytes) -> dict[str, Any]:
    """Return `icc_profile` (of any size) and `cicp` (primaries, curve, matrix, range), where they are there."""
    found: dict[str, Any] = {}
    for chunk in read_chunks(data):
        if chunk.name == b"IDAT":
            break
        if chunk.name == b"cICP" and len(chunk.body) == 4 and chunk.is_sound:
            found["cicp"] = tuple(chunk.body)
        if chunk.name == b"iCCP" and chunk.is_sound:
            packed = chunk.body.partition(b"\0")[2][1:]  # a name, 0, the method
            try:
                found["icc_profile"] = zlib.decompressobj().decompress(packed, MAX_PROFILE)
            except zlib.error:
                continue
    return found


def without_extras(data: bytes) -> bytes:
    """Return the PNG without texts and other chunks that are not seen, and without ancillary ones that are damaged."""
    chunks = list(read_chunks(data))
    end = len(SIGNATURE) + sum(len(chunk.whole) for chunk in chunks)
    kept = [chunk.whole for chunk in chunks if chunk.is_critical or (chunk.name in KEPT and chunk.is_sound)]
    return b"".join([SIGNATURE, *kept, data[end:]])


def find_damage(data: bytes) -> str:
    """Name the first critical chunk whose checksum is wrong; "" if there is none."""
    for chunk in read_chunks(data):
        if chunk.is_critical and not chunk.is_sound:
            return f"the checksum of the chunk {chunk.name.decode('latin-1')} is wrong"
    return ""
