"""Parquet files with images in our columns, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemix.data.shards.schema import image_checksum

ROWS = 150  # a file


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 20, 24), dtype=np.uint8)


def columns(count: int = ROWS, seed: int = 0, **changes) -> dict:
    """Rows of two classes in turn; a change to None drops the column."""
    pixels = [image.tobytes() for image in images(count, seed)]
    given = {
        "image": pixels,
        "channels": [1] * count,
        "height": [20] * count,
        "width": [24] * count,
        "class": ["tumour", "normal"] * (count // 2),
        "patient": [f"p{row // 10}" for row in range(count)],
        "split": [None] * count,
        "checksum": [image_checksum(data) for data in pixels],
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def write(path: Path, values: dict, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(values), path, **options)
