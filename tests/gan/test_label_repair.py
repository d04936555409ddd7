"""Settings that make a generator show its labels: label mixing and the auxiliary classifier."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core.errors import ConfigError
from gemix.core.rng import Stream
from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.losses.classification import classification_loss
from gemix.gan.training.latents import LatentSampler
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store
from tests.gan.test_compiled import RELATIVE, Apart, distance, flat, gradients
from tests.gan.test_training import ARCHITECTURE, CPU, assert_same, disks, spec_of, tiny_config
from tests.gan.test_training import weights as weights_of

CLASSIFYING = dataclasses.replace(ARCHITECTURE, auxiliary_classifier=True)
REPAIR = {"label_mixing": 0.5, "classifier_weight": 0.5}


def draw(label_mixing: float, images: int = 4000):
    state = new_state(ARCHITECTURE, tiny_config(), CPU)
    config = tiny_config(label_mixing=label_mixing)
    latents = LatentSampler(state.generator, disks(), config)
    return latents.draw(Stream.G_LATENT, torch.tensor([7]), torch.arange(images))


def test_the_loss_is_the_divergence_of_labels_from_what_is_seen():
    seen = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    loss = classification_loss(seen.log() + 3, labels)
    assert loss.item() == pytest.approx(np.log(2) / 2)


def test_labels_shown_follow_the_mixture_that_was_asked_for():
    asked, shown = draw(1.0)[:2]
    assert torch.allclose(asked.sum(dim=1), torch.ones(4000))
    assert torch.equal(shown.sort(dim=1).values, torch.eye(3)[[2]].expand(4000, 3))
    assert ((asked > 0) >= (shown > 0)).all()
    # given what was asked, a class is shown with its weight: no bias in any bin of weights
    for low in np.arange(0, 1, 0.25):
        inside = (asked > low) & (asked <= low + 0.25) & (asked < 1)
        assert inside.sum() > 300
        error = (shown[inside] - asked[inside]).mean().item()
        assert abs(error) < 4 * 0.5 / inside.sum().sqrt().item()


def test_a_share_of_the_labels_is_mixed():
    asked, shown = draw(0.3)[:2]
    is_mixed = (asked.max(dim=1).values < 1).float().mean().item()
    assert is_mixed == pytest.approx(0.3 * 2 / 3, abs=0.03)  # a third of the pairs is of one class
    asked, shown = draw(0.0)[:2]
    assert torch.equal(asked, shown)
    assert (asked.max(dim=1).values == 1).all()


def test_the_auxiliary_classifier_learns_the_real_classes():
    config = tiny_config(kimg=1.6, batch=16, augment="none", classifier_weight=1.0, pl_weight=0)
    data = disks()
    state = train(new_state(CLASSIFYING, config, CPU), data, config)
    images, labels = data.real_batch(1000, 60, list(range(60)))
    with torch.no_grad():
        output = state.discriminator.outputs(images, labels)
    assert torch.equal(output.logits, state.discriminator(images, labels))
    is_right = output.class_logits.argmax(dim=1) == labels.argmax(dim=1)
    assert is_right.float().mean() > 0.9


def test_resuming_equals_never_stopping(tmp_path):
    config, first = tiny_config(**REPAIR), tiny_config(kimg=0.024, **REPAIR)
    spec = dataclasses.replace(spec_of(config), architecture=CLASSIFYING)
    undisturbed = train(new_state(CLASSIFYING, config, CPU), disks(), config)
    store = Store(tmp_path)
    state = train(new_state(CLASSIFYING, first, CPU), disks(), first)
    save_checkpoint(store, state, spec)
    resumed = resume_or_start(store, spec, CPU)
    assert resumed.step == 3
    train(resumed, disks(), config)
    assert_same(weights_of(resumed), weights_of(undisturbed))


@pytest.mark.parametrize("phase", ["train_generator", "train_discriminator"])
def test_workers_share_a_batch(phase):
    settings = tiny_config(batch=16, compile=False, **REPAIR)
    _, whole = gradients(settings, phase, CLASSIFYING)
    parts = [gradients(settings, phase, CLASSIFYING, Apart(rank, 2))[1] for rank in range(2)]
    mean = torch.stack([flat(part) for part in parts]).mean(dim=0)
    assert distance(mean, flat(whole)) < RELATIVE
    assert distance(flat(parts[0]), flat(whole)) > 1e-2  # the parts do differ


def test_networks_have_a_classifier_where_it_is_trained():
    sizes = {"resolution": 16, "img_channels": 1}
    assert tiny_config(**REPAIR).architecture(label_dim=3, **sizes) == CLASSIFYING
    assert tiny_config().architecture(label_dim=3, **sizes) == ARCHITECTURE
    assert not tiny_config(**REPAIR).architecture(label_dim=0, **sizes).auxiliary_classifier
    with pytest.raises(ConfigError, match="classifier_weight"):
        GanConfig(method="cgan", classifier_weight=1.0)
