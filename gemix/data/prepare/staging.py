"""Staging: scans are decoded and preprocessed once, in parts, before their splits are known.

Duplicates, groups and splits depend on all images. So each part of the listing is processed by
itself and written to a Parquet file in ``unfinished/``, whose small columns suffice to decide them.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import gemix
from gemix.core.png import encode_png
from gemix.data.config import DataConfig
from gemix.data.dataset_card.contact_sheet import before_thumbnail, thumbnail
from gemix.data.leakage.perceptual_hash import COPY_BYTES, fingerprint
from gemix.data.prepare.segmentation_masks import is_segmentation_mask
from gemix.data.preprocessing.preprocess import preprocess
from gemix.data.scan import InvalidImageError, Quarantined, Scan, ScanFiltered
from gemix.data.shards.schema import image_checksum
from gemix.data.sources import ScanRef, ScanRefs, Source
from gemix.io import resume_cache
from gemix.io.storage import Store

PARTS = 32  # at least so many where there are enough images, to keep many processors busy
FEWEST_ROWS, MOST_ROWS = 32, 2048
MOST_BYTES = 64e6  # of pixels

MASK = "mask"
"""The rule, in `Staged.left_out`, that leaves segmentation masks out."""

_PIXELS_VERSION = 2  # increased when the same scan and settings give other images than before

PART_SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "key": pa.string(),
        "class_index": pa.int32(),
        "group": pa.string(),
        "split": pa.string(),
        "checksum": pa.binary(16),
        # names groups of neighbours
        "key_hash": pa.uint64(),
        # of images of unknown patients alone
        "hash": pa.uint64(),
        "copy": pa.binary(COPY_BYTES),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive items of the listing."""

    number: int
    items: ScanRefs

    def digest(self, config: DataConfig) -> str:
        """Return a digest of items and settings, and of the version of gemix."""
        items = [dataclasses.astuple(item) for item in self.items]
        # allow_overlap concerns later steps
        settings = dataclasses.replace(config, allow_overlap=False).to_mapping()
        return resume_cache.digest_of(items, settings, gemix.__version__, _PIXELS_VERSION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged:
    """Result of a part.

    Attributes:
        name: name of its file.
        rows: number of images in it; there is no file for none.
        sha256: hex digest of the file.
        quarantined: files that cannot be used.
        left_out: number of good scans that a rule left out, by rule.
        shown: PNG thumbnails, before and after, of one image of each class index.
    """

    name: str
    rows: int
    sha256: str
    quarantined: tuple[Quarantined, ...]
    left_out: Mapping[str, int]
    shown: Mapping[int, tuple[bytes, bytes]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        shown = {
            str(label): [base64.b64encode(png).decode() for png in pair]
            for label, pair in self.shown.items()
        }
        return dataclasses.asdict(self) | {"shown": shown}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build the result of such values."""
        shown = {
            int(label): tuple(base64.b64decode(text) for text in pair)
            for label, pair in values["shown"].items()
        }
        bad = tuple(Quarantined(**one) for one in values["quarantined"])
        return cls(**{**values, "quarantined": bad, "shown": shown})


def cut_into_parts(items: ScanRefs, config: DataConfig) -> list[Part]:
    """Cut a listing into parts, in its order."""
    by_bytes = int(MOST_BYTES / (config.resolution**2 * len(config.windows)))
    rows = max(FEWEST_ROWS, min(-(-len(items) // PARTS), MOST_ROWS, by_bytes))
    return [
        Part(number=number, items=items[start : start + rows])
        for number, start in enumerate(range(0, len(items), rows))
    ]


def stage(part: Part, *, source: Source, config: DataConfig, store: Store) -> Staged:
    """Load and preprocess the part's scans, unless an interrupted run has done so.

    A part whose bad files have been repaired since is processed again.
    """
    digest = part.digest(config)
    # runs of other settings in the same directory must not use each other's parts
    name = f"{resume_cache.FOLDER}/part-{part.number:06d}-{digest[:8]}.parquet"
    result = resume_cache.load(store, name, digest)
    if result is not None:
        staged = Staged.from_json(result)
        if not _is_repaired(part, staged, source, config):
            return staged
    staged = _stage(part, name, source, config, store)
    resume_cache.save(store, name, digest, staged.sha256, staged.to_json())
    return staged


def _is_repaired(part: Part, staged: Staged, source: Source, config: DataConfig) -> bool:
    """Return whether a file that was bad is good now."""
    bad = {one.source for one in staged.quarantined}
    for item in part.items if bad else ():
        if item.key in bad:
            try:
                _load(source, item, config)
            except InvalidImageError:
                continue
            except ScanFiltered:
                pass
            return True
    return False


def _stage(part: Part, name: str, source: Source, config: DataConfig, store: Store) -> Staged:
    images, items, quarantined = [], [], []
    left_out: Counter[str] = Counter()
    shown: dict[int, tuple[bytes, bytes]] = {}
    for item in part.items:
        try:
            scan, image = _load(source, item, config)
        except InvalidImageError as reason:
            quarantined.append(Quarantined(source=item.key, reason=str(reason)))
            continue
        except ScanFiltered as rule:
            left_out[str(rule)] += 1
            continue
        images.append(image)
        items.append(item)
        if item.class_index not in shown:
            shown[item.class_index] = _png(before_thumbnail(scan)), _png(thumbnail(image))
    data = _encode(np.stack(images), ScanRefs.of(items)) if items else b""
    if data:
        store.write_bytes(name, data)
    return Staged(
        name=name,
        rows=len(items),
        sha256=hashlib.sha256(data).hexdigest() if data else "",
        quarantined=tuple(quarantined),
        left_out=dict(left_out),
        shown=shown,
    )


def _load(source: Source, item: ScanRef, config: DataConfig) -> tuple[Scan, np.ndarray]:
    """Return a scan and the image made of it: uint8 [C, R, R]."""
    scan = source.load(item)
    return scan, make_image(scan, config)


def make_image(scan: Scan, config: DataConfig) -> np.ndarray:
    """Return the image made of a scan: uint8 [C, R, R].

    Raises:
        InvalidImageError, ScanFiltered: as :func:`gemix.data.preprocessing.preprocess.preprocess`
            does, and for a segmentation mask.
    """
    if not scan.is_hounsfield and is_segmentation_mask(scan.pixels):
        raise ScanFiltered(MASK)
    return preprocess(scan, config)


def _encode(images: np.ndarray, items: ScanRefs) -> bytes:
    """Encode the Parquet file of a part: `PART_SCHEMA` with one row an image."""
    known = items.table
    unknown = np.asarray(known["group"].is_null())
    hashes, copies = [None] * len(items), [None] * len(items)
    if unknown.any():
        prints = fingerprint(images[unknown])
        for row, bits, copy in zip(
            np.flatnonzero(unknown), prints.hashes, prints.packed(), strict=True
        ):
            hashes[row], copies[row] = int(bits), copy
    pixels = [image.tobytes() for image in images]
    table = pa.table(
        {
            "image": pixels,
            **{name: known[name] for name in ("key", "class_index", "group", "split")},
            "checksum": [bytes.fromhex(image_checksum(data)) for data in pixels],
            "key_hash": [hash_of(key) for key in known["key"].to_pylist()],
            "hash": hashes,
            "copy": copies,
        },
        schema=PART_SCHEMA,
    )
    sink = io.BytesIO()
    # a temporary file: fast compression
    pq.write_table(table, sink, compression="lz4", write_page_checksum=True)
    return sink.getvalue()


def hash_of(text: str) -> int:
    """Return 64 bits that depend on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _png(image: np.ndarray) -> bytes:
    return encode_png(image[..., None])


def from_png(data: bytes) -> np.ndarray:
    """Decode the grey pixels of a thumbnail: uint8 [h, w]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)
