"""Numbers that are not finite: skipped, counted, and gone back from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemix.core.distributed import Workers
from gemix.gan.checkpoints.checkpoint import TrainingSpec, save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.models.architecture import Architecture
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.fallback import MAX_FALLBACK_LEVEL, describe_fallback
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.io.storage import Store

CPU = torch.device("cpu")
SIZES = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}
ARCHITECTURE = Architecture(resolution=16, img_channels=1, label_dim=3, d_mapping_layers=2, **SIZES)


def config(**changes) -> GanConfig:
    settings = {"kimg": 0.08, "batch": 8, "precision": "float32", "max_skipped_steps": 3}
    return GanConfig(**SIZES | settings | changes)


class Images(InMemoryDataset):
    """Noise for scans; the real images of the steps in `broken` are not numbers."""

    def __init__(self, broken=()):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 255, (24, 1, 16, 16), dtype=np.uint8)
        super().__init__(images, np.eye(3, dtype=np.float32)[np.arange(24) % 3], seed=0)
        self.broken = set(broken)

    def real_batch(self, step, batch, positions):
        images, labels = super().real_batch(step, batch, positions)
        return (images * float("nan") if step in self.broken else images), labels


def finite(state) -> bool:
    tensors = (t for n in state.networks.values() for t in n.state_dict().values())
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def failures(state) -> dict[str, int]:
    """The phases that failed the last time that they ran, and how often in a row."""
    phases = METHODS["stylegan2-ada"].phases(config())
    counts = zip(phases, state.phase_failures.tolist(), strict=True)
    return {phase: count for phase, count in counts if count}


def test_a_failing_update_is_skipped_and_counted():
    settings = config()
    state = train(new_state(ARCHITECTURE, settings, CPU), Images(broken=[4]), settings)
    assert state.step == 10
    assert state.skipped_updates == 1  # the discriminator's; R1 is not due at step 4
    assert finite(state)


def test_a_skipped_update_leaves_weights_and_moments_as_they_were():
    settings = config(kimg=0.008, augment="none", style_mixing_prob=0)
    state = new_state(ARCHITECTURE, settings, CPU)
    before = {k: v.clone() for k, v in state.discriminator.state_dict().items()}
    train(state, Images(broken=[0]), settings)
    after = state.discriminator.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    moments = state.d_optimizer.state_dict()["state"].values()
    assert [slots for slots in moments if any(value.any() for value in slots.values())] == []
    assert state.sign_count == 0


def test_without_a_checkpoint_repeated_failures_stop_with_a_remedy():
    settings = config()
    state = new_state(ARCHITECTURE, settings, CPU)
    with pytest.raises(DivergedError, match=r"3 steps in a row.*r1_gamma"):
        train(state, Images(broken=range(2, 10)), settings)


def test_repeated_failures_go_back_to_the_checkpoint_with_a_fallback(tmp_path):
    settings = config()
    spec = TrainingSpec(
        architecture=ARCHITECTURE, config=settings, classes=("a", "b", "c"), data_digest="d"
    )
    store, data, went_back = Store(tmp_path), Images(broken=range(5, 10)), []

    def on_step(state, values):
        if state.step == 4:
            save_checkpoint(store, state, spec)

    def last_good():
        went_back.append(True)
        data.broken.clear()  # this time it goes well
        return resume_or_start(store, spec, CPU)

    state = new_state(ARCHITECTURE, settings, CPU)
    state = train(state, data, settings, on_step=on_step, last_good=last_good)
    assert (len(went_back), state.step, state.fallback_level) == (1, 10, 1)
    assert describe_fallback(state, "gan.g_lr and gan.d_lr") == "gan.g_lr and gan.d_lr x 0.5"
    halved = state.g_optimizer.param_groups[0]
    assert halved["lr"] == pytest.approx(halved["initial_lr"] / 2)
    assert finite(state)
    # the fallback level is state: a resumed training goes on with it
    save_checkpoint(store, state, spec)
    again = resume_or_start(store, spec, CPU)
    assert (again.fallback_level, again.skipped_updates) == (1, state.skipped_updates)


@pytest.mark.parametrize(
    ("phase", "method"),
    [("R1", "regularize_discriminator"), ("path length", "regularize_generator")],
)
def test_a_lazy_phase_that_always_fails_is_noticed(monkeypatch, phase, method):
    """It runs once in four steps, and every other phase succeeds in between."""
    settings = config(kimg=1.0, d_reg_interval=4, g_reg_interval=4)
    state = new_state(ARCHITECTURE, settings, CPU)
    trainer = METHODS["stylegan2-ada"](state, Images(), settings, Workers())
    losses = trainer.loss
    if phase == "R1":
        broken = losses.r1_penalties
        monkeypatch.setattr(losses, "r1_penalties", lambda *a: broken(*a) * float("nan"))
    else:
        broken = losses.path_lengths
        monkeypatch.setattr(losses, "path_lengths", lambda *a: broken(*a) * float("nan"))
    with pytest.raises(DivergedError) as raised:
        for _ in range(20):
            trainer.run_step()
    assert state.step == 9  # it failed at steps 0, 4 and 8
    assert failures(state) == {phase: 3}
    said = str(raised.value)
    assert f"the gradients of the {phase} phase are not finite in 3 steps in a row that ran" in said


def test_a_lazy_phase_that_fails_now_and_then_is_not_a_divergence(monkeypatch):
    settings = config(kimg=1.0, d_reg_interval=2)
    state = new_state(ARCHITECTURE, settings, CPU)
    trainer = METHODS["stylegan2-ada"](state, Images(), settings, Workers())
    intact, factors = trainer.loss.r1_penalties, [float("nan"), float("nan"), 1.0] * 2
    monkeypatch.setattr(
        trainer.loss, "r1_penalties", lambda *args: intact(*args) * factors[state.step // 2]
    )
    for _ in range(12):
        trainer.run_step()
    assert (state.skipped_updates, failures(state), state.failing_steps) == (4, {}, 0)


def test_bfloat16_is_the_first_to_go():
    state = new_state(ARCHITECTURE, config(precision="bfloat16"), CPU)
    state.fallback_level = 1
    assert describe_fallback(state, "gan.g_lr") == "gan.precision=float32"


def test_it_gives_up_when_no_fallback_is_left():
    settings = config()

    def last_good():
        return new_state(ARCHITECTURE, settings, CPU)

    with pytest.raises(DivergedError, match=rf"{MAX_FALLBACK_LEVEL + 1} times.*0\.0625"):
        train(last_good(), Images(broken=range(10)), settings, last_good=last_good)
