"""The best generator of a training so far, by a figure of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import MARKER
from gemix.gan.checkpoints.safetensors_io import read_weights, wrap_checkpoint_errors, write_weights
from gemix.gan.training.state import TrainingState

if TYPE_CHECKING:  # at run time any store of files will do
    from gemix.io.storage import Store

BEST = "best.json"


def save_if_best(
    store: Store, state: TrainingState, origin: TrainingSpec, score: float, measured: dict[str, Any]
) -> bool:
    """Writes the averaged generator as the best if its score is below that of the best so far.

    ``best.json`` names the file of the weights, so a kill at any moment leaves the old or the new
    one whole. It is written as ``generator.json`` is, with the score added.

    Args:
        score: lower is better.
        measured: what the score is of and how it was measured. Scores measured otherwise cannot
            be compared: such a best is replaced.

    Returns:
        Whether this is the best.
    """
    old = read_best(store)
    if old and old["measured"] == measured and old["score"] <= score:
        return False
    name = f"best-{state.step:08d}"
    values = {
        "sha256": write_weights(store, name, state.generator_ema.state_dict()),
        "kimg": origin.config.kimg_at(state.step),
        "weights": name,
        "score": score,
        "measured": measured,
    }
    store.write_json(BEST, values | origin.to_json())
    for file in store.list():
        if file.startswith("best-") and file != f"{name}.safetensors":
            store.delete(file)
    return True


def read_best(store: Store) -> dict[str, Any] | None:
    """What ``best.json`` says, None where nothing was kept.

    Raises:
        CheckpointError: if it is damaged.
    """
    if not store.exists(BEST):
        return None
    with wrap_checkpoint_errors(f"{store.url}/{BEST}", "delete it, and the next best is kept"):
        values = store.read_json(BEST)
        return values | {name: values[name] for name in ("score", "measured", "kimg")}


def save_best_generator(store: Store) -> str:
    """Leaves the best in place of the last generator; returns its checksum.

    Raises:
        CheckpointError: if nothing was kept, or it is damaged.
    """
    remedy = "run the same command with metrics.use_best=false, which takes the last generator"
    with wrap_checkpoint_errors(f"{store.url}/{BEST}", remedy):
        values = store.read_json(BEST)
        weights = read_weights(store, values["weights"], values["sha256"], remedy)
    checksum = write_weights(store, "generator", weights)
    store.write_json(MARKER, values | {"sha256": checksum})
    return checksum
