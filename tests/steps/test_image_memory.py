"""Images that are too many for the memory: they lie in a temporary file, and change nothing."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from gemix.classifier.bundle import Classifier
from gemix.config import load
from gemix.core.errors import DiskFullError
from gemix.data.pixel_memory import allocate_pixels
from gemix.data.prepare import prepare_serial
from gemix.data.shards import reading
from gemix.data.shards.reading import read_images
from gemix.data.sources import open_source
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.train_classifier import train_classifiers
from gemix.steps.train_teacher import train_teachers
from gemix.synthesis.teacher import Teachers

TINY = (
    *("data.resolution=16", "data.phantom.patients_per_class=12"),
    *("compute.cpus_per_worker=1", "compute.workers=0", "synthesis.methods=[softmax]"),
    *("teacher.model=test_resnet", "teacher.epochs=1", "teacher.batch=8", "teacher.seeds=1"),
    *("classifier.model=test_resnet", "classifier.epochs=2", "classifier.batch=8"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    config, url = load("demo", list(TINY)), str(tmp_path_factory.mktemp("data"))
    prepare_serial(open_source(config.data), config.data, Store(url))
    return url


def test_a_large_set_is_read_into_a_file_that_nobody_has_to_remove(data, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held, mapped = read_images([data], "train"), read_images([data], "train", memory_bytes=1000)
    assert not isinstance(held.images, np.memmap) and isinstance(mapped.images, np.memmap)
    np.testing.assert_array_equal(held.images, mapped.images)
    assert mapped.digest == held.digest and not list(tmp_path.iterdir())
    assert not isinstance(read_images([data], "train", memory_bytes=1e9).images, np.memmap)


def test_a_full_disk_is_told_before_anything_is_written(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFullError, match=r"no room for 2 GB of pixels.*TMPDIR.*data\.memory_gb"):
        allocate_pixels((2, 10**9), memory_bytes=1e9)


def test_training_is_the_same_wherever_the_images_lie(data, tmp_path, monkeypatch):
    kinds, allocate = [], reading.allocate_pixels

    def spy(*arguments):
        kinds.append(type(found := allocate(*arguments)))
        return found

    monkeypatch.setattr(reading, "allocate_pixels", spy)
    checksums = []
    for name, more in (("memory", ()), ("file", ("data.memory_gb=0",))):
        workspace = Workspace.at(tmp_path / name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
        config = load("demo", [*TINY, *more])
        train_teachers(config, workspace)
        train_classifiers(config, workspace)
        (row, *_) = Teachers.load(workspace.teacher).rows
        found = Classifier.load(Store(f"{workspace.classifiers}/real-seed0"))
        checksums.append((row.checksum, found.checksum))
    assert checksums[0] == checksums[1]
    assert kinds.count(np.memmap) == 5  # train and val of the teacher; train, val and test
