from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gemix.data.preprocessing.decode import MAX_SIDE, decode_image
from gemix.data.scan import InvalidImageError, ScanFiltered

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def smooth() -> np.ndarray:
    rows, columns = np.mgrid[:40, :50]
    return (rows * 3 + columns * 2).astype(np.uint8)


def colour() -> Image.Image:
    return Image.fromarray(np.stack([GREY, GREY // 2, 255 - GREY], axis=2))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG file by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def deep_colour_png() -> bytes:
    return png(20, 20, 16, 2, (b"\x00" + bytes(range(120))) * 20)


def retyped_tiff(tag: int, kind: int) -> bytes:
    """A TIFF file with another type for the values of one field (TIFF 6.0, section 2)."""
    data = bytearray(encode(Image.fromarray(GREY), "TIFF"))
    first = int.from_bytes(data[4:8], "little") + 2
    fields = [data[at : at + 2] for at in range(first, len(data), 12)]
    data[first + 12 * fields.index(tag.to_bytes(2, "little")) + 2] = kind
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey_files_keep_every_pixel(kind):
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(GREY), kind)), GREY)


def test_grey_in_disguise_is_grey():
    image = Image.fromarray(GREY)
    for mode in ("RGB", "RGBA", "LA", "P"):
        np.testing.assert_array_equal(decode_image(encode(image.convert(mode))), GREY)
    jpeg = decode_image(encode(Image.fromarray(smooth()).convert("RGB"), "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - smooth()).max() <= 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"P5 2 2 255 \x00\x00\x00\x00", "no PNG, JPEG, BMP or TIFF"),
        (b"<html>not found</html>", "no PNG, JPEG, BMP or TIFF"),
        (encode(Image.fromarray(GREY))[:-400], "truncated"),
        (encode(Image.fromarray(GREY), "JPEG")[:-300], "truncated"),
        (encode(Image.fromarray(GREY))[:20], "header is damaged|truncated"),
        (encode(Image.fromarray(GREY.astype(np.uint16) * 256)), "more than 8 bits"),
        (encode(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "more than 8 bits"),
        (encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "more than 8 bits"),
        (deep_colour_png(), "16-bit"),
        (encode(colour()), "colour image"),
        (encode(colour().convert("P")), "colour image"),
        (encode(colour().convert("CMYK"), "JPEG"), "CMYK"),
        (encode(Image.merge("LA", [Image.fromarray(GREY)] * 2)), "transparent"),
        (encode(Image.fromarray(GREY[:3])), "50 x 3 pixels"),
        (encode(Image.new("L", (MAX_SIDE + 1, 20))), f"{MAX_SIDE + 1} x 20"),
        (
            encode(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[colour()]),
            "2 frames",
        ),
    ],
)
def test_unusable_files_are_refused_with_the_reason(data, reason):
    with pytest.raises(InvalidImageError, match=reason):
        decode_image(data)


@pytest.mark.parametrize("kind", [2, 5, 7, 11, 16])  # text, ratio, bytes, float, a huge number
def test_a_tiff_file_whose_offsets_are_no_offsets_is_refused(kind):
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        decode_image(retyped_tiff(273, kind))  # StripOffsets


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(InvalidImageError, match="pixels"):
        decode_image(png(60000, 60000, 8, 0, b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, smooth()),
        (2, smooth()[:, ::-1]),
        (3, np.rot90(smooth(), 2)),
        (4, smooth()[::-1]),
        (6, np.rot90(smooth(), 1)),
        (8, np.rot90(smooth(), -1)),
    ],
)
def test_images_stand_upright_as_their_exif_orientation_says(kind, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation  # Exif 2.3, section 4.6.4
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    options |= {"quality": 100} if kind == "JPEG" else {}
    decoded = decode_image(encode(Image.fromarray(np.ascontiguousarray(stored)), kind, **options))
    assert decoded.shape == smooth().shape
    assert np.abs(decoded.astype(int) - smooth()).max() <= 1


def test_damaged_exif_data_say_nothing_about_the_image():
    data = encode(Image.fromarray(GREY), exif=b"Exif\0\0XX*\0garbage")
    np.testing.assert_array_equal(decode_image(data), GREY)


def test_a_picture_of_one_bit_is_left_out_as_a_mask():
    with pytest.raises(ScanFiltered, match="mask"):
        decode_image(encode(Image.fromarray(GREY > 99)))
