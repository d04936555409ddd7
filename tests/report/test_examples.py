from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.data.shards.reading import read_images
from gemix.io.storage import Store
from gemix.report.examples import examples, small_png


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_examples_are_images_of_their_class(finished):
    images = read_images([finished.data], "train")
    pairs = zip(images.images, images.labels, strict=True)
    stored = {image.tobytes(): label for image, label in pairs}
    shown = examples(finished.data, "train", 5)
    assert [len(row) for row in shown] == [5, 5, 5]
    for label, row in enumerate(shown):
        for example in row:
            assert stored[decode(example.png).tobytes()] == label
            assert example.soft_label[label] == 1


def test_different_patients_come_first(finished):
    # two slices a patient: 20 images of a class are of 20 patients, in the order of the files
    sources = [example.source for example in examples(finished.data, "train", 3)[0]]
    assert sources == ["scans/train 0.png", "scans/train 3.png", "scans/train 6.png"]


def test_a_split_without_images_gives_empty_rows(finished):
    assert examples(finished.data, "val", 4) == ((), (), ())


def test_large_images_are_made_smaller_and_colour_is_kept():
    assert decode(small_png(np.zeros((1, 512, 512), np.uint8))).shape == (192, 192)
    red = np.zeros((3, 16, 16), np.uint8)
    red[0] = 200
    assert decode(small_png(red))[0, 0].tolist() == [200, 0, 0]


def test_a_damaged_shard_is_named(finished):
    Store(finished.data).write_bytes("train-00000.parquet", b"not parquet")
    with pytest.raises(DataError, match=r"data/train-00000\.parquet: cannot be read .*--overwrite"):
        examples(finished.data, "train", 2)
