"""The training loop, the same for every method."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gemix.core.device import cudnn_benchmark, float32_products
from gemix.core.distributed import Workers
from gemix.core.errors import ConfigError
from gemix.gan.config import GanConfig
from gemix.gan.data.dataset import TrainingDataset
from gemix.gan.training.divergence import DivergedError
from gemix.gan.training.fallback import fall_back
from gemix.gan.training.registry import METHODS
from gemix.gan.training.state import TrainingState


@float32_products()
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
    """Train until `config.kimg` thousand real images were shown.

    Args:
        state: a new state, or one loaded from a checkpoint; changed in place.
        on_step: called after each step with the state and the step's losses (scalar tensors on
            the training device, of this worker).
        last_good: returns the state to fall back to when the training diverges.

    Returns:
        The trained state; not the one given if training had to fall back.

    Raises:
        ConfigError: if the networks were built for other data.
        DivergedError: if the training diverges and cannot fall back (any further).
    """
    _check_fit(state, data)
    workers = workers or Workers.from_process_group()
    trainer = METHODS[config.method](state, data, config, workers)
    while trainer.state.step < config.steps:
        try:
            values = trainer.run_step()
        except DivergedError as error:
            if last_good is None:
                raise
            state = fall_back(last_good(), trainer.state, trainer.learning_rates, error)
            trainer = METHODS[config.method](state, data, config, workers)
        else:
            on_step(trainer.state, values)
    return trainer.state


def _check_fit(state: TrainingState, data: TrainingDataset) -> None:
    """Check shapes first: networks without classes would ignore labels, others fail midway."""
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
