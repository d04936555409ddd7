"""Checkpoints hold the whole state, of any version; what a message tells to do works."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gemix.core.distributed import Workers
from gemix.core.errors import CheckpointError, DataError
from gemix.gan.checkpoints.checkpoint import (
    TrainingSpec,
    check_resumable,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from gemix.gan.checkpoints.format import FORMAT_VERSION
from gemix.gan.checkpoints.generator_io import load_generator, load_weights, save_generator
from gemix.gan.checkpoints.resume_rules import STABILIZING
from gemix.gan.checkpoints.safetensors_io import wrap_checkpoint_errors
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.models.architecture import Architecture
from gemix.gan.sampling import sample_images
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store
from tests.gan.test_training import ARCHITECTURE, CPU, disks, spec_of, tiny_config, weights

# A checkpoint after step 5 and the generator after step 8 of one training, as written by the
# version before files had a format_version.
FORMAT_1 = Path(__file__).parent / "fixtures" / "format1"
# The same, as written by the version that counted on the host, after an R1 phase that failed.
FORMAT_2 = FORMAT_1.with_name("format2")
SIZES = {"z_dim": 4, "w_dim": 4, "mapping_layers": 1, "channel_base": 32, "channel_max": 2}


@pytest.fixture
def format_1(tmp_path) -> Store:
    shutil.copytree(FORMAT_1, tmp_path / "gan")
    return Store(tmp_path / "gan")


def spec_of_format_1(**changes) -> TrainingSpec:
    settings = {
        "kimg": 0.064,
        "batch": 8,
        "d_reg_interval": 4,
        "ada_kimg": 0.1,
        "precision": "float32",
        "max_skipped_steps": 2,
        "augment": "none",
    }
    return TrainingSpec(
        architecture=Architecture(
            resolution=16, img_channels=1, label_dim=3, d_mapping_layers=1, **SIZES
        ),
        config=GanConfig(**(SIZES | settings | changes)),
        classes=("a", "b", "c"),
        data_digest="d1",
    )


def test_a_checkpoint_of_format_1_resumes_and_ends_where_its_version_did(format_1):
    spec = spec_of_format_1()
    check_resumable(format_1, spec)
    state = resume_or_start(format_1, spec, CPU)
    assert (state.step, state.augment_p, state.sign_count) == (5, 0.25, 8)
    assert (state.skipped_updates, state.fallback_level, state.failing_steps) == (2, 1, 0)
    (group,) = state.g_optimizer.param_groups
    state = train(state, disks(), spec.config)
    assert (state.step, group["lr"]) == (8, group["initial_lr"] / 2)
    expected = load_file(FORMAT_1 / "generator.safetensors")
    for name, value in state.generator_ema.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    save_checkpoint(format_1, state, spec)  # from here on it is of the current version
    newest = format_1.read_json(f"{checkpoints(format_1)[-1]}.json")
    assert newest["format_version"] == FORMAT_VERSION and "easings" not in newest
    assert resume_or_start(format_1, spec, CPU).fallback_level == 1


def test_a_checkpoint_of_format_2_resumes_and_ends_where_its_version_did(tmp_path):
    shutil.copytree(FORMAT_2, tmp_path / "gan")
    store, spec = Store(tmp_path / "gan"), spec_of_format_1()
    check_resumable(store, spec)
    state = resume_or_start(store, spec, CPU)
    assert (state.step, state.augment_p, state.sign_count) == (5, 0.25, 8)
    assert (state.skipped_updates, state.phase_failures.tolist()) == (3, [0, 0, 0, 1])
    state = train(state, disks(), spec.config)
    expected = load_file(FORMAT_2 / "generator.safetensors")
    for name, value in state.generator_ema.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_a_generator_of_format_1_is_sampled(format_1):
    bundle = load_generator(format_1)
    assert (bundle.classes, bundle.kimg) == (("a", "b", "c"), 0.064)
    images = sample_images(bundle.network, [1], np.eye(3, dtype=np.float32)[:1], SamplingConfig())
    assert images.shape == (1, 1, 16, 16)
    assert load_weights(format_1).discriminator is not None


def test_a_checkpoint_of_format_1_resumes_whatever_its_method_did_not_read(tmp_path):
    store, config = Store(tmp_path), tiny_config(method="cgan")
    plain = Architecture(resolution=16, img_channels=1, label_dim=3, z_dim=16, channel_base=128)
    spec = dataclasses.replace(spec_of(config), architecture=plain)
    name = save_checkpoint(store, new_state(plain, config, CPU), spec)
    values = store.read_json(f"{name}.json")
    for key in ("format_version", "fallback_level", "setting_changes"):
        del values[key]
    values |= {"easings": 0, "failing_steps": 0, "sign_count": 0, "augment_p": 0.0}
    values["skipped_updates"] = 0
    values["config"] |= {"w_dim": 64, "mapping_layers": 1, "r1_gamma": 0.5, "data": "stream"}
    del values["config"]["data_loading"]
    sizes = {"w_dim": 64, "mapping_layers": 1, "d_mapping_layers": 1, "mbstd_group_size": 2}
    values["architecture"] |= sizes
    store.write_json(f"{name}.json", values)
    check_resumable(store, spec)
    assert resume_or_start(store, spec, CPU).step == 0
    changed = dataclasses.replace(plain, z_dim=8)
    with pytest.raises(CheckpointError, match="z_dim was 16, now 8"):
        check_resumable(store, dataclasses.replace(spec, architecture=changed))


@pytest.mark.parametrize("file", ["checkpoint-00000005.json", "generator.json"])
def test_a_file_of_a_later_version_is_named_and_not_called_damaged(format_1, file):
    values = format_1.read_json(file) | {"format_version": FORMAT_VERSION + 1}
    format_1.write_json(file, values)
    read = load_generator if file == "generator.json" else load_weights
    with pytest.raises(CheckpointError) as raised:
        read(format_1)
    said = str(raised.value)
    assert f"{file}: has format version {FORMAT_VERSION + 1}" in said
    assert "install the version of gemix that wrote it" in said
    assert "delete" not in said and "not as gemix wrote it" not in said


@pytest.mark.parametrize("version", ["2", 0, None, 1.5])
def test_a_version_that_is_no_number_is_damage(format_1, version):
    values = format_1.read_json("generator.json") | {"format_version": version}
    format_1.write_json("generator.json", values)
    with pytest.raises(CheckpointError, match=r"generator\.json: not as gemix wrote it"):
        load_generator(format_1)


def test_every_field_of_the_state_is_restored(tmp_path):
    config, store = tiny_config(precision="auto"), Store(tmp_path)
    state = train(new_state(ARCHITECTURE, config, CPU), disks(), tiny_config(kimg=0.008))
    changed = {
        "precision": "bfloat16",
        "step": 7,
        "fallback_level": 1,
        "setting_changes": [{"step": 1, "setting": "g_lr", "old": None, "new": 0.1}],
    }
    assert changed.keys() == state.values.keys()
    for name, value in changed.items():
        setattr(state, name, value)
    numbers = {
        "pl_mean": 0.25,
        "sign_sum": -3.0,
        "sign_count": 3,
        "augment_p": 0.5,
        "skipped_updates": 4,
        "phase_failures": [0, 0, 0, 2],
    }
    assert numbers.keys() == state.tensors.keys()
    for name, value in numbers.items():
        getattr(state, name).copy_(torch.tensor(value))
    save_checkpoint(store, state, spec_of(config))
    loaded = resume_or_start(store, spec_of(config), CPU)
    assert loaded.values == changed
    assert {name: value.tolist() for name, value in loaded.tensors.items()} == numbers
    assert all(value.dtype == getattr(state, name).dtype for name, value in loaded.tensors.items())
    assert all(torch.equal(value, weights(state)[name]) for name, value in weights(loaded).items())
    for key, optimizer in state.optimizers.items():
        saved, found = optimizer.state_dict()["state"], loaded.optimizers[key].state_dict()["state"]
        assert saved.keys() == found.keys() and saved
        for index, slots in saved.items():
            assert all(torch.equal(found[index][slot], value) for slot, value in slots.items())


def test_a_setting_that_the_checkpoint_does_not_know_had_its_default(tmp_path):
    store, config = Store(tmp_path), tiny_config()
    save_checkpoint(store, new_state(ARCHITECTURE, config, CPU), spec_of(config))
    values = store.read_json("checkpoint-00000000.json")
    del values["config"]["shuffle_gb"], values["architecture"]["conv_clamp"]
    store.write_json("checkpoint-00000000.json", values)
    assert resume_or_start(store, spec_of(config), CPU).step == 0
    with pytest.raises(CheckpointError, match=r"shuffle_gb was 2\.0, now 1\.0"):
        resume_or_start(store, spec_of(tiny_config(shuffle_gb=1.0)), CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"kimg": 1.0},
        {"snapshot_kimg": 1.0},
        {"keep_checkpoints": 5},
        {"data_memory_gb": 1.0},
        {"compile": True},
        {"max_skipped_steps": 20},
    ],
)
def test_operational_settings_may_change(tmp_path, change):
    store, config = Store(tmp_path), tiny_config()
    save_checkpoint(store, new_state(ARCHITECTURE, config, CPU), spec_of(config))
    spec = spec_of(tiny_config(**change))
    check_resumable(store, spec)
    assert resume_or_start(store, spec, CPU).setting_changes == []


class Broken(type(disks())):
    """Images that are not finite from step 3 on."""

    def real_batch(self, step, batch, batch_index):
        images, labels = super().real_batch(step, batch, batch_index)
        return (images * float("nan") if step >= 3 else images), labels


REMEDIES = {"g_lr": 1e-4, "d_lr": 1e-4, "r1_gamma": 5.0, "precision": "float32"}
CGAN_REMEDIES = {"cgan_lr": 1e-5, "cgan_loss": "nonsaturating", "precision": "float32"}


@pytest.mark.parametrize(
    ("method", "remedies"), [("stylegan2-ada", REMEDIES), ("cgan", CGAN_REMEDIES)]
)
def test_every_remedy_for_a_divergence_works(tmp_path, method, remedies):
    """A training that diverged resumes with each setting that the message names."""
    config = tiny_config(method=method, precision="bfloat16", max_skipped_steps=2)
    good, store = disks(), Store(tmp_path)
    bad = Broken(good.images.numpy(), good.labels.numpy(), seed=3)

    def on_step(state, values):
        if not state.failing_steps:
            save_checkpoint(store, state, spec_of(config))

    def last_good():
        return resume_or_start(store, spec_of(config), CPU)

    with pytest.raises(DivergedError) as raised:
        train(last_good(), bad, config, on_step=on_step, last_good=last_good)
    named = re.findall(r"gan\.(\w+)", METHODS[method].hint)
    assert set(named) == set(remedies) <= set(STABILIZING)
    assert all(f"gan.{name}" in str(raised.value) for name in named)
    for setting, value in remedies.items():
        changed = dataclasses.replace(config, **{setting: value})
        check_resumable(store, spec_of(changed))
        state = load_checkpoint(store, checkpoints(store)[-1], spec_of(changed), CPU)
        record = {"step": 3, "setting": setting, "old": getattr(config, setting), "new": value}
        assert (state.step, state.fallback_level) == (3, 0)
        assert state.setting_changes == [record]
        trainer = METHODS[method](state, good, changed, Workers())
        assert trainer.dtype is getattr(torch, changed.precision)
        rates = [group["lr"] for o in state.optimizers.values() for group in o.param_groups]
        wanted = [s.lr for s in METHODS[method].adam(changed, 16)]
        assert rates == pytest.approx(wanted)
        state = train(state, good, changed)
        assert state.step == 6
        folder = Store(tmp_path / setting)
        save_checkpoint(folder, state, spec_of(changed))
        save_generator(folder, state, spec_of(changed))
        again = resume_or_start(folder, spec_of(changed), CPU)  # the change is recorded once
        assert again.setting_changes == [record]
        assert folder.read_json("generator.json")["setting_changes"] == [record]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_is_too_small_is_not_called_damage(error, wrapped):
    with pytest.raises((type(error), DataError)) as raised, wrap_checkpoint_errors("f", "delete f"):
        if wrapped:  # as a store does
            raise DataError("f: cannot be read") from error
        raise error
    assert "delete" not in str(raised.value)
    assert not isinstance(raised.value, CheckpointError)


def test_memory_that_is_too_small_while_loading_leaves_the_checkpoint_named_whole(
    tmp_path, monkeypatch
):
    store, config = Store(tmp_path), tiny_config()
    save_checkpoint(store, new_state(ARCHITECTURE, config, CPU), spec_of(config))

    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        resume_or_start(store, spec_of(config), CPU)


def test_a_file_that_may_not_be_read_is_not_called_damage(tmp_path, monkeypatch):
    store, config = Store(tmp_path), tiny_config()
    save_checkpoint(store, new_state(ARCHITECTURE, config, CPU), spec_of(config))

    def denied(self, name, *args):
        try:
            raise PermissionError("denied")
        except PermissionError as error:
            raise DataError(f"{name}: cannot be read ({error})") from error

    monkeypatch.setattr(Store, "read_bytes", denied)
    with pytest.raises(CheckpointError, match="check the permissions") as raised:
        resume_or_start(store, spec_of(config), CPU)
    assert "delete" not in str(raised.value)
