from __future__ import annotations

import numpy as np
import pytest

from gemix.data.config import PhantomConfig
from gemix.data.phantom import CLASSES, render_slice
from gemix.data.sources.phantom import PhantomSource

SIZE = 96
CONFIG = PhantomConfig()


def slices(name, config=CONFIG, patients=range(6), size=SIZE):
    return np.stack([render_slice(config, name, patient, 2, size) for patient in patients])


def test_the_same_seed_gives_the_same_slice():
    one, again = slices("cancer", patients=[3]), slices("cancer", patients=[3])
    np.testing.assert_array_equal(one, again)
    assert one.dtype == np.float32
    assert one.shape == (1, SIZE, SIZE)


def test_seed_patient_and_slice_each_change_it():
    first = render_slice(CONFIG, "normal", 0, 0, SIZE)
    for other in (
        render_slice(PhantomConfig(seed=1), "normal", 0, 0, SIZE),
        render_slice(CONFIG, "normal", 1, 0, SIZE),
        render_slice(CONFIG, "normal", 0, 1, SIZE),
    ):
        assert np.abs(first - other).mean() > 5


def test_slices_of_a_patient_are_more_alike_than_patients():
    mine = [render_slice(CONFIG, "normal", 0, i, SIZE) for i in (2, 3)]
    others = slices("normal", patients=range(1, 9))
    within = np.abs(mine[0] - mine[1]).mean()
    between = np.abs(others - mine[0]).mean()
    assert within < 0.7 * between


@pytest.mark.parametrize("name", ["pneumonia", "cancer"])
def test_lesions_are_bright_and_in_the_lungs(name):
    healthy, ill = slices("normal"), slices(name)
    difference = ill - healthy
    changed = np.abs(difference) > 60
    # only lungs change: what was air-filled becomes denser
    assert np.median(healthy[changed]) < -600
    assert difference[changed].mean() > 100
    assert (changed.reshape(len(changed), -1).sum(axis=1) > 12).mean() >= 0.6


def test_pneumonia_is_wider_spread_than_cancer():
    healthy = slices("normal", patients=range(12))
    area = {
        name: np.mean(np.abs(slices(name, patients=range(12)) - healthy) > 60)
        for name in ("pneumonia", "cancer")
    }
    assert area["pneumonia"] > 1.3 * area["cancer"] > 0


def test_no_conspicuity_no_lesion_and_more_is_plainer():
    healthy = slices("normal", PhantomConfig(conspicuity=0))
    for name in CLASSES:
        np.testing.assert_array_equal(slices(name, PhantomConfig(conspicuity=0)), healthy)
    for name in ("pneumonia", "cancer"):
        strengths = [
            np.abs(slices(name, PhantomConfig(conspicuity=value)) - healthy).mean()
            for value in (0.2, 0.5, 1.0)
        ]
        assert strengths == sorted(strengths)
        assert strengths[2] > 2 * strengths[0]


def test_tissues_have_their_hounsfield_units():
    for image in slices("normal", size=192):
        assert image.min() >= -1024
        assert image.max() <= 3071
        assert np.median(image[:4]) < -970  # air above the patient
        lung = image[(image > -960) & (image < -760)]
        assert 0.05 < lung.size / image.size < 0.35
        muscle = image[(image > 10) & (image < 100)]
        assert 0.04 < muscle.size / image.size < 0.5
        fat = image[(image > -140) & (image < -50)]
        assert fat.size / image.size > 0.02
        assert (image > 300).mean() > 0.005  # bone


def test_the_heart_is_on_the_patients_left():
    """Left in the patient is right in the image: more soft tissue there within the rib cage."""
    images = slices("normal", patients=range(24))
    middle = images[:, 30:66, 22:74] > -200
    left_half, right_half = middle[..., :26].mean(), middle[..., 26:].mean()
    assert right_half > 1.05 * left_half


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="covid"):
        render_slice(CONFIG, "covid", 0, 0, SIZE)


def test_another_scanner_is_noisier_and_sees_more_around_the_body():
    usual, clean = slices("normal"), slices("normal", PhantomConfig(noise=0))
    inside = clean > -500  # nothing is cut off there
    noise = slices("normal", PhantomConfig(noise=4)) - clean
    np.testing.assert_allclose(noise[inside], 4 * (usual - clean)[inside], atol=0.01)
    wide = slices("normal", PhantomConfig(field_of_view=1.5))
    assert (wide < -900).mean() > 1.3 * (usual < -900).mean()


def test_contrast_agent_brightens_the_blood_of_those_who_were_given_it():
    plain, usual, more, most = (
        slices("normal", PhantomConfig(contrast_agent=amount, noise=0), range(12))
        for amount in (0, 1, 2, 3)
    )
    brighter = (more - usual).max(axis=(1, 2))  # 65 to 175 HU in the middle of a vessel
    given = brighter > 1
    assert 2 < given.sum() < 10 and (brighter[given] > 50).all() and (brighter < 180).all()
    # linear, but for pixels where a calcification is brighter than blood
    assert np.isclose(most - more, more - usual, atol=0.01).mean() > 0.9999
    np.testing.assert_array_equal(plain[~given], usual[~given])
    assert (usual[given] - plain[given]).max() > 50


def test_patients_of_another_seed_have_other_keys():
    names = [
        {item.group for item in PhantomSource(PhantomConfig(seed=seed), 32).list().items}
        for seed in (0, 1, 77)
    ]
    assert not names[0] & names[1] and not names[1] & names[2]
    assert "patient-00000" in names[0]  # the splits of seed 0 depend on it
