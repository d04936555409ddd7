"""The training loop, the same for every method."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gemix.core.device import cudnn_benchmark, disable_tf32
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.training.divergence import DivergedError, ease
from gemix.gan.training.registry import TRAINERS
from gemix.gan.training.state import TrainingState


@disable_tf32()
@cudnn_benchmark()
def train(
    state: TrainingState,
    data: TrainingDataset,
    config: GanConfig,
    *,
    workers: Workers | None = None,
    on_step: Callable[[TrainingState, dict[str, Tensor]], None] = lambda state, values: None,
    last_good: Callable[[], TrainingState] | None = None,
) -> TrainingState:
    """Trains until `config.kimg` thousand real images were shown.

    Args:
        state: a new state, or one loaded from a checkpoint; changed in place.
        on_step: called after each step with the state and the step's losses (scalar tensors on
            the training device, of this worker).
        last_good: gives the state to go back to, with a setting eased, when steps keep failing.

    Returns:
        The trained state; not the one given if training had to go back.

    Raises:
        ConfigError: if the data are not such as the networks are built for.
        DivergedError: when steps keep failing and there is nothing to go back to or to ease.
    """
    _check_fit(state, data)
    workers = workers or Workers.from_process_group()
    trainer = TRAINERS[config.method](state, data, config, workers)
    while trainer.state.step < config.steps:
        try:
            values = trainer.run_step()
        except DivergedError as error:
            if last_good is None:
                raise
            state = ease(last_good(), trainer.state, config, error)
            trainer = TRAINERS[config.method](state, data, config, workers)
        else:
            on_step(trainer.state, values)
    return trainer.state


def _check_fit(state: TrainingState, data: TrainingDataset) -> None:
    """Networks without classes would ignore labels in silence, others fail in the middle."""
    architecture, (channels, _, side) = state.generator.architecture, data.shape
    found = {"label_dim": data.labels.shape[1], "img_channels": channels, "resolution": side}
    wrong = [
        f"{name} is {value} in the data and {getattr(architecture, name)} in the networks"
        for name, value in found.items()
        if value != getattr(architecture, name)
    ]
    if wrong:
        raise ConfigError(
            f"{'; '.join(wrong)}: build the networks for these data; labels are left out by "
            "data.unconditional()"
        )
