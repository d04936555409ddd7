"""The best generator of a training so far, by a metric of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemix.gan.checkpoints.checkpoint import TrainingSpec
from gemix.gan.checkpoints.generator_io import MARKER
from gemix.gan.checkpoints.safetensors_io import (
    read_metadata,
    read_weights,
    wrap_checkpoint_errors,
    write_weights,
)
from gemix.gan.training.state import TrainingState

if TYPE_CHECKING:  # any object with the methods of a store will do
    from gemix.io.storage import Store

BEST = "best.json"


def save_if_best(
    store: Store, state: TrainingState, spec: TrainingSpec, score: float, measured: dict[str, Any]
) -> bool:
    """Write the averaged generator as the best if its score is below that of the best so far.

    ``best.json`` names the file of the weights, so a kill at any moment leaves the old or the new
    one complete. It is written as ``generator.json`` is, with the score added.

    Args:
        score: lower is better.
        measured: name of the metric and how it was measured. Scores that were measured otherwise
            cannot be compared: such a best is replaced.

    Returns:
        Whether this is the best.
    """
    old = read_best(store)
    if old and old["measured"] == measured and old["score"] <= score:
        return False
    name = f"best-{state.step:08d}"
    values = {
        "sha256": write_weights(store, name, state.generator_ema.state_dict()),
        "kimg": spec.config.kimg_at(state.step),
        "setting_changes": state.setting_changes,
        "weights": name,
        "score": score,
        "measured": measured,
    }
    store.write_json(BEST, values | spec.to_json())
    for file in store.list():
        if file.startswith("best-") and file != f"{name}.safetensors":
            store.delete(file)
    return True


def read_best(store: Store) -> dict[str, Any] | None:
    """Return the content of ``best.json``, None where there is none.

    Raises:
        CheckpointError: if it is damaged.
    """
    if not store.exists(BEST):
        return None
    remedy = "delete it, and the next best is kept"
    values = read_metadata(store, BEST, remedy)
    with wrap_checkpoint_errors(f"{store.url}/{BEST}", remedy):
        return values | {name: values[name] for name in ("score", "measured", "kimg")}


def save_best_generator(store: Store) -> str:
    """Write the best in place of the last generator; return its checksum.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    remedy = "run the same command with metrics.use_best=false, which takes the last generator"
    values = read_metadata(store, BEST, remedy)
    with wrap_checkpoint_errors(f"{store.url}/{BEST}", remedy):
        weights = read_weights(store, values["weights"], values["sha256"], remedy)
    checksum = write_weights(store, "generator", weights)
    store.write_json(MARKER, values | {"sha256": checksum})
    return checksum
