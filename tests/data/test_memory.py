"""An archive may grow tenfold; what prepare holds in memory must hardly grow with it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gemix.data.config import DataConfig
from gemix.data.prepare import prepare_serial
from gemix.data.scan import Scan
from gemix.data.sources import Listing, ScanRef, ScanRefs
from gemix.io.storage import Store
from tests.data.arrow_memory import counted_by_a_pool

SIDE = 16


class Endless:
    """So many scans of patients of ten, each a different one."""

    def __init__(self, count: int):
        self.count = count

    def list(self, map_fn):
        items = (
            ScanRef(
                key=f"patient-{i // 10:06d}/slice-{i % 10:03d}",
                class_index=2 * i // self.count,
                group=f"patient-{i // 10:06d}",
                box=(0, 0, SIDE, SIDE),
            )
            for i in range(self.count)
        )
        return Listing(classes=("a", "b"), items=ScanRefs.of(items), listed=self.count)

    def load(self, item):
        number = int(item.key[8:14]) * 10 + int(item.key[-3:])
        pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
        return Scan(pixels=pixels, is_hounsfield=False, box=item.box)


def peak_bytes(count: int, folder) -> int:
    """Most memory held at a time by Python and Arrow."""
    config = DataConfig(source="folder", path="made up", resolution=SIDE, shard_mb=0.1)
    tracemalloc.start()
    try:
        with counted_by_a_pool() as pool:
            manifest = prepare_serial(Endless(count), config, Store(folder))
        assert manifest.images() == count
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_an_image_more_costs_two_hundred_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("gemix.data.prepare.staging.MOST_ROWS", 256)
    peak_bytes(100, tmp_path / "first")  # imports cost memory once
    few = peak_bytes(1_000, tmp_path / "few")
    many = peak_bytes(9_000, tmp_path / "many")
    assert (many - few) / 8_000 < 250  # beside the 16384 that an image of 128 x 128 has
