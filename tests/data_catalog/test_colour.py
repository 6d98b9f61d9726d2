"""Pictures of any colour space come out as sRGB, with the values that a browser shows; sRGB keeps its pixels."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from data_catalog.samples.colour import HDR_WHITE, Space, coded_space, to_srgb
from data_catalog.samples.images import Decoded, decode_image, decode_picture
from data_catalog.samples.png import SIGNATURE
from tests.worlds import profiles

RED, GREEN = (230, 40, 30), (30, 200, 60)
P3_RED, ADOBE_GREEN = (211, 61, 46), (115, 199, 75)  # the same colours in these spaces
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3, ADOBE = profiles.screen(profiles.P3, None), profiles.screen(profiles.ADOBE, 563 / 256)


def noise(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def rgb_of(data: bytes) -> np.ndarray:
    """Decode by its bytes and by Pillow's picture, which must agree."""
    decoded = decode_image(data)
    assert isinstance(decoded, Decoded), decoded
    if b"cICP" not in data and b"colrnclx" not in data:  # which Pillow does not tell
        opened = decode_picture(Image.open(io.BytesIO(data)))
        assert isinstance(opened, Decoded), opened
        np.testing.assert_array_equal(opened.rgb, decoded.rgb)
    return decoded.rgb


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(pixels: np.ndarray, *chunks: bytes, kind: int = 2) -> bytes:
    """pixels: (H, W, C) uint8 or uint16.  kind: 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha."""
    height, width = pixels.shape[:2]
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    body = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(body)


def flat(colour: tuple[int, ...], size: int = 16) -> np.ndarray:
    return np.full((size, size, len(colour)), colour, np.uint8)


def icc(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"any\0\0" + zlib.compress(profile))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(("profile", "stored", "seen"), [(P3, P3_RED, RED), (ADOBE, ADOBE_GREEN, GREEN)])
def test_a_profile_is_converted_to_srgb(
    name: str, profile: bytes, stored: tuple[int, ...], seen: tuple[int, ...]
) -> None:
    options = {"quality": 100} if name in ("JPEG", "AVIF") else {"lossless": True} if name == "WEBP" else {}
    rgb = rgb_of(encoded(Image.fromarray(flat(stored)), name, icc_profile=profile, **options))
    np.testing.assert_allclose(rgb[8, 8], seen, atol=4 if name in ("JPEG", "AVIF") else 2)


@pytest.mark.parametrize("mode", ["P", "RGBA", "RGB;16"])
def test_a_profile_counts_in_any_mode(mode: str) -> None:
    if mode == "RGB;16":
        data = png(flat(P3_RED).astype(np.uint16) * 257, icc(P3))
    else:
        image = Image.fromarray(flat(P3_RED))
        image = image.quantize(4) if mode == "P" else image.convert(mode)
        if mode == "RGBA":
            image.paste((*P3_RED, 0), (0, 0, 4, 4))
            image.paste((*P3_RED, 128), (4, 0, 8, 4))
        data = encoded(image, "PNG", icc_profile=P3)
    rgb = rgb_of(data)
    np.testing.assert_allclose(rgb[12, 12], RED, atol=1)
    if mode == "RGBA":  # the page is white in sRGB
        np.testing.assert_array_equal(rgb[1, 1], [255, 255, 255])
        np.testing.assert_allclose(rgb[1, 5], (np.array(RED) * 128 + 255 * 127) / 255, atol=1)


def test_grey_is_converted_by_a_profile_of_grey() -> None:
    """Linear light of a half is level 188 of sRGB."""
    linear = profiles.grey(1.0)
    assert rgb_of(encoded(Image.new("L", (8, 8), 128), "PNG", icc_profile=linear))[0, 0].tolist() == [188] * 3
    data = png(np.full((8, 8, 1), 32896, np.uint16), icc(linear), kind=0)
    assert rgb_of(data)[0, 0].tolist() == [188] * 3
    dark = png(np.full((8, 8, 1), 380, np.uint16), icc(linear), kind=0)
    np.testing.assert_allclose(rgb_of(dark)[0, 0], 17, atol=1)  # a table of lcms would make it 9
    grey_alpha = png(np.full((8, 8, 2), (128, 255), np.uint8), icc(linear), kind=4)
    assert rgb_of(grey_alpha)[0, 0].tolist() == [188] * 3


def test_inks_are_shown_by_their_profile_and_without_one_as_ideal_inks() -> None:
    lab = np.zeros((2, 2, 2, 2, 3))
    lab[0, 0, 0, 0] = (100, 0, 0)
    lab[1, 0, 0, 0] = (55, -37, -50)  # cyan as printed
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    profile = profiles.inks(lab)
    to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    printed = ImageCms.applyTransform(Image.new("LAB", (1, 1), (140, 128 - 37, 128 - 50)), to_rgb).getpixel((0, 0))
    for name in ("TIFF", "JPEG"):  # Adobe's JPEGs store inks upside down
        rgb = rgb_of(encoded(cyan, name, icc_profile=profile))
        np.testing.assert_allclose(rgb[8, 8], printed, atol=3)
        np.testing.assert_allclose(rgb_of(encoded(cyan, name))[8, 8], (0, 255, 255), atol=2)
    white = rgb_of(encoded(Image.new("CMYK", (16, 16)), "TIFF", icc_profile=profile))
    np.testing.assert_array_equal(white[0, 0], [255, 255, 255])


def test_lab_pixels_are_read() -> None:
    image = Image.new("LAB", (8, 8), (round(54.3 * 2.55), 128 + 81, 128 + 70))
    np.testing.assert_allclose(rgb_of(encoded(image, "TIFF"))[0, 0], (255, 0, 0), atol=6)


