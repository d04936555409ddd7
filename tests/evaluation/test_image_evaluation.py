"""All figures together: how they order sets, what is cached, and what is said."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch

from gemix.core.errors import ConfigError
from gemix.evaluation.image_quality.config import MetricsConfig
from gemix.evaluation.image_quality.measure import measure
from gemix.evaluation.image_quality.real_stats import Reference, real_stats_name
from gemix.evaluation.privacy.copying import nearness, thumbnails
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
def reference() -> Reference:
    return Reference.of(clusters(400, seed=0))


@pytest.fixture(scope="module")
def figures(reference):
    sets = {
        "like": clusters(300, seed=1),
        "shifted a little": clusters(300, seed=1, shift=0.4),
        "shifted far": clusters(300, seed=1, shift=4.0),
        "collapsed": clusters(300, seed=1, modes=1),
    }
    return {name: measure(reference, fakes, "toy") for name, fakes in sets.items()}


def test_a_set_like_the_real_one_is_within_noise(figures):
    like = figures["like"]
    assert abs(like.kid) < 3 * like.kid_error
    assert like.precision > 0.7 and like.recall > 0.7 and like.coverage > 0.9
    assert like.density == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("figure", ["kid", "fid"])
def test_distances_grow_with_the_shift(figures, figure):
    like, little, far = (
        getattr(figures[name], figure) for name in ("like", "shifted a little", "shifted far")
    )
    assert like < little < far


def test_shifted_far_has_neither_precision_nor_coverage(figures):
    far = figures["shifted far"]
    assert far.precision == far.density == far.coverage == 0


def test_a_collapsed_set_is_precise_and_covers_little(figures):
    collapsed, like = figures["collapsed"], figures["like"]
    assert collapsed.precision > 0.75
    assert collapsed.recall < 0.4 < like.recall
    assert collapsed.coverage < 0.35 < like.coverage
    assert collapsed.kid > like.kid + 5 * collapsed.kid_error


def test_every_figure_stands_beside_what_made_it(figures):
    like = figures["like"]
    text = str(like)
    assert "KID" in text.split(",")[0] and "fewer than 10000 real images" in text
    assert text.endswith("300 generated against 400 real images, by toy")
    assert like.headline == "kid" and like.score == like.kid
    many = dataclasses.replace(like, real_images=10_000)
    assert many.headline == "fid" and many.score == like.fid
    assert str(many).startswith("FID")


def test_a_reference_reads_back_and_a_damaged_one_does_not(reference, tmp_path):
    store = Store(tmp_path)
    name = real_stats_name("ab" * 32, "toy", 400)
    assert Reference.load(store, name, CPU) is None
    reference.save(store, name)
    again = Reference.load(store, name, CPU)
    fakes = clusters(100, seed=5)
    assert measure(again, fakes, "toy") == measure(reference, fakes, "toy")
    store.write_bytes(name, store.read_bytes(name)[:-100])
    assert Reference.load(store, name, CPU) is None


def test_a_pickle_in_a_reference_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    stream = io.BytesIO()
    np.savez(stream, features=np.array([Payload()], dtype=object))
    (tmp_path / "ran").unlink(missing_ok=True)
    store = Store(tmp_path)
    store.write_bytes("real.npz", stream.getvalue())
    assert Reference.load(store, "real.npz", CPU) is None
    assert not (tmp_path / "ran").exists()


def test_another_set_extractor_or_number_is_another_file():
    names = {
        real_stats_name(digest, extractor, images)
        for digest in ("a", "b")
        for extractor in ("x", "y")
        for images in (1, 2)
    }
    assert len(names) == 8


def test_nearness_of_copies_of_unseen_patients_and_of_far_samples():
    unseen = torch.linspace(1, 2, 101)
    assert nearness(torch.zeros(10), unseen).nearer == 1
    assert nearness(torch.zeros(10), unseen).near_fraction == 1
    alike = nearness(unseen, unseen)
    assert alike.nearer == pytest.approx(0.5)
    assert alike.near_fraction == pytest.approx(0.05, abs=0.011)
    assert nearness(torch.full((10,), 3.0), unseen).nearer == 0


def test_nearness_counts_ties_half():
    assert nearness(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0])).nearer == (
        pytest.approx((2 - 1 + 1) / 3)
    )


def test_thumbnails_average_large_images_and_keep_small_ones():
    small = np.arange(2 * 16 * 16, dtype=np.uint8).reshape(2, 1, 16, 16)
    assert (thumbnails(small).numpy() == small.reshape(2, -1)).all()
    large = np.zeros((1, 1, 128, 128), np.uint8)
    large[0, 0, :2, :2] = [[100, 50], [50, 0]]
    found = thumbnails(large)
    assert found.shape == (1, 64 * 64) and found[0, 0] == 50 and found[0, 1:].max() == 0


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
