"""Check that all workers of a training have the same networks."""

from __future__ import annotations

from gemix.core.distributed import Workers
from gemix.core.errors import GemixError
from gemix.gan.training.state import TrainingState


class ReplicasDifferError(GemixError):
    """The workers of a training do not have the same state any more."""


def check_replicas(state: TrainingState, workers: Workers) -> None:
    """Check on all workers that their states are equal bit for bit.

    Equal gradients keep them so; a faulty GPU or a message that was corrupted ends it, and every
    step after that trains on gradients of different networks.

    Raises:
        ReplicasDifferError: on every worker, naming the tensors.
    """
    differing = workers.differing(state.all_tensors())
    if differing:
        names = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        raise ReplicasDifferError(
            f"after step {state.step} {len(differing)} tensors are not the same on all "
            f"{workers.size} workers: {names}. A GPU or a link between workers is faulty: run the "
            "same command again on other nodes, which resumes from the newest checkpoint"
        )
