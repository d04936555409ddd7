"""What holds for every source."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gemix.data.config import DataConfig, PhantomConfig
from gemix.data.sources import open_source


@pytest.fixture(params=["folder", "covidx", "dicom", "nifti", "medmnist", "phantom"])
def source(request, make_folder, make_covidx, make_dicom, make_nifti, make_medmnist):
    make = {
        "folder": make_folder,
        "covidx": make_covidx,
        "dicom": make_dicom,
        "nifti": make_nifti,
        "medmnist": make_medmnist,
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
