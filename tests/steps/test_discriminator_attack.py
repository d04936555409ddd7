"""The attack with the discriminator of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gemix.config import load
from gemix.data.leakage.overlap import Split
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.checkpoints.generator_io import load_generator, save_generator
from gemix.gan.data.dataset import to_floats
from gemix.gan.training.registry import new_state
from gemix.io.storage import Store
from gemix.steps.sets.audited_images import collect
from gemix.steps.sets.discriminator_attack import discriminator_attack
from tests.steps.audit_sets import write_real, write_synthetic

WIDTHS = ("gan.z_dim=8", "gan.w_dim=8", "gan.mapping_layers=1", "gan.channel_base=64")
LABELS = torch.eye(3)


@pytest.mark.parametrize("method", ["stylegan2-ada", "cgan"])
def test_a_discriminator_that_has_learned_its_images_tells_members(method, tmp_path: Path):
    widths = WIDTHS if method == "stylegan2-ada" else ("gan.z_dim=8", "gan.channel_base=64")
    config = load("demo", [f"gan.method={method}", *widths, "gan.channel_max=8"])
    coarse = np.random.default_rng(0).integers(0, 256, (150, 1, 4, 4), dtype=np.uint8)
    drawn = coarse.repeat(8, axis=2).repeat(8, axis=3)
    data = write_real(str(tmp_path / "data"), {"train": drawn[:30], "val": drawn[30:60]})
    gan = Store(tmp_path / "gan")
    shape = config.gan.architecture(resolution=32, img_channels=1, label_dim=3)
    state = new_state(shape, config.gan, torch.device("cpu"))
    pixels = to_floats(torch.from_numpy(np.concatenate([drawn[:30], drawn[60:150]])))
    labels = LABELS[torch.arange(len(pixels)) % 3]
    truth = (torch.arange(len(pixels)) < 30).float()
    optimizer = torch.optim.Adam(state.discriminator.parameters(), lr=0.02)
    apart = {"batches": len(pixels)} if method == "stylegan2-ada" else {}
    for _ in range(60):
        optimizer.zero_grad()
        logits = state.discriminator(pixels, labels, **apart)[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, truth).backward()
        optimizer.step()
    spec = TrainingSpec(
        architecture=shape, config=config.gan, classes=("a", "b", "c"), data_digest="0" * 64
    )
    save_checkpoint(gan, state, spec)
    generator = save_generator(gan, state, spec)
    assert generator == load_generator(gan).checksum
    learned = [Split(Store(data), "train")]
    url = write_synthetic(str(tmp_path / "set"), drawn[60:90], learned, generator)
    found = collect(Store(url), [Store(data)], config.audit)
    result = discriminator_attack(gan, generator, found, seed=0)
    assert result.low > 0.6 and result.auc > 0.8
    assert discriminator_attack(gan, "0" * 64, found, seed=0) is None
    assert discriminator_attack(Store(tmp_path / "nothing"), generator, found, seed=0) is None
    gan.delete(f"checkpoint-{0:08d}.json")
    assert discriminator_attack(gan, generator, found, seed=0) is None