@pytest.mark.parametrize("profile", [SRGB_PROFILE, profiles.screen(((0.64, 0.33), (0.3, 0.6), (0.15, 0.06)), None)])
def test_srgb_keeps_its_pixels(profile: bytes) -> None:
    pixels = noise()
    np.testing.assert_array_equal(rgb_of(encoded(Image.fromarray(pixels), "PNG", icc_profile=profile)), pixels)
    notes = (
        [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))],  # sRGB comes before
        [chunk(b"gAMA", struct.pack(">I", 45_455)), chunk(b"cHRM", struct.pack(">8I", *SRGB_CHRM))],
        [chunk(b"cICP", bytes([1, 13, 0, 1])), icc(P3)],
        [chunk(b"cICP", bytes([1, 1, 0, 1]))],
    )
    for chunks in notes:
        np.testing.assert_array_equal(rgb_of(png(pixels, *chunks)), pixels)


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", P3[:200], P3[:-300], P3[:36] + b"xxxx" + P3[40:], profiles.grey(1.0), bytes(200)],
)
def test_a_profile_that_is_broken_or_of_another_mode_is_ignored(profile: bytes) -> None:
    pixels = noise()
    np.testing.assert_array_equal(rgb_of(png(pixels, icc(profile))), pixels)
    grey_level = rgb_of(encoded(Image.new("L", (4, 4), 90), "PNG", icc_profile=P3))
    assert grey_level[0, 0].tolist() == [90] * 3
    cmyk = rgb_of(encoded(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF", icc_profile=P3))
    assert cmyk[0, 0].tolist() == [0, 255, 255]


SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_CHRM = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def test_notes_of_a_png_about_its_colours_count() -> None:
    gamma, p3 = chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"cHRM", struct.pack(">8I", *P3_CHRM))
    assert rgb_of(png(flat((128, 128, 128)), gamma))[0, 0].tolist() == [188] * 3
    assert rgb_of(png(flat((128,)), gamma, kind=0))[0, 0].tolist() == [188] * 3
    assert rgb_of(png(np.full((4, 4, 1), 100, np.uint16), gamma, kind=0))[0, 0].tolist() == [5] * 3
    np.testing.assert_allclose(rgb_of(png(flat(P3_RED), p3))[0, 0], RED, atol=1)
    np.testing.assert_allclose(rgb_of(png(flat(P3_RED), chunk(b"cICP", bytes([12, 13, 0, 1]))))[0, 0], RED, atol=1)
    np.testing.assert_allclose(rgb_of(png(flat(P3_RED), icc(P3), gamma))[0, 0], RED, atol=1)  # a profile comes before
    pq = chunk(b"cICP", bytes([9, 16, 0, 1]))
    white = round(255 * 0.5807)  # PQ of 203 cd/m2
    assert rgb_of(png(flat((white, white, white)), pq))[0, 0].min() > 245


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "PNG"])
def test_a_camera_that_notes_adobe_rgb_is_believed(name: str) -> None:
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}, "PNG": {}}[name]
    for noted, rules, expected in ((0xFFFF, "R03", GREEN), (2, None, GREEN), (1, "R98", ADOBE_GREEN)):
        exif = Image.Exif()
        camera = exif.get_ifd(0x8769)
        camera[0xA001] = noted
        if rules is not None:
            camera[0xA005] = {1: rules}
        rgb = rgb_of(encoded(Image.fromarray(flat(ADOBE_GREEN)), name, exif=exif.tobytes(), **options))
        np.testing.assert_allclose(rgb[8, 8], expected, atol=3)


def test_an_avif_that_notes_its_primaries_is_converted() -> None:
    data = encoded(Image.fromarray(flat(P3_RED)), "AVIF", quality=100)
    place = data.index(b"colrnclx") + 8
    assert data[place : place + 2] == b"\0\1"
    np.testing.assert_allclose(rgb_of(data)[8, 8], P3_RED, atol=3)
    display_p3 = data[:place] + b"\0\x0c" + data[place + 2 :]
    np.testing.assert_allclose(rgb_of(display_p3)[8, 8], RED, atol=4)


def test_light_is_converted_by_hand_computed_values() -> None:
    np.testing.assert_array_equal(to_srgb(flat((100, 200, 50)), Space()), flat((100, 200, 50)))
    # BT.2020's green lies outside of sRGB: the other two would be negative.
    np.testing.assert_array_equal(to_srgb(flat((0, 255, 0)), coded_space(9, 14))[0, 0], [0, 255, 0])
    wide = to_srgb(flat((255, 255, 255)), coded_space(11, 13))
    np.testing.assert_array_equal(wide[0, 0], [255, 255, 255])  # white stays white, though DCI's is another
    levels = np.arange(256, dtype=np.uint16)
    ramp = np.repeat((levels * 257)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(to_srgb(ramp, Space())[0, :, 0], levels)


def test_hdr_keeps_what_sdr_shows_and_compresses_what_is_brighter() -> None:
    light = np.array([0.05, 0.2, 0.5, 0.79, 1.0, 2.0, 4.9])  # of reference white
    y = (light * HDR_WHITE / 10_000) ** 0.1593017578125
    pq = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    scene = light / 3.7741181
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 0.1)) + 0.55991073
    hlg = np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
    sdr = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    for code, signal in ((16, pq), (18, hlg)):
        ramp = np.repeat((signal.clip(0, 1) * 65535).round().astype(np.uint16)[None, :, None], 3, axis=2)
        seen = to_srgb(ramp, coded_space(9, code))[0, :, 0]
        np.testing.assert_allclose(seen[:4], sdr[:4], atol=1)
        assert 245 < seen[4] < 252 <= seen[5] < seen[6]
        assert seen[6] >= 254
