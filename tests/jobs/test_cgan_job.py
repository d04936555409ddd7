"""The CGAN baseline runs through the jobs as StyleGAN2-ADA does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mlflow import MlflowClient

from gemix.config import load
from gemix.data.shards.reading import read_images
from gemix.gan.checkpoints.generator_io import load_generator
from gemix.gan.models.cgan import CganGenerator
from gemix.io.storage import Store
from gemix.steps.synthesize import synthesize
from gemix.steps.train_gan import train_gan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tiny_overrides):
    changes = ("gan.method=cgan", "gan.kimg=0.032", "synthesis.methods=[softmax]")
    of_stylegan2 = ("gan.w_dim=16", "gan.mapping_layers=2")
    own = (setting for setting in tiny_overrides if setting not in of_stylegan2)
    return load("demo", (*own, *changes))


@pytest.fixture(scope="module")
def trained(config, prepared):
    train_gan(config, prepared)
    return prepared


def test_training_says_which_loss_it_used(trained, config):
    store = Store(trained.gan)
    assert isinstance(load_generator(store).network, CganGenerator)
    log = [json.loads(line) for line in store.read_bytes("log.jsonl").decode().splitlines()]
    assert [row["objective"] for row in log] == ["minimax"] * 4
    assert all(np.isfinite(row["loss_d"]) and row["loss_g"] < 0 for row in log)
    client = MlflowClient(f"sqlite:///{trained.workdir}/mlflow.db")
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id], "tags.job = 'train-gan'")
    assert run.data.tags["objective"] == "minimax"
    assert run.data.params["gan.method"] == "cgan"
    assert run.data.params["gan.cgan_loss"] == "minimax"


def test_its_images_join_the_real_ones(trained, config):
    manifest = synthesize(config, trained)["softmax"]
    assert manifest.images() == 70
    both = read_images([trained.data, trained.synthetic("softmax")], "train")
    made = both.images[-70:]
    assert made.shape == (70, 1, 16, 16)
    assert len({image.tobytes() for image in made}) == 70
