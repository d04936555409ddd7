"""A few images of every class of a shard set, without reading all of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
from PIL import Image

from gemix.core.errors import DataError
from gemix.core.png import encode_png
from gemix.data.shards.manifest import Manifest
from gemix.io.storage import Store

LARGEST = 192  # pixels; larger pictures make the page slow

_COLUMNS = (
    *("image", "channels", "height", "width"),
    *("soft_label", "class_index", "patient", "source"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image to show.

    Attributes:
        png: the encoded image, at most `LARGEST` pixels wide.
        soft_label: one weight a class.
        source: where the image came from.
    """

    png: bytes
    soft_label: tuple[float, ...]
    source: str


def examples(url: str, split: str, per_class: int) -> tuple[tuple[Example, ...], ...]:
    """Return images of each class: the first of different patients, in shard order.

    Shards are read one by one until every class has `per_class` images. Further images of the same
    patients fill up what is left.

    Args:
        url: a directory with a manifest.
        split: train, val or test.
        per_class: maximum number of images of a class.

    Returns:
        For each class of the manifest, up to `per_class` examples.

    Raises:
        DataError: if the set is unfinished or a shard cannot be read.
    """
    store = Store(url)
    manifest = Manifest.load(store)
    chosen: list[dict[str, Example]] = [{} for _ in manifest.classes]
    spare: list[list[Example]] = [[] for _ in manifest.classes]
    for shard in manifest.shards:
        wanted = [len(images) < per_class for images in chosen]
        holds = [count > 0 for count in shard.class_counts]
        if shard.split != split or not any(np.logical_and(wanted, holds)):
            continue
        table = _read(store, shard.name)
        patients = table["patient"].to_pylist()
        for row, index in enumerate(table["class_index"].to_pylist()):
            new = patients[row] not in chosen[index]
            if new and len(chosen[index]) < per_class:
                chosen[index][patients[row]] = _example(table, row)
            elif not new and len(spare[index]) < per_class:
                spare[index].append(_example(table, row))
    return tuple(
        tuple([*first.values(), *rest][:per_class])
        for first, rest in zip(chosen, spare, strict=True)
    )


def small_png(pixels: np.ndarray, largest: int = LARGEST) -> bytes:
    """Encode uint8 [C, H, W] with C of 1 or 3 as PNG, downscaled if a side exceeds `largest`."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return encode_png(np.atleast_3d(np.asarray(image)))


def _read(store: Store, name: str) -> pa.Table:
    try:
        return store.read_columns(name, _COLUMNS)
    except DataError as error:
        raise DataError(f"{error}; write the set again with --overwrite") from error


def _example(table: pa.Table, row: int) -> Example:
    shape = [table[name][row].as_py() for name in ("channels", "height", "width")]
    pixels = np.frombuffer(table["image"][row].as_py(), np.uint8).reshape(shape)
    return Example(
        png=small_png(pixels),
        soft_label=tuple(table["soft_label"][row].as_py()),
        source=table["source"][row].as_py(),
    )
