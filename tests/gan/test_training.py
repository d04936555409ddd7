"""Training through its public doors: learning, determinism, resume by equality."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gemix.core.config_schema import settings_of_other_methods
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError, DataError
from gemix.gan.checkpoints.checkpoint import TrainingSpec, checkpoints, save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.data.batch_split import local_indices
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.loop import train
from gemix.gan.training.registry import new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store

CPU = torch.device("cpu")
ARCHITECTURE = Architecture(
    resolution=16,
    img_channels=1,
    label_dim=3,
    z_dim=16,
    w_dim=16,
    mapping_layers=2,
    d_mapping_layers=2,
    channel_base=128,
    channel_max=16,
)


def tiny_config(**changes) -> GanConfig:
    settings = {
        "kimg": 0.048,
        "batch": 8,
        "z_dim": 16,
        "w_dim": 16,
        "mapping_layers": 2,
        "channel_base": 128,
        "channel_max": 16,
        "d_reg_interval": 4,
        "ada_kimg": 0.1,
        "precision": "float32",
    }
    settings |= changes
    for name in settings_of_other_methods(GanConfig, settings.get("method", "stylegan2-ada")):
        settings.pop(name, None)
    return GanConfig(**settings)


def disks(count: int = 60, size: int = 16) -> InMemoryDataset:
    """Three classes: dark, middling and bright disks."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    y, x = np.mgrid[:size, :size]
    radius = rng.uniform(4, 6, count)
    inside = np.hypot(y - 7.5, x - 7.5)[None] < radius[:, None, None]
    images = (inside * (60 + 90 * labels)[:, None, None]).astype(np.uint8)
    return InMemoryDataset(images[:, None], np.eye(3, dtype=np.float32)[labels], seed=3)


def spec_of(config: GanConfig) -> TrainingSpec:
    return TrainingSpec(
        architecture=ARCHITECTURE, config=config, classes=("a", "b", "c"), data_digest="d1"
    )


def weights(state) -> dict[str, torch.Tensor]:
    return {
        f"{key}.{name}": value.clone()
        for key, network in state.networks.items()
        for name, value in network.state_dict().items()
    }


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_training_reports_every_phase_and_moves_every_network():
    config = tiny_config()
    state = new_state(ARCHITECTURE, config, CPU)
    before, seen = weights(state), set()
    train(state, disks(), config, on_step=lambda _, values: seen.update(values))
    assert seen == {"loss_g", "loss_d", "path_length", "r1_penalty", "r_t"}
    assert state.step == 6
    after = weights(state)
    for key in ("generator", "discriminator", "generator_ema"):
        assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith(key))


@pytest.mark.slow
def test_the_generator_learns_the_classes():
    config = tiny_config(kimg=4, batch=16, augment="none", ema_kimg=0.5, pl_weight=0)
    state = train(new_state(ARCHITECTURE, config, CPU), disks(), config)
    z = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        centres = [
            state.generator_ema(z, torch.eye(3)[k].expand(16, 3))[:, :, 6:10, 6:10].mean().item()
            for k in range(3)
        ]
    assert centres[0] < centres[1] < centres[2]
    assert centres[2] - centres[0] > 0.7  # the real ones are 1.4 apart


@pytest.mark.parametrize("stop_after", [0.008, 0.024, 0.040])
def test_resuming_equals_never_stopping(tmp_path, stop_after):
    config = tiny_config()
    undisturbed = train(new_state(ARCHITECTURE, config, CPU), disks(), config)
    first = tiny_config(kimg=stop_after)
    store = Store(tmp_path)
    save_checkpoint(
        store, train(new_state(ARCHITECTURE, first, CPU), disks(), first), spec_of(first)
    )
    resumed = resume_or_start(store, spec_of(config), CPU)
    assert resumed.step == round(stop_after * 1000 / 8)
    train(resumed, disks(), config)
    assert_same(weights(resumed), weights(undisturbed))
    assert resumed.augment_p == undisturbed.augment_p
    assert torch.equal(resumed.pl_mean, undisturbed.pl_mean)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    config, store = tiny_config(keep_checkpoints=2), Store(tmp_path)
    state = new_state(ARCHITECTURE, config, CPU)
    for step in (1, 2, 3):
        state.step = step
        save_checkpoint(store, state, spec_of(config))
    assert checkpoints(store) == ["checkpoint-00000002", "checkpoint-00000003"]


