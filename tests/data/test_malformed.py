"""Hundreds of files that are no usable scan: none stops prepare, each is set aside with reasons."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from gemix.data.config import DataConfig
from gemix.data.prepare import QUARANTINE, prepare_serial
from gemix.data.sources import open_source
from gemix.io.storage import Store

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")

GOOD = 20  # a class
FORMATS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "TIFF": "tif"}
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpg": b"\xff\xd8\xff\xe0", "bmp": b"BM", "tif": b"II*\0"}


def noise(rng, *shape) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def truncated(rng) -> Iterator[tuple[str, bytes]]:
    for kind, ending in FORMATS.items():
        data = encoded(noise(rng, 48, 48), kind)
        for share in rng.uniform(0, 0.9, 60):
            yield ending, data[: int(share * len(data))]


def garbage(rng) -> Iterator[tuple[str, bytes]]:
    for ending, magic in MAGIC.items():
        for length in rng.integers(0, 400, 20):
            yield ending, magic + rng.bytes(length)
            yield ending, rng.bytes(length)


def damaged_chunks(rng) -> Iterator[tuple[str, bytes]]:
    """PNG files with one byte of the pixels changed: the checksum of the chunk tells."""
    data = bytearray(encoded(noise(rng, 48, 48), "PNG"))
    start = data.index(b"IDAT") + 8
    for place in rng.integers(start, len(data) - 20, 60):
        changed = data.copy()
        changed[place] ^= 0xFF
        yield "png", bytes(changed)


def bombs(rng) -> Iterator[tuple[str, bytes]]:
    """Small files that say they are huge."""
    for side in (8193, 20_000, 60_000, 2**31 - 1):
        for width, height in ((side, side), (side, 32), (32, side)):
            header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
            chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
            yield "png", MAGIC["png"] + chunk + encoded(noise(rng, 32, 32), "PNG")[33:]
            bmp = bytearray(encoded(noise(rng, 32, 32), "BMP"))
            bmp[18:26] = struct.pack("<ii", width, height)
            yield "bmp", bytes(bmp)
            yield "tif", resized_tiff(encoded(noise(rng, 32, 32), "TIFF"), width, height)
            yield "jpg", resized_jpeg(encoded(noise(rng, 32, 32), "JPEG"), width, height)


def resized_tiff(data: bytes, width: int, height: int) -> bytes:
    """Width and length are fields 256 and 257 of the first directory (TIFF 6.0, section 2)."""
    changed, first = bytearray(data), int.from_bytes(data[4:8], "little") + 2
    for field, value in ((256, width), (257, height)):
        at = data.index(struct.pack("<H", field), first)
        changed[at : at + 12] = struct.pack("<HHII", field, 4, 1, value)
    return bytes(changed)


def resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    """They are 16 bits in the header of the frame (ITU T.81, B.2.2)."""
    at = data.index(b"\xff\xc0") + 5
    sides = struct.pack(">HH", min(height, 65535), min(width, 65535))
    return data[:at] + sides + data[at + 4 :]


def of_another_kind(rng) -> Iterator[tuple[str, bytes]]:
    for _ in range(8):
        grey = noise(rng, 32, 32)
        deep = rng.integers(0, 65536, (32, 32), dtype=np.uint16)
        colour = noise(rng, 32, 32, 3)
        yield "png", encoded(deep, "PNG")
        yield "tif", encoded(deep, "TIFF")
        yield "tif", encoded(deep.astype(np.int32), "TIFF")
        yield "tif", encoded(np.where(deep < 99, np.nan, deep).astype(np.float32), "TIFF")
        yield "png", encoded(colour, "PNG")
        yield "png", encoded(noise(rng, 32, 32, 4), "PNG")
        yield "png", encoded(Image.fromarray(colour).quantize(16), "PNG")
        yield "jpg", encoded(Image.fromarray(colour).convert("CMYK"), "JPEG")
        yield "png", encoded(grey, "GIF")
        yield "jpg", encoded(grey, "PPM")
        yield "bmp", b"<html><body>404 Not Found</body></html>"
        yield "png", encoded(np.full((32, 32), 7, np.uint8), "PNG")
        yield "png", encoded(noise(rng, 8, 40), "PNG")
        pages = [Image.fromarray(noise(rng, 32, 32)) for _ in range(2)]
        yield "tif", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


@pytest.fixture(scope="module")
def quarantine(tmp_path_factory) -> tuple[dict[str, str], set[str], int]:
    """Reasons by file; the files that are malformed; how many images were kept."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("scans")
    for name in ("a", "b"):
        (root / name).mkdir()
        for index in range(GOOD):
            pixels = noise(rng, 32, 32)
            (root / name / f"good {index}.png").write_bytes(encoded(pixels, "PNG"))
    bad = set()
    for make in (truncated, garbage, damaged_chunks, bombs, of_another_kind):
        for index, (ending, data) in enumerate(make(rng)):
            name = f"{'ab'[index % 2]}/{make.__name__} {index}.{ending}"
            (root / name).write_bytes(data)
            bad.add(name)
    config = DataConfig(source="folder", path=str(root), resolution=16, max_bad_fraction=1)
    store = Store(tmp_path_factory.mktemp("out"))
    manifest = prepare_serial(open_source(config), config, store)
    reasons = {entry["source"]: entry["reason"] for entry in store.read_json(QUARANTINE)}
    return reasons, bad, manifest.images()


def test_every_malformed_file_is_set_aside_and_no_other(quarantine):
    reasons, bad, kept = quarantine
    assert len(bad) >= 500
    assert set(reasons) == bad
    assert kept == 2 * GOOD


def test_the_reasons_are_words_a_user_can_act_on(quarantine):
    reasons, _, _ = quarantine
    assert all(10 < len(reason) < 300 for reason in reasons.values())
    for kind, word in {"bombs": "pixels", "damaged_chunks": "truncated or damaged"}.items():
        mine = [reason for name, reason in reasons.items() if name.split("/")[1].startswith(kind)]
        assert mine and all(word in reason for reason in mine), mine
