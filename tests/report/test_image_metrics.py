"""The part of the page about the generator's images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gemix.core.errors import DataError
from gemix.io.storage import Store
from gemix.report.sections.image_metrics import image_charts, image_metrics


def test_metrics_stand_beside_what_they_were_measured_with(source):
    part = source[source.index("How near the synthetic images") : source.index("<h2>Training</h2>")]
    assert "timm-random:resnet18d of seed 0 at 64 x 64 (0123456789ab)" in part
    assert "500 images of the generator after 4 kimg against 60 real training images" in part
    assert "The primary metric is KID: with fewer than 10,000 real images" in part
    assert "The lowest KID of this training was 0.0234, after 3 kimg" in part
    assert "0.025 <small>± 0.012" in part


def test_samples_stand_beside_their_nearest_training_images(source):
    assert source.count('alt="sample ') == 5
    first, near = (
        source.index("the first samples"),
        source.index("the nearest of the other samples"),
    )
    assert first < source.index('alt="sample 2"') < near < source.index('alt="sample 3"')
    for number in (1, 2, 3):
        assert source.count(f'alt="training image {number} by features"') == 5
        assert source.count(f'alt="training image {number} by pixels"') == 5
    assert "12 real images that were not trained on" in source


def test_the_picture_is_cut_into_what_it_was_made_of(finished):
    store = Store(finished.gan)
    with Image.open(io.BytesIO(store.read_bytes("memorization.png"))) as image:
        whole = np.asarray(image)
    row = image_metrics(store).rows[2]
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


def test_every_registered_metric_has_a_cell_with_its_direction(finished):
    cells = image_metrics(Store(finished.gan)).cells
    labels = ["KID ↓", "FID ↓", "precision ↑", "recall ↑", "density ↑", "coverage ↑"]
    assert [cell.label for cell in cells] == labels
    assert (cells[0].value, cells[0].error, cells[2].value) == ("0.025", "0.012", "0.80")


def test_the_first_version_of_the_file_is_read(finished):
    store = Store(finished.gan)
    current, summary = image_metrics(store), store.read_json("metrics.json")
    summary["headline"] = summary.pop("primary_metric")
    del summary["generator"]
    for space in ("by_features", "by_pixels"):
        audit = summary["memorization"][space]
        audit["nearer"] = audit.pop("copying_auc")
    store.write_json("metrics.json", summary)
    assert image_metrics(store) == current
    summary["memorization"]["by_features"] = None
    store.write_json("metrics.json", summary)
    assert image_metrics(store).memorization.by_features is None


@pytest.mark.parametrize("missing", ["used", "memorization", "last"])
def test_a_summary_without_what_the_page_needs_is_told(finished, missing):
    store = Store(finished.gan)
    summary = store.read_json("metrics.json")
    del summary[missing]
    summary.pop("generator")
    store.write_json("metrics.json", summary)
    with pytest.raises(DataError, match=rf"metrics\.json: {missing} is missing"):
        image_metrics(store)
