"""Export the networks of a training, for another training to start from."""

from __future__ import annotations

from gemix.core.errors import CheckpointError
from gemix.data.leakage.provenance import Provenance, write_provenance
from gemix.gan.checkpoints.checkpoint import checkpoint_spec, checkpoint_weights, checkpoints
from gemix.gan.checkpoints.generator_io import MARKER, save_pretrained
from gemix.io.storage import Store, open_output
from gemix.synthesis.teacher import Teachers, copy_teachers


def export_gan(
    gan_url: str, out_url: str, *, teacher_url: str | None = None, overwrite: bool = False
) -> str:
    """Write the averaged generator and the discriminator of the newest checkpoint, in float16.

    They take a seventh of a checkpoint, which also has the generator before averaging and the
    moments of both optimizers, in float32. The record of what they learned from goes along.

    Args:
        gan_url: directory of a training.
        out_url: what ``gan.init_from`` or ``synthesis.generator`` will name.
        teacher_url: directory of the teachers, which go along in ``<out_url>/teacher`` for
            ``synthesis.teacher``; None for none.

    Returns:
        The generator's checksum.

    Raises:
        AlreadyFinishedError: if there is an export and `overwrite` is not set.
        CheckpointError: without a checkpoint or a teacher, or for a damaged one.
    """
    store = Store(gan_url)
    names = checkpoints(store)
    if not names:
        raise CheckpointError(f"{store.url}: no checkpoint to export; run gemix train-gan first")
    spec, step = checkpoint_spec(store, names[-1])
    weights = checkpoint_weights(store, names[-1])
    out = open_output(out_url, MARKER, overwrite)
    write_provenance(out, [], [Provenance(store, "the network")])
    if teacher_url is not None:
        copy_teachers(Teachers.load(teacher_url), out / "teacher")
    return save_pretrained(out, weights, spec, kimg=spec.config.kimg_at(step))
