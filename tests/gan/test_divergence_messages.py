"""What a training that meets numbers which are not finite does, and says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gemix.core.distributed import Workers
from gemix.gan.checkpoints.checkpoint import checkpoints, save_checkpoint
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import InMemoryDataset
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.fallback import MAX_FALLBACK_LEVEL, describe_fallback
from gemix.gan.training.loop import train
from gemix.gan.training.registry import METHODS, new_state
from gemix.gan.training.stages import resume_or_start
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store
from gemix.steps.gan_training.stage import Stage
from tests.gan.test_training import ARCHITECTURE, CPU, assert_same, spec_of, tiny_config, weights

NAN, INF = float("nan"), float("inf")
PATIENCE = 3


def config(**changes) -> GanConfig:
    settings = {"kimg": 0.08, "max_skipped_steps": PATIENCE, "snapshot_kimg": 0.032}
    return tiny_config(**(settings | changes))


class Images(InMemoryDataset):
    """Noise for scans; those of the `broken` steps are `value`, until a training goes back."""

    def __init__(self, broken=(), value: float = NAN):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 255, (24, 1, 16, 16), dtype=np.uint8)
        super().__init__(images, np.eye(3, dtype=np.float32)[np.arange(24) % 3], seed=0)
        self.broken, self.value, self.newest = set(broken), value, 0

    def real_batch(self, step, batch, positions):
        if step < self.newest:
            self.broken.clear()
        self.newest = step
        images, labels = super().real_batch(step, batch, positions)
        return (torch.full_like(images, self.value) if step in self.broken else images), labels


class Silent:
    """Takes what a run logs."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def finite(state: TrainingState) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in weights(state).values())


