"""The part of the page about the generator's images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.io.storage import Store
from gemix.report.image_metrics import image_charts, image_metrics


def test_figures_stand_beside_what_they_were_measured_with(source):
    part = source[source.index("How near the synthetic images") : source.index("<h2>Training</h2>")]
    assert "timm-random:resnet18d of seed 0 at 64 x 64 (0123456789ab)" in part
    assert "500 images of the generator after 4 kimg against 60 real training images" in part
    assert "The figure to go by is KID: with fewer than 10,000 real images" in part
    assert "The lowest KID of this training was 0.0234, after 3 kimg" in part
    assert "0.025 <small>± 0.012" in part


def test_samples_stand_beside_their_nearest_training_images(source):
    assert source.count('alt="sample ') == 5
    first, near = source.index("the first, as they come"), source.index("the nearest of the others")
    assert first < source.index('alt="sample 2"') < near < source.index('alt="sample 3"')
    for number in (1, 2, 3):
        assert source.count(f'alt="training image {number} by features"') == 5
        assert source.count(f'alt="training image {number} by pixels"') == 5
    assert "12 real images that were not trained on" in source


def test_the_picture_is_cut_into_what_it_was_made_of(finished):
    store = Store(finished.gan)
    with Image.open(io.BytesIO(store.read_bytes("memorization.png"))) as image:
        whole = np.asarray(image)
    row = image_metrics(store).resemblances[2]
    for column, png in enumerate((row.sample, *row.by_features, *row.by_pixels)):
        with Image.open(io.BytesIO(png)) as image:
            expected = whole[64:96, 32 * column : 32 * column + 32]
            assert (np.asarray(image) == expected).all()


def test_a_damaged_picture_is_told(finished):
    store = Store(finished.gan)
    store.write_bytes("memorization.png", b"not a picture")
    with pytest.raises(DataError, match=r"memorization\.png is damaged.*delete metrics\.json"):
        image_metrics(store)


def test_one_evaluation_makes_no_curve():
    line = {"kimg": 1.0, "kid": 0.2, "fid": 3.0}
    assert image_charts([line]) == []
    assert len(image_charts([line, line | {"kimg": 2.0}])) == 2
