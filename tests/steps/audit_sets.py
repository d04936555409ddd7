"""Phantom patients, and sets of images that were learned from them, for the audit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemix.data.config import PhantomConfig
from gemix.data.leakage.overlap import Split
from gemix.data.leakage.provenance import PROVENANCE_SHA256, write_provenance
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.preprocessing.windows import apply_window
from gemix.data.shards.manifest import Manifest
from gemix.data.shards.schema import to_columns, write_shard
from gemix.io.storage import Store

SIDE = 32


def phantoms(first: int, count: int) -> np.ndarray:
    """One slice each of patients `first` to `first + count - 1`: uint8 [count, 1, 32, 32]."""
    config = PhantomConfig(conspicuity=1.0)
    slices = [
        apply_window(render_slice(config, CLASSES[n % 3], n, 0, SIDE), -600.0, 1500.0)
        for n in range(first, first + count)
    ]
    return np.stack(slices)[:, None]


def write_real(url: str, splits: dict[str, np.ndarray], prefix: str = "patient") -> str:
    """A set of real images, each of a patient of its own."""
    store, entries = Store(url), []
    for split, images in splits.items():
        names = [f"{prefix}-{split}-{row}" for row in range(len(images))]
        entries.append(
            write_shard(store, f"{split}.parquet", columns(images, names, names), split, CLASSES)
        )
    Manifest.of(entries, kind="real", classes=CLASSES, resolution=SIDE, channels=1).save(store)
    return store.url


def write_synthetic(
    url: str, images: np.ndarray, learned: Sequence[Split] | None, generator: str | None = None
) -> str:
    """A synthetic set with a record of what was learned from, or None for no record."""
    store = Store(url)
    names = [f"synthetic-{row}" for row in range(len(images))]
    origin: dict = {"generator": generator} if generator else {}
    if learned is not None:
        origin[PROVENANCE_SHA256] = write_provenance(store, learned)
    entry = write_shard(store, "00000.parquet", columns(images, names, names), "train", CLASSES)
    Manifest.of(
        [entry], kind="synthetic", classes=CLASSES, resolution=SIDE, channels=1, origin=origin
    ).save(store)
    return store.url


def columns(images: np.ndarray, patients: list[str], sources: list[str]) -> dict:
    labels = np.arange(len(images)) % len(CLASSES)
    return to_columns(
        images,
        np.eye(len(CLASSES))[labels],
        class_index=labels,
        patients=patients,
        sources=sources,
    )