def moments(state: TrainingState) -> dict[str, torch.Tensor]:
    return {
        f"{key}.{index}.{slot}": value.clone()
        for key, optimizer in state.optimizers.items()
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def run_stage(store: Store, settings: GanConfig, data: InMemoryDataset) -> TrainingState:
    return Stage(store, spec_of(settings), data, Workers(), Silent()).run()


def records(store: Store) -> list[dict]:
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    lines = store.read_bytes("log.jsonl").decode().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_a_skipped_update_is_said_and_logged(tmp_path, caplog):
    store = Store(tmp_path)
    state = run_stage(store, config(), Images(broken=[5]))
    said = caplog.text
    assert "step 6: gradients were not finite, so 1 updates were skipped, 1 in all" in said
    assert said.count("not finite") == 1 and "back to" not in said and "fallback" not in said
    assert (state.step, state.skipped_updates, state.fallback_level) == (10, 1, 0)
    logged = {record["step"]: record for record in records(store)}  # up to the newest checkpoint
    assert [record["skipped_updates"] for record in logged.values()] == [0] * 5 + [1] * 3
    assert "loss_g" in logged[6] and np.isfinite(list(logged[6].values())[:-1]).all()


@pytest.mark.parametrize(
    ("changes", "setting", "rate"),
    [
        ({"precision": "float32"}, "gan.g_lr and gan.d_lr x 0.5", 0.5),
        ({"precision": "bfloat16"}, "gan.precision=float32", 1),
        ({"precision": "float32", "method": "cgan"}, "gan.cgan_lr x 0.5", 0.5),
    ],
)
def test_going_back_is_said_with_the_fallback(tmp_path, caplog, changes, setting, rate):
    settings = config(**changes)
    state = run_stage(Store(tmp_path), settings, Images(broken=range(5, 5 + PATIENCE)))
    said = caplog.text
    assert "gradients of too many steps were not finite; back to 0.03 kimg" in said
    assert f"fallback: {setting}\n" in said
    assert said.count("fallback") == 1
    assert (state.step, state.fallback_level, finite(state)) == (10, 1, True)
    assert describe_fallback(state, METHODS[settings.method].learning_rates) == setting
    trainer = METHODS[settings.method](state, Images(), settings, Workers())
    assert trainer.dtype is torch.float32
    for optimizer in state.optimizers.values():
        (group,) = optimizer.param_groups
        assert group["lr"] == group["initial_lr"] * rate


def test_a_setting_that_is_changed_at_a_resume_is_said(tmp_path, caplog):
    store = Store(tmp_path)
    run_stage(store, config(kimg=0.032), Images())
    assert "gan." not in caplog.text
    state = run_stage(store, config(g_lr=0.001), Images())
    assert "gan.g_lr was None up to step 4, now 0.001" in caplog.text
    assert [change["setting"] for change in state.setting_changes] == ["g_lr"]
    run_stage(store, config(g_lr=0.001, kimg=0.096), Images())
    assert caplog.text.count("gan.g_lr was None") == 2  # as every later resume says


def test_what_went_wrong_is_not_in_the_log_twice(tmp_path):
    store = Store(tmp_path)
    state = run_stage(store, config(), Images(broken=range(5, 5 + PATIENCE)))
    assert [record["step"] for record in records(store)] == list(range(1, 9))
    assert records(store)[-1]["skipped_updates"] == state.skipped_updates == PATIENCE


def test_no_checkpoint_is_made_of_a_training_in_trouble(tmp_path):
    """The snapshot after step 4 falls into failing steps, which end by going back."""
    store = Store(tmp_path)
    settings = config(snapshot_kimg=0.016)  # every second step
    at_going_back = []

    class Watched(Stage):
        def rollback(self):
            at_going_back.extend(checkpoints(store))
            return super().rollback()

    data = Images(broken=range(3, 3 + PATIENCE))
    state = Watched(store, spec_of(settings), data, Workers(), Silent()).run()
    assert at_going_back == ["checkpoint-00000002"]
    assert (state.step, state.fallback_level, finite(state)) == (10, 1, True)


def test_failures_that_are_not_in_a_row_are_no_reason_to_go_back():
    settings = config()
    broken = [0, 1, 3, 4, 6, 7]
    state = train(new_state(ARCHITECTURE, settings, CPU), Images(broken), settings)
    assert (state.step, state.fallback_level, state.failing_steps) == (10, 0, 0)
    assert state.skipped_updates >= len(broken)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_one_gradient_that_is_not_finite_leaves_the_network_as_it_was(network, value):
    settings = config(kimg=0.016, pl_weight=0, r1_gamma=0, ema_kimg=0, ema_rampup=None)
    state = train(new_state(ARCHITECTURE, settings, CPU), Images(), settings)
    weights_before, moments_before = weights(state), moments(state)
    last = list(getattr(state, network).parameters())[-1]
    last.requires_grad_(True).register_hook(lambda gradient: gradient * value)
    losses = {}
    train(state, Images(), config(kimg=0.024), on_step=lambda _, values: losses.update(values))
    assert np.isfinite([losses["loss_g"].item(), losses["loss_d"].item()]).all()
    assert (state.step, state.skipped_updates) == (3, 1)
    mine = ("generator", "generator_ema") if network == "generator" else ("discriminator",)
    for name, now in weights(state).items():
        if name.split(".")[0] in mine:
            assert torch.equal(now, weights_before[name]), name
    optimizer = "g_optimizer" if network == "generator" else "d_optimizer"
    assert_same(
        *(
            {name: slot for name, slot in side.items() if name.startswith(optimizer)}
            for side in (moments(state), moments_before)
        )
    )
    assert finite(state)


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_not_finite_changes_nothing(value):
    settings, losses = config(kimg=0.008, augment="none", r1_gamma=0), {}
    state = new_state(ARCHITECTURE, settings, CPU)
    before = {name: w for name, w in weights(state).items() if name.startswith("discriminator.")}
    train(state, Images([0], value), settings, on_step=lambda _, values: losses.update(values))
    assert not torch.isfinite(losses["loss_d"])
    assert (state.skipped_updates, state.sign_count) == (1, 0)
    assert_same({name: weights(state)[name] for name in before}, before)
    assert finite(state)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("value", [NAN, -INF])
def test_a_weight_that_is_not_finite_is_gone_back_from(tmp_path, network, value):
    settings, store, backs = config(), Store(tmp_path), []

    def on_step(state, values):
        if state.step == 4 and not backs:
            save_checkpoint(store, state, spec_of(settings))
            with torch.no_grad():
                next(getattr(state, network).parameters()).view(-1)[0] = value

    def last_good():
        backs.append(True)
        return resume_or_start(store, spec_of(settings), CPU)

    state = new_state(ARCHITECTURE, settings, CPU)
    state = train(state, Images(), settings, on_step=on_step, last_good=last_good)
    assert (len(backs), state.step, state.fallback_level) == (1, 10, 1)
    assert state.skipped_updates >= PATIENCE
    assert finite(state)


def test_the_last_message_names_what_was_tried_and_what_to_try(tmp_path):
    settings = config(precision="bfloat16")
    data = Images()
    data.real_batch = lambda step, batch, positions: (
        torch.full((len(positions), 1, 16, 16), NAN),
        torch.eye(3)[[0] * len(positions)],
    )
    with pytest.raises(DivergedError) as raised:
        run_stage(Store(tmp_path), settings, data)
    said = str(raised.value)
    assert f"diverged {MAX_FALLBACK_LEVEL + 1} times" in said
    assert "gan.precision=float32 and gan.g_lr and gan.d_lr x 0.125" in said
    assert "r1_gamma" in said
