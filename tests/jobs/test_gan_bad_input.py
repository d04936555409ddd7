"""What a user of train-gan and sample is told about input that does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gemix.data.shards.manifest import Manifest
from gemix.gan.checkpoints.checkpoint import save_checkpoint
from gemix.gan.checkpoints.generator_io import save_generator
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.steps.train_gan import training_spec
from jobs import sample as sample_job
from jobs import train_gan as gan_job


@pytest.fixture
def told(tiny_overrides, prepared, capsys):
    """Runs train-gan, which refuses; gives the exit code and what it says."""

    def run(*overrides: str) -> tuple[int, str]:
        arguments = ["-w", prepared.workdir, *tiny_overrides, *overrides]
        code = gan_job.COMMAND.main(arguments)
        return code, capsys.readouterr().err.strip()

    return run


@pytest.fixture
def unfinished(tiny_config, prepared):
    """A training that was stopped at its first checkpoint."""
    store = Store(prepared.gan)
    origin = training_spec(tiny_config, Manifest.load(Store(prepared.data)))
    state = new_state(origin.architecture, origin.config, torch.device("cpu"))
    save_checkpoint(store, state, origin)
    yield store
    store.clear("checkpoint-00000000.json")


@pytest.fixture
def manifest(prepared):
    """Changes the manifest of the data for a test."""
    data = Store(prepared.data)
    before = Manifest.load(data)
    yield lambda **changes: dataclasses.replace(before, **changes).save(data)
    before.save(data)


def test_data_of_another_kind_than_the_checkpoint_are_named(unfinished, told):
    name = "checkpoint-00000000.json"
    before = unfinished.read_json(name)
    sizes = before["architecture"]
    for changes, message in [
        ({"classes": [*before["classes"], "effusion"]}, "was trained on 4 classes"),
        ({"classes": ["a", *before["classes"][1:]]}, "classes were ["),
        ({"architecture": sizes | {"img_channels": 3}}, "img_channels was 3, now 1"),
        ({"architecture": sizes | {"resolution": 32}}, "resolution was 32, now 16"),
        ({"data_digest": "0" * 64}, "the training images have changed, data_digest was "),
    ]:
        unfinished.write_json(name, before | changes)
        code, said = told()
        assert code == 1
        assert said.startswith(f"gemix train-gan: {unfinished.url}/checkpoint-00000000.json: ")
        assert message in said
        assert said.endswith("use another work directory, or --overwrite to start over")


def test_a_network_of_other_sizes_than_the_checkpoint_is_named(unfinished, told):
    code, said = told("gan.channel_max=8")
    assert code == 1
    assert "architecture changed: channel_max was 16, now 8; use another work directory" in said


def test_a_half_written_checkpoint_is_named(unfinished, told):
    name = "checkpoint-00000000.json"
    unfinished.write_bytes(name, unfinished.read_bytes(name)[:40])
    code, said = told()
    assert code == 1
    assert f"{unfinished.url}/{name}: not valid JSON" in said
    assert f"delete {unfinished.url}/{name} to go on from the checkpoint before it" in said


def test_sides_of_no_power_of_two_are_named(manifest, prepared, told):
    code, said = told("data.resolution=48")
    assert code == 2
    assert "data.resolution: given 48, allowed: an integer, a power of two from 16 to 1024" in said
    manifest(resolution=48)
    code, said = told()
    assert code == 1
    assert f"{prepared.data}: images of 48 x 48 pixels" in said
    assert "run gemix prepare --overwrite with such a data.resolution" in said


def test_batches_that_workers_cannot_share_are_named(told):
    code, said = told("compute.workers=3")
    assert code == 2
    assert "gan.batch 8 makes 2 groups of 4, which 3 workers cannot share evenly" in said
    assert "choose a batch of a multiple of 12 or another compute.workers" in said


def test_a_start_from_nothing_is_named(told, tmp_path):
    Store(tmp_path).write_bytes("generator.json", b"{")
    code, said = told(f"gan.init_from={tmp_path}")
    assert code == 1
    assert f"{tmp_path}/generator.json: not valid JSON" in said


def test_labels_of_a_generator_without_classes_are_refused(tiny_config, prepared, tmp_path, capsys):
    origin = training_spec(tiny_config, Manifest.load(Store(prepared.data)))
    sizes = dataclasses.replace(origin.architecture, label_dim=0)
    origin = dataclasses.replace(origin, architecture=sizes, classes=())
    state = new_state(sizes, origin.config, torch.device("cpu"))
    gan = Store(tmp_path / "gan")
    save_generator(gan, state, origin)
    arguments = ["--gan", gan.url, "--out", str(tmp_path / "out"), "--seeds", "0"]
    assert sample_job.COMMAND.main([*arguments, "--label", "1"]) == 2
    assert "--label: the generator has no classes; leave it out" in capsys.readouterr().err
    assert sample_job.COMMAND.main(arguments) == 0


@pytest.mark.parametrize("harm", ["json", "weights", "sizes"])
def test_sampling_from_a_damaged_generator_is_refused(
    tiny_config, prepared, tmp_path, capsys, harm
):
    origin = training_spec(tiny_config, Manifest.load(Store(prepared.data)))
    state = new_state(origin.architecture, origin.config, torch.device("cpu"))
    gan = Store(tmp_path / "gan")
    save_generator(gan, state, origin)
    if harm == "json":
        gan.write_bytes("generator.json", gan.read_bytes("generator.json")[:50])
    elif harm == "weights":
        gan.write_bytes("generator.safetensors", gan.read_bytes("generator.safetensors")[:-1])
    else:
        values = gan.read_json("generator.json")
        values["architecture"]["img_channels"] = 3
        gan.write_json("generator.json", values)
    arguments = ["--gan", gan.url, "--out", str(tmp_path / "out"), "--label", "1,0,0"]
    assert sample_job.COMMAND.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("gemix sample: ") and "generator" in said
    assert "delete generator.json and run gemix train-gan again" in said
    assert not Store(tmp_path / "out").list()
