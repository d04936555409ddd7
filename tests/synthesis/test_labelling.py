"""Labels of synthetic images: as asked, as seen, and images that are drawn again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemix.core.errors import ConfigError, DataError
from gemix.gan.checkpoints.generator_io import GeneratorBundle
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.base import ImageGenerator
from gemix.labels import LabelConfig, sample_labels
from gemix.synthesis.config import SynthesisConfig
from gemix.synthesis.labelling import draw_labelled

CLASSES = ("benign", "malignant", "normal")
LEVELS = np.array([40.0, 120.0, 200.0])  # grey of each class


class Disobedient(ImageGenerator):
    """Shows the class asked for in two of three images, by the latent, and another one else."""

    architecture = Architecture(resolution=8, img_channels=1, label_dim=3, z_dim=4)

    def forward(self, z, label, noise=None, *, truncation_psi=1.0, dtype=torch.float32):
        shown = (label.argmax(dim=1) + (z[:, 0] > 0.43).long()) % 3
        grey = torch.from_numpy(LEVELS).float()[shown] + 5 * z[:, 1].clamp(-2, 2)
        return (grey / 127.5 - 1).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)


class Observer:
    """Teachers that see the class of the nearest grey; the second one is less sure."""

    def __init__(self, blind_to: int | None = None):
        self.blind_to, self.images = blind_to, [0, 0]  # images that each has looked at

    def __len__(self) -> int:
        return 2

    def probabilities(self, images: np.ndarray, which: slice = slice(None)) -> np.ndarray:
        for member in range(2)[which]:
            self.images[member] += len(images)
        distances = np.abs(images.mean(axis=(1, 2, 3))[:, None] - LEVELS)
        seen = np.exp(-distances / 20)
        if self.blind_to is not None:
            seen[:, self.blind_to] = 0
        unsure = seen + 0.2
        both = np.stack([seen, unsure], axis=1)[:, which]
        return (both / both.sum(axis=2, keepdims=True)).astype(np.float32)


GENERATOR = GeneratorBundle(network=Disobedient(), classes=CLASSES, checksum="ab", kimg=1.0)
ASKED, _ = sample_labels("softmax", LabelConfig(), count=300, classes=3, seed=3)


def draw(asked=ASKED, teachers=None, start=0, **settings):
    config = SynthesisConfig(seed=5, **settings)
    return draw_labelled(GENERATOR, asked, config, teachers or Observer(), start=start)


def test_labels_are_as_asked_as_seen_or_a_mixture():
    asked, seen, mixed = (
        draw(labels=labels, mixture=0.25) for labels in ("asked", "teacher", "mixture")
    )
    np.testing.assert_array_equal(asked.images, seen.images)
    np.testing.assert_array_equal(asked.labels, ASKED)
    np.testing.assert_allclose(seen.labels, seen.seen[:, 0], atol=1e-6)
    np.testing.assert_allclose(mixed.labels, 0.25 * seen.seen[:, 0] + 0.75 * ASKED, atol=1e-6)
    for found in (asked, seen, mixed):
        assert found.labels.dtype == np.float32
        np.testing.assert_allclose(found.labels.sum(axis=1, dtype=np.float64), 1, atol=1e-6)
    np.testing.assert_array_equal(asked.seeds, 5 + np.arange(300))


def test_without_teachers_nothing_is_seen():
    found = draw_labelled(GENERATOR, ASKED, SynthesisConfig(seed=5), None)
    assert found.seen is None
    np.testing.assert_array_equal(found.images, draw().images)


def test_rejected_images_are_drawn_again_until_all_agree():
    wanted = ASKED.argmax(axis=1)
    every, agreeing = draw(), draw(accept="agreeing")
    agrees = every.seen[:, 0].argmax(axis=1) == wanted
    assert 0.5 < agrees.mean() < 0.8
    np.testing.assert_array_equal(agreeing.seen[:, 0].argmax(axis=1), wanted)
    np.testing.assert_array_equal(agreeing.images[agrees], every.images[agrees])
    np.testing.assert_array_equal(agreeing.seeds[agrees], every.seeds[agrees])
    assert not np.isin(agreeing.seeds[~agrees], every.seeds).any()
    assert agreeing.labels is ASKED  # classes are as balanced as they were asked for
    assert every.drawn.tolist() == np.bincount(wanted).tolist()
    rate = 300 / agreeing.drawn.sum()
    assert rate == pytest.approx(2 / 3, abs=0.08)


def test_the_second_teacher_looks_at_the_images_that_are_kept_alone():
    teachers = Observer()
    found = draw(teachers=teachers, accept="agreeing")
    assert teachers.images == [found.drawn.sum(), 300]
    np.testing.assert_array_equal(found.seen, Observer().probabilities(found.images))


def test_teachers_look_at_no_more_images_than_labels_and_fidelity_need():
    for labels, looks in (("asked", [70, 70]), ("teacher", [200, 70])):
        teachers = Observer()
        found = draw(ASKED[100:], teachers, start=100, labels=labels, fidelity_images=170)
        assert teachers.images == looks
        is_seen = ~np.isnan(found.seen).any(axis=2)
        assert is_seen.sum(axis=0).tolist() == looks and is_seen[:70].all()
        np.testing.assert_allclose(found.labels, draw(labels=labels).labels[100:])
    teachers = Observer()
    draw(teachers=teachers, fidelity_images=0)
    draw(ASKED, teachers, start=170, fidelity_images=170)
    assert teachers.images == [0, 0]


def test_each_class_has_its_threshold():
    wanted = ASKED.argmax(axis=1)
    found = draw(accept="agreeing", min_seen=(0.0, 0.955, 0.0))
    weights = found.seen[np.arange(300), 0, wanted]
    assert weights[wanted == 1].min() >= 0.955 > weights[wanted == 0].min()


@pytest.mark.parametrize("accept", ["all", "agreeing"])
def test_a_row_is_a_function_of_its_index(accept):
    whole = draw(accept=accept, labels="teacher")
    for start, count in ((0, 7), (7, 100), (299, 1)):
        part = draw(ASKED[start : start + count], start=start, accept=accept, labels="teacher")
        rows = slice(start, start + count)
        np.testing.assert_array_equal(part.images, whole.images[rows])
        np.testing.assert_array_equal(part.seeds, whole.seeds[rows])
        np.testing.assert_array_equal(part.labels, whole.labels[rows])


def test_a_class_that_is_never_seen_ends_the_set_and_is_named():
    blind = Observer(blind_to=1)
    with pytest.raises(DataError, match=r"malignant: 0 of \d+ accepted.*synthesis\.min_seen"):
        draw(teachers=blind, accept="agreeing", attempts=3)
    with pytest.raises(DataError, match="malignant: 0 of"):
        draw(teachers=blind, accept="agreeing", attempts=10_000, asked=ASKED[:40])
    assert sum(blind.images) < 10_000  # given up long before 10,000 draws an image


@pytest.mark.parametrize(
    "settings",
    [{"mixture": 1.5}, {"labels": "guessed"}, {"attempts": 0}, {"min_seen": (0.5, 0.5, 0.5)}],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SynthesisConfig(**settings)
