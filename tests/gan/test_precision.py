"""What convolutions compute in: settled once, the same on all workers, exact where it says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core import device as devices
from gemix.core.device import precision_name, resolve_precision
from gemix.core.distributed import Workers
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.config import GanConfig, SamplingConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.sampling import sample_images
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store

CPU = torch.device("cpu")
SIZES = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}
ARCHITECTURE = Architecture(resolution=16, img_channels=1, label_dim=3, d_mapping_layers=2, **SIZES)
CONFIG = GanConfig(kimg=0.032, batch=8, **SIZES)
ORIGIN = TrainingSpec(
    architecture=ARCHITECTURE, config=CONFIG, classes=("a", "b", "c"), data_digest="d"
)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, 1, 16, 16), dtype=np.uint8)
    return InMemoryDataset(pixels, np.eye(3, dtype=np.float32)[np.arange(24) % 3], seed=0)


def settle(monkeypatch, precision):
    monkeypatch.setattr(devices, "compute_dtype", lambda asked, device: getattr(torch, precision))


def test_a_training_goes_on_in_the_precision_that_it_began_in(tmp_path, monkeypatch, images):
    """On another machine `auto` may mean another one; the result must not depend on where."""

    def trained(*precisions):
        state, store = new_state(ARCHITECTURE, CONFIG, CPU), Store(tmp_path / "-".join(precisions))
        for step, precision in enumerate(precisions):
            settle(monkeypatch, precision)
            part = GanConfig(**CONFIG.to_mapping() | {"kimg": 0.016 * (step + 1)})
            state = train(state, images, part)
            save_checkpoint(store, state, ORIGIN)
            state = resume_or_start(store, ORIGIN, CPU)
        return state

    state, undisturbed = trained("float32", "bfloat16"), trained("float32", "float32")
    assert state.precision == "float32"
    for name, value in undisturbed.generator.state_dict().items():
        assert torch.equal(value, state.generator.state_dict()[name]), name
    other = trained("bfloat16", "float32")
    assert other.precision == "bfloat16"
    assert any(
        not torch.equal(value, other.generator.state_dict()[name])
        for name, value in undisturbed.generator.state_dict().items()
    )


@pytest.mark.parametrize(("lacking", "settled"), [(0, "bfloat16"), (1, "float32")])
def test_bfloat16_is_chosen_where_all_workers_have_it(monkeypatch, lacking, settled):
    class Two(Workers):
        def all_reduce_sum(self, value):
            return value + lacking  # what the other one says

    settle(monkeypatch, "bfloat16")
    assert resolve_precision(CPU, Two(0, 2)) == settled


def test_float32_is_not_rounded_to_tf32(monkeypatch, images):
    """PyTorch's own default lets cuDNN round; a caller's settings come back afterwards."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    monkeypatch.setattr(cudnn, "benchmark", False)
    seen, tuned = [], []

    def look(*args):
        seen.append((cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        tuned.append(cudnn.benchmark)

    state = new_state(ARCHITECTURE, CONFIG, CPU)
    hook = state.generator.mapping.register_forward_pre_hook(look)
    train(state, images, CONFIG, on_step=look)
    hook.remove()
    assert len(seen) > 4 and set(seen) == {(False, False)}
    seen.clear(), tuned.clear()
    train(new_state(ARCHITECTURE, CONFIG, CPU), images, CONFIG, on_step=look)
    state.generator_ema.register_forward_pre_hook(look)
    label = np.eye(3, dtype=np.float32)[:1]
    sample_images(state.generator_ema, [0], label, SamplingConfig(), CPU)
    assert len(seen) == 5
    assert set(seen) == {(False, False)}
    assert tuned == [True] * 4 + [False]  # a sample's shape comes once
    assert (cudnn.allow_tf32, cudnn.benchmark) == (True, False)


@pytest.mark.parametrize(("fallback_level", "rounded"), [(0, True), (1, False)])
def test_tf32_is_a_precision_of_the_steps_alone(images, fallback_level, rounded):
    config = dataclasses.replace(CONFIG, precision="tf32")
    state, in_steps, between = new_state(ARCHITECTURE, config, CPU), set(), set()
    state.fallback_level = fallback_level
    state.generator.mapping.register_forward_pre_hook(
        lambda *args: in_steps.add(torch.backends.cudnn.allow_tf32)
    )
    train(
        state,
        images,
        config,
        on_step=lambda *args: between.add(torch.backends.cudnn.allow_tf32),
    )
    assert (in_steps, between) == ({rounded}, {False})
    assert state.precision == "tf32"


def test_a_precision_is_named_by_what_the_device_computes_in():
    gpu = torch.device("cuda")
    assert [precision_name("tf32", device) for device in (gpu, CPU)] == ["tf32", "float32"]
    assert [precision_name("bfloat16", device) for device in (gpu, CPU)] == ["bfloat16"] * 2
    assert precision_name("auto", CPU) == resolve_precision(CPU, Workers())
