"""All metrics together: how they order sets, what is cached, and what is told."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch

from gemix.core.errors import ConfigError
from gemix.evaluation.image_quality.base import ImageMetric, ImageMetricError, MetricOutput
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.image_quality.measure import measure
from gemix.evaluation.image_quality.real_stats import RealStats, real_stats_name
from gemix.evaluation.image_quality.registry import IMAGE_METRICS, metric_outputs
from gemix.evaluation.image_quality.testing import ImageMetricContract
from gemix.io.storage import Store

CPU = torch.device("cpu")


def clusters(rows: int, *, seed: int, modes: int = 4, shift: float = 0.0) -> torch.Tensor:
    """Features of `modes` of four well separated clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = 6 * torch.eye(16)[:4]
    chosen = torch.arange(rows) % modes
    order = torch.randperm(rows, generator=generator)
    return (centres[chosen] + torch.randn(rows, 16, generator=generator))[order] + shift


@pytest.fixture(scope="module")
def real() -> RealStats:
    return RealStats.of(clusters(400, seed=0))


@pytest.fixture(scope="module")
def qualities(real):
    sets = {
        "like": clusters(300, seed=1),
        "shifted a little": clusters(300, seed=1, shift=0.4),
        "shifted far": clusters(300, seed=1, shift=4.0),
        "collapsed": clusters(300, seed=1, modes=1),
    }
    return {name: measure(real, fakes, "toy") for name, fakes in sets.items()}


def test_a_set_like_the_real_one_is_within_noise(qualities):
    like = qualities["like"]
    assert abs(like["kid"]) < 3 * like["kid_error"]
    assert like["precision"] > 0.7 and like["recall"] > 0.7 and like["coverage"] > 0.9
    assert like["density"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("metric", ["kid", "fid"])
def test_distances_grow_with_the_shift(qualities, metric):
    like, little, far = (
        qualities[name][metric] for name in ("like", "shifted a little", "shifted far")
    )
    assert like < little < far


def test_shifted_far_has_neither_precision_nor_coverage(qualities):
    far = qualities["shifted far"]
    assert far["precision"] == far["density"] == far["coverage"] == 0


def test_a_collapsed_set_is_precise_and_covers_little(qualities):
    collapsed, like = qualities["collapsed"], qualities["like"]
    assert collapsed["precision"] > 0.75
    assert collapsed["recall"] < 0.4 < like["recall"]
    assert collapsed["coverage"] < 0.35 < like["coverage"]
    assert collapsed["kid"] > like["kid"] + 5 * collapsed["kid_error"]


def test_every_figure_stands_beside_what_made_it(qualities):
    like = qualities["like"]
    text = str(like)
    assert "KID" in text.split(",")[0] and "fewer than 10000 real images" in text
    assert text.endswith("300 generated against 400 real images, by toy")
    assert like.primary_metric == "kid" and like.score == like["kid"]
    many = dataclasses.replace(like, real_images=10_000)
    assert many.primary_metric == "fid" and many.score == like["fid"]
    assert str(many).startswith("FID")


def test_a_reference_reads_back_and_a_damaged_one_does_not(real, tmp_path):
    store = Store(tmp_path)
    name = real_stats_name("ab" * 32, "toy", 400)
    assert RealStats.load(store, name, CPU) is None
    real.save(store, name)
    again = RealStats.load(store, name, CPU)
    fakes = clusters(100, seed=5)
    assert measure(again, fakes, "toy") == measure(real, fakes, "toy")
    store.write_bytes(name, store.read_bytes(name)[:-100])
    assert RealStats.load(store, name, CPU) is None


def test_a_pickle_in_a_reference_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    stream = io.BytesIO()
    np.savez(stream, features=np.array([Payload()], dtype=object))
    (tmp_path / "ran").unlink(missing_ok=True)
    store = Store(tmp_path)
    store.write_bytes("real.npz", stream.getvalue())
    assert RealStats.load(store, "real.npz", CPU) is None
    assert not (tmp_path / "ran").exists()


def test_another_set_extractor_or_number_is_another_file():
    names = {
        real_stats_name(digest, extractor, images)
        for digest in ("a", "b")
        for extractor in ("x", "y")
        for images in (1, 2)
    }
    assert len(names) == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"extractor": "inception"}, "timm-random:<what>"),
        ({"extractor": "tim:resnet18"}, "did you mean 'timm'"),
        ({"images": 7}, "50 or more, or 0 for none"),
        ({"images": 0, "use_best": True}, "use_best"),
    ],
)
def test_bad_settings_are_told(settings, words):
    with pytest.raises(ConfigError, match=words):
        MetricsConfig(**settings)


@pytest.mark.parametrize("metric", IMAGE_METRICS, ids=lambda metric: metric.names[0])
class TestEveryMetric(ImageMetricContract):
    @pytest.fixture(autouse=True)
    def _choose(self, metric):
        self.metric = metric


def test_names_of_all_metrics_are_apart():
    names = [name for metric in IMAGE_METRICS for name in metric.names]
    arrays = [name for metric in IMAGE_METRICS for name in metric.statistics]
    assert len(set(names)) == len(names) and len(set(arrays)) == len(arrays)
    expected = ["kid", "fid", "precision", "recall", "density", "coverage"]
    assert [output.name for output in metric_outputs()] == expected


class Mean(ImageMetric):
    """A metric that returns what it is told to."""

    outputs = (MetricOutput(name="mean", label="mean", higher_is_better=True, chart="mean"),)

    def __init__(self, result):
        self.result = result

    def compute(self, real, fakes):
        return {"mean": self.result()}


@pytest.mark.parametrize(
    ("result", "words"),
    [(lambda: float("nan"), "finite numbers"), (lambda: 1 / 0, "division by zero")],
)
def test_a_metric_that_fails_is_one_clear_error(real, result, words):
    with pytest.raises(ImageMetricError, match=f"image metric mean: .*{words}"):
        measure(real, clusters(60, seed=1), "toy", [Mean(result)])


def test_a_metric_of_the_wrong_direction_fails_the_contract():
    class Backwards(ImageMetricContract):
        metric = Mean(lambda: 1.0)

    with pytest.raises(AssertionError):
        Backwards().test_the_direction_is_the_declared_one()


def test_a_cache_without_the_statistics_of_a_new_metric_is_completed(real, tmp_path):
    store = Store(tmp_path)
    stream = io.BytesIO()
    np.savez(stream, features=real.features.numpy())
    store.write_bytes("real.npz", stream.getvalue())
    again = RealStats.load(store, "real.npz", CPU)
    fakes = clusters(100, seed=5)
    assert measure(again, fakes, "toy") == measure(real, fakes, "toy")
