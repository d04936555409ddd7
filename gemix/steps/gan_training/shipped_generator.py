"""The generator that a training ships: its last one, or the best with ``metrics.use_best``."""

from __future__ import annotations

import copy
import dataclasses

from gemix.core.distributed import Workers
from gemix.core.errors import CheckpointError
from gemix.gan.checkpoints.best_snapshot import BEST, read_best
from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.safetensors_io import read_weights, wrap_checkpoint_errors
from gemix.gan.models.base import ImageGenerator
from gemix.gan.training.state import TrainingState
from gemix.io.storage import Store

_HINT = "run the same command with metrics.use_best=false, which ships the last generator"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ShippedGenerator:
    """A generator in evaluation mode on the training's device, and how long it was trained.

    Attributes:
        network: the averaged generator.
        kimg: thousands of images that it was trained with.
        is_best: whether it is the best evaluated snapshot instead of the last generator.
    """

    network: ImageGenerator
    kimg: float
    is_best: bool


def shipped_generator(
    store: Store, state: TrainingState, spec: TrainingSpec, workers: Workers, *, use_best: bool
) -> ShippedGenerator:
    """Return the generator that ships; every worker calls this at the same time.

    The best one is read by rank 0 and broadcast.

    Args:
        store: where the best generator is kept.
        state: at the end of the training.
        use_best: as ``metrics.use_best``; the last generator ships where no best one was kept.

    Raises:
        CheckpointError: on every worker, if the best generator is damaged.
    """
    device = state.pl_mean.device
    last_kimg = spec.config.kimg_at(state.step)
    last = ShippedGenerator(network=state.generator_ema, kimg=last_kimg, is_best=False)
    kept = use_best and workers.rank == 0 and store.exists(BEST)
    if not workers.broadcast_bool(kept, device):
        return last
    network, kimg, failure = copy.deepcopy(state.generator_ema), last_kimg, None
    if workers.rank == 0:
        try:
            with wrap_checkpoint_errors(f"{store.url}/{BEST}", _HINT):
                best = read_best(store)
                kimg = best["kimg"]
                network.load_state_dict(read_weights(store, best["weights"], best["sha256"], _HINT))
        except CheckpointError as error:
            failure = error
    if not workers.broadcast_bool(failure is None, device):
        raise failure or CheckpointError("rank 0 cannot read the best generator; see its error")
    workers.broadcast_tensors(network.state_dict().values())
    return ShippedGenerator(network=network, kimg=kimg, is_best=True)
