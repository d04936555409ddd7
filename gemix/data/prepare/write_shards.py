"""Staged images are written to the shards of their splits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gemix.data.config import DataConfig
from gemix.data.prepare.assignment import ImageAssignment
from gemix.data.prepare.index import Index
from gemix.data.shards.manifest import SPLITS, ShardEntry
from gemix.data.shards.schema import write_batches
from gemix.io import resume_cache
from gemix.io.storage import Store

LEVELS = 64  # bins of a histogram

_COLUMNS = ("image", "key", "class_index", "checksum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartRows:
    """Images of one part: `rows` of the file `part`, and the group of each."""

    part: str
    rows: np.ndarray
    groups: pa.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Contents of a shard that is to be written.

    Attributes:
        name: name of its file.
        split: one of `SPLITS`.
        pieces: its images, in this order.
        classes: the K class names.
    """

    name: str
    split: str
    pieces: tuple[PartRows, ...]
    classes: tuple[str, ...]

    def digest(self, config: DataConfig, parts: Mapping[str, str]) -> str:
        """Return a digest of images and settings; `parts` gives the SHA-256 of each part."""
        inputs = [
            (parts[one.part], one.rows.tolist(), one.groups.to_pylist()) for one in self.pieces
        ]
        return resume_cache.digest_of(
            self.name, self.split, self.classes, inputs, config.to_mapping()
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A shard that is written.

    Attributes:
        entry: its entry in the manifest.
        histograms: int64 [K, 64], pixels by class and grey level in steps of 4.
    """

    entry: ShardEntry
    histograms: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"entry": self.entry.to_json(), "histograms": self.histograms.tolist()}


def is_shard(name: str) -> bool:
    """Return whether :func:`plan_shards` gives such names."""
    return bool(re.fullmatch(rf"({'|'.join(SPLITS)})-\d{{5,}}\.parquet", name))


def plan_shards(
    index: Index, assignment: ImageAssignment, classes: tuple[str, ...], config: DataConfig
) -> list[ShardPlan]:
    """Cut the images of each split, in the listing's order, into shards of ``config.shard_mb``."""
    names = pa.array(assignment.names, pa.string())
    most = max(1, int(config.shard_mb * 1e6) // (config.resolution**2 * len(config.windows)))
    plans = []
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(assignment.split == number)
        for shard, start in enumerate(range(0, len(rows), most)):
            mine = rows[start : start + most]
            pieces = [
                PartRows(
                    part=index.parts[part],
                    rows=index.row[of_part],
                    groups=names.take(pa.array(assignment.group[of_part])),
                )
                for part in np.unique(index.part[mine]).tolist()
                for of_part in [mine[index.part[mine] == part]]
            ]
            name = f"{split}-{shard:05d}.parquet"
            plans.append(ShardPlan(name=name, split=split, pieces=tuple(pieces), classes=classes))
    return plans


def write_planned_shard(
    plan: ShardPlan, *, config: DataConfig, parts: Mapping[str, str], store: Store
) -> WrittenShard:
    """Write the shard, unless an interrupted run has done so.

    Raises:
        DataError: if a part cannot be read.
    """
    digest = plan.digest(config, parts)
    result = resume_cache.load(store, plan.name, digest)
    if result is not None:
        return WrittenShard(
            entry=ShardEntry.from_json(result["entry"]),
            histograms=np.array(result["histograms"]),
        )
    histograms = np.zeros((len(plan.classes), LEVELS), np.int64)
    batches = _read(plan, config, store, histograms)
    entry = write_batches(store, plan.name, batches, plan.split, plan.classes)
    written = WrittenShard(entry=entry, histograms=histograms)
    resume_cache.save(store, plan.name, digest, entry.sha256, written.to_json())
    return written


def _read(
    plan: ShardPlan, config: DataConfig, store: Store, histograms: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield columns of the shard, part by part, so that one part is held at a time."""
    for one in plan.pieces:
        table = store.read_columns(one.part, _COLUMNS).take(pa.array(one.rows))
        labels = table["class_index"].to_numpy()
        images = table["image"].to_pylist()
        for label, image in zip(labels, images, strict=True):
            levels = np.frombuffer(image, np.uint8) >> 2
            histograms[label] += np.bincount(levels, minlength=LEVELS)
        count = len(labels)
        yield {
            "image": images,
            "channels": [len(config.windows)] * count,
            "height": [config.resolution] * count,
            "width": [config.resolution] * count,
            "class_index": labels,
            "soft_label": list(np.eye(len(plan.classes), dtype=np.float32)[labels]),
            "patient": one.groups,
            "source": table["key"].combine_chunks(),
            "checksum": [checksum.hex() for checksum in table["checksum"].to_pylist()],
        }
