"""What holds for every source."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.sources import open_source


@pytest.fixture
def make_parquet(tmp_path, grey_slices) -> Callable[[], Path]:
    """Writes two files of three images each, of two classes."""

    def make() -> Path:
        for name, chosen in (("a", grey_slices[:3]), ("b", grey_slices[3:6])):
            columns = {
                "image": [image.tobytes() for image in chosen],
                "channels": [1] * 3,
                "height": [96] * 3,
                "width": [96] * 3,
                "class": ["x", "y", "x"],
            }
            (tmp_path / "parquet").mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), tmp_path / "parquet" / f"{name}.parquet")
        return tmp_path / "parquet"

    return make


@pytest.fixture(params=["folder", "covidx", "dicom", "nifti", "medmnist", "parquet", "phantom"])
def source(request, make_folder, make_covidx, make_dicom, make_nifti, make_medmnist, make_parquet):
    make = {
        "folder": make_folder,
        "covidx": make_covidx,
        "dicom": make_dicom,
        "nifti": make_nifti,
        "medmnist": make_medmnist,
        "parquet": make_parquet,
        "phantom": lambda: "",
    }[request.param]
    config = DataConfig(
        source=request.param,
        path=str(make()),
        labels="labels.csv" if request.param == "dicom" else "",
        phantom=PhantomConfig(patients_per_class=2, slices_per_patient=2),
    )
    return open_source(config)


def test_items_are_labelled_and_distinct(source):
    listing = source.list()
    assert len({item.key for item in listing.items}) == len(listing.items) > 0
    assert {item.class_index for item in listing.items} == set(range(len(listing.classes)))
    assert listing.listed >= len(listing.items)
    assert listing.notes


def test_classes_come_one_after_the_other(source):
    indices = [item.class_index for item in source.list().items]
    assert indices == sorted(indices)


def test_listing_again_or_in_another_process_is_the_same(source):
    listing = source.list()
    assert source.list() == listing
    assert pickle.loads(pickle.dumps(source)).list() == listing


def test_however_the_work_is_spread_the_listing_is_the_same(source, monkeypatch):
    def elsewhere(function, inputs, what):
        """In processes that know nothing of each other, the last input first."""
        travelled = [pickle.loads(pickle.dumps((function, value))) for value in inputs]
        results = {i: pickle.dumps(f(v)) for i, (f, v) in reversed([*enumerate(travelled)])}
        yield from (pickle.loads(results[i]) for i in range(len(inputs)))

    listing = source.list()
    for module in ("dicom", "nifti"):
        monkeypatch.setattr(f"gemix.data.sources.{module}.source._CHUNK", 3)
    assert source.list(elsewhere) == listing


def test_items_change_with_the_file_that_they_are_read_from(source):
    before = source.list().items.table["stamp"].to_pylist()
    if not hasattr(source, "store"):
        assert set(before) == {None}
        return
    for path in Path(source.store.url).rglob("*"):
        os.utime(path, (1, 1))
    after = source.list().items.table["stamp"].to_pylist()
    assert all(before + after)
    assert not set(before) & set(after)


def test_every_item_loads_and_fits_its_box(source):
    for item in source.list().items[::5]:
        scan = source.load(item)
        assert scan.pixels.ndim == 2
        assert scan.box == item.box
        if scan.is_hounsfield:
            assert scan.pixels.dtype == np.float32
            assert scan.pixels.min() < -900
        else:
            assert scan.pixels.dtype == np.uint8
