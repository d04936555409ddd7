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

_REMEDY = "run the same command with metrics.use_best=false, which ships the last generator"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ShippedGenerator:
    """A generator on the training's device, and how long it was trained.

    Attributes:
        network: the averaged generator; the training's own object if it is the last one.
        kimg: thousands of images that it was trained with; of rank 0.
        is_best: whether it is the best evaluated snapshot.
    """

    network: ImageGenerator
    kimg: float
    is_best: bool


def shipped_generator(
    store: Store, state: TrainingState, spec: TrainingSpec, workers: Workers, *, use_best: bool
) -> ShippedGenerator:
    """Return the generator that ships; every worker calls this at the same time.

    Rank 0 reads the best generator and broadcasts it. Where none was kept the last one ships.

    Args:
        store: where the best generator is kept.
        state: at the end of the training.
        use_best: as ``metrics.use_best``.

    Raises:
        CheckpointError: on every worker, if the best generator is damaged.
    """
    device, kimg = state.pl_mean.device, spec.config.kimg_at(state.step)
    last = ShippedGenerator(network=state.generator_ema, kimg=kimg, is_best=False)
    kept = use_best and workers.rank == 0 and store.exists(BEST)
    if not workers.broadcast_bool(kept, device):
        return last
    network, failure = copy.deepcopy(state.generator_ema), None
    if workers.rank == 0:
        try:
            with wrap_checkpoint_errors(f"{store.url}/{BEST}", _REMEDY):
                best = read_best(store)
                weights = read_weights(store, best["weights"], best["sha256"], _REMEDY)
                network.load_state_dict(weights)
                kimg = best["kimg"]
        except CheckpointError as error:
            failure = error
    if not workers.broadcast_bool(failure is None, device):
        raise failure or CheckpointError("rank 0 cannot read the best generator; see its error")
    if workers.broadcast_bool(kimg == last.kimg, device):
        return dataclasses.replace(last, is_best=True)
    workers.broadcast_tensors(network.state_dict().values())
    return ShippedGenerator(network=network, kimg=kimg, is_best=True)