def test_bfloat16_stays_close_to_float32():
    states = {}
    for precision in ("float32", "bfloat16"):
        config = tiny_config(precision=precision, kimg=0.016)
        states[precision] = weights(train(new_state(ARCHITECTURE, config, CPU), disks(), config))
    a, b = (torch.cat([v.flatten() for v in states[p].values()]) for p in ("float32", "bfloat16"))
    assert not torch.equal(a, b)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99


def test_each_epoch_shows_every_image_once():
    data = disks(count=20)
    shown = [data.real_batch(step, 8, range(8))[0] for step in range(5)]  # two epochs of 20
    order = torch.cat(shown).flatten(1)
    for epoch in (order[:20], order[20:]):
        assert len({tuple(row.tolist()) for row in epoch}) == len(
            {tuple(row.tolist()) for row in data.images.flatten(1).float()}
        )
    assert not torch.equal(order[:20], order[20:])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_workers_share_a_batch_with_its_stddev_groups_whole(size):
    parts = [local_indices(Workers(rank, size), 16, 4) for rank in range(size)]
    assert sorted(np.concatenate(parts)) == list(range(16))
    whole = np.arange(16).reshape(4, 4)
    groups = {tuple(column) for column in whole.T}
    for part in parts:
        assert {tuple(c) for c in np.array(part).reshape(4, -1).T} <= groups


@pytest.mark.parametrize(
    ("group", "shrink", "sizes"), [(4, 2, (1, 2, 4)), (1, 2, (1, 2, 8)), (4, 8, (1, 2))]
)
def test_path_lengths_are_of_the_same_images_for_any_number_of_workers(group, shrink, sizes):
    shares = [
        sorted(
            p for rank in range(size) for p in local_indices(Workers(rank, size), 16, group, shrink)
        )
        for size in sizes
    ]
    assert len(shares[0]) == 16 // shrink
    assert shares == [shares[0]] * len(sizes)


def test_workers_that_cannot_share_what_path_lengths_are_measured_on_are_told():
    with pytest.raises(ConfigError, match=r"pl_batch_shrink 8 .* 4 workers .* a divisor of 4"):
        local_indices(Workers(0, 4), 16, 4, 8)
    assert local_indices(Workers(), 4, 4, 8) == [0]  # one worker shares with nobody


def test_workers_that_cannot_share_evenly_are_told():
    with pytest.raises(ConfigError, match="multiple of 12"):
        local_indices(Workers(0, 3), 16, 4)


@pytest.mark.parametrize("shape", [(0, 1, 16, 16), (2, 1, 16, 8), (2, 1, 12, 12)])
def test_images_that_cannot_be_trained_on_are_refused(shape):
    with pytest.raises(DataError):
        InMemoryDataset(np.zeros(shape, np.uint8), np.ones((shape[0], 1), np.float32), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_dim": 0}, "label_dim is 3 in the data and 0 in the networks.*unconditional"),
        ({"label_dim": 4}, "label_dim is 3 in the data and 4 in the networks"),
        ({"resolution": 32}, "resolution is 16 in the data and 32 in the networks"),
        ({"img_channels": 3}, "img_channels is 1 in the data and 3 in the networks"),
    ],
)
def test_networks_of_other_data_are_refused(change, message):
    state = new_state(dataclasses.replace(ARCHITECTURE, **change), tiny_config(), CPU)
    with pytest.raises(ConfigError, match=message):
        train(state, disks(), tiny_config())
    assert state.step == 0
