"""Networks that are exported, or come with gemix, start other trainings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gemix.config import load
from gemix.core.errors import AlreadyFinishedError, CheckpointError, ConfigError, DataError
from gemix.data.leakage.provenance import PROVENANCE, Provenance
from gemix.data.prepare import prepare_serial
from gemix.data.sources import open_source
from gemix.gan.checkpoints.checkpoint import checkpoint_spec, checkpoint_weights, checkpoints
from gemix.gan.checkpoints.generator_io import load_generator, load_weights, save_shared
from gemix.gan.checkpoints.safetensors_io import read_weights
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.sampling import sample_images
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.io.workspace import Workspace
from gemix.steps.export_gan import export_gan
from gemix.steps.train_gan import train_gan
from gemix.zoo import open_pretrained, zoo_names

TINY = (
    "data.resolution=16",
    "data.phantom.patients_per_class=6",
    *("data.phantom.slices_per_patient=2", "compute.cpus_per_worker=1"),
    *("gan.kimg=0.032", "gan.batch=8", "gan.z_dim=16", "gan.w_dim=16", "gan.channel_base=128"),
    *("gan.channel_max=16", "gan.precision=float32", "metrics.images=0"),
)


def prepared(folder: Path, *overrides: str):
    config, workspace = load("demo", [*TINY, *overrides]), Workspace.at(folder)
    prepare_serial(open_source(config.data), config.data, Store(workspace.data))
    return config, workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    config, workspace = prepared(tmp_path_factory.mktemp("trained"))
    train_gan(config, workspace)
    return workspace


def test_an_export_is_small_and_starts_a_training_from_the_averaged_generator(workspace, tmp_path):
    export_gan(workspace.gan, str(tmp_path / "start"))
    exported, full = load_weights(Store(tmp_path / "start")), load_weights(Store(workspace.gan))
    for name, value in full.generator_ema.items():
        assert exported.generator_ema[name].dtype == torch.float16
        torch.testing.assert_close(
            exported.generator_ema[name].float(), value, rtol=1e-3, atol=1e-6
        )
    assert exported.generator is exported.generator_ema
    assert exported.discriminator.keys() == full.discriminator.keys()
    size = sum(path.stat().st_size for path in (tmp_path / "start").glob("*.safetensors"))
    (newest,) = checkpoints(Store(workspace.gan))[-1:]
    checkpoint = (Path(workspace.gan) / f"{newest}.safetensors").stat().st_size
    assert size < checkpoint / 6
    # other patients, so that nothing held out was seen
    changes = ("data.phantom.seed=5", f"gan.init_from={tmp_path}/start")
    other, work = prepared(tmp_path / "other", *changes)
    none = dataclasses.replace(other, gan=dataclasses.replace(other.gan, kimg=0.0))
    train_gan(none, work)
    start = load_generator(Store(work.gan)).network.state_dict()
    for name, value in exported.generator_ema.items():
        torch.testing.assert_close(start[name], value.float())


def test_an_export_is_sampled_and_keeps_what_it_learned_from(workspace, tmp_path):
    export_gan(workspace.gan, str(tmp_path / "start"))
    bundle = load_generator(Store(tmp_path / "start"))
    assert bundle.kimg == pytest.approx(0.032)
    label = np.eye(3, dtype=np.float32)[:1]
    images = sample_images(bundle.network, [3], label, SamplingConfig(noise_mode="const"))
    whole = load_generator(Store(workspace.gan)).network
    right = sample_images(whole, [3], label, SamplingConfig(noise_mode="const"))
    assert np.abs(images.astype(int) - right).max() <= 2
    rows = sum(len(table) for table in Provenance(Store(tmp_path / "start"), "the network"))
    assert rows == sum(len(table) for table in Provenance(Store(workspace.gan), "it")) > 0
    # the same patients with other splits: some that are held out now were learned from
    again, work = prepared(
        tmp_path / "again", "data.split_seed=3", f"gan.init_from={tmp_path}/start"
    )
    with pytest.raises(DataError, match="allow_overlap"):
        train_gan(again, work)


def test_what_is_for_others_makes_images_and_names_nobody(workspace, tmp_path):
    shared, whole = tmp_path / "shared", load_generator(Store(workspace.gan))
    keys = {
        key for one in Provenance(Store(workspace.gan), "it") for key in one["group"].to_pylist()
    }
    export_gan(workspace.gan, str(shared), for_others=True)
    label = np.eye(3, dtype=np.float32)[:1]
    config = SamplingConfig(noise_mode="const")
    found = sample_images(load_generator(Store(shared)).network, [3], label, config)
    right = sample_images(whole.network, [3], label, config)
    assert np.abs(found.astype(int) - right).max() <= 2
    files = sorted(path.name for path in shared.iterdir())
    assert files == ["generator.json", "generator.safetensors", "seen.parquet"]
    written = b"".join(path.read_bytes() for path in shared.iterdir())
    assert keys and not any(key.encode() in written for key in keys)
    record = Provenance(Store(shared), "the generator")
    assert list(record) == [] and len(record.unknown) == 1
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        load_weights(Store(shared))


def test_what_is_for_others_does_not_say_where_its_training_started_from(workspace, tmp_path):
    store = Store(workspace.gan)
    (newest,) = checkpoints(store)[-1:]
    spec, _ = checkpoint_spec(store, newest)
    started = dataclasses.replace(spec.config, init_from="/scratch/doe/start")
    spec = dataclasses.replace(spec, config=started)
    save_shared(Store(tmp_path), checkpoint_weights(store, newest), spec, kimg=1.0)
    assert "doe" not in (tmp_path / "generator.json").read_text()


def test_exports_that_cannot_be_made_are_refused(workspace, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint to export; run gemix train-gan"):
        export_gan(str(tmp_path / "nothing"), str(tmp_path / "start"))
    export_gan(workspace.gan, str(tmp_path / "start"))
    with pytest.raises(AlreadyFinishedError, match="--overwrite"):
        export_gan(workspace.gan, str(tmp_path / "start"))
    export_gan(workspace.gan, str(tmp_path / "start"), overwrite=True)


def test_a_network_that_the_zoo_does_not_have_is_named():
    with pytest.raises(ConfigError, match=r"zoo:nothing.*there are "):
        open_pretrained("zoo:nothing")
    assert open_pretrained("/some/where").url == "/some/where"


@pytest.mark.parametrize("name", zoo_names())
def test_every_network_of_the_zoo_is_whole_small_and_fits_the_widths_of_its_card(name):
    store = open_pretrained(f"zoo:{name}")
    bundle, weights = load_generator(store), load_weights(store)
    card = store.read_bytes("CARD.md").decode()
    assert card.startswith(f"# {name}\n") and f"gan.init_from=zoo:{name}" in card
    given = dict(word[4:].split("=") for word in card.split() if word.startswith("gan."))
    widths = {key: int(given[key]) for key in ("z_dim", "w_dim", "channel_base", "channel_max")}
    # an auxiliary classifier is taken over where a training has one, and left where it has none
    weight = float(bundle.network.architecture.auxiliary_classifier)
    config = GanConfig(
        mapping_layers=int(given["mapping_layers"]), classifier_weight=weight, **widths
    )
    shape = config.architecture(
        resolution=bundle.network.architecture.resolution, img_channels=1, label_dim=3
    )
    state = new_state(shape, config, torch.device("cpu"))
    for network, saved in (
        (state.generator, weights.generator),
        (state.discriminator, weights.discriminator),
    ):
        found = {key: value.shape for key, value in network.state_dict().items()}
        assert found == {key: value.shape for key, value in saved.items()}
    size = sum(store.size(file) for file in store.list())
    assert size < 8 * 2**20 and store.exists(PROVENANCE)
    assert read_weights(store, "generator", bundle.checksum, "").keys() == weights.generator.keys()
