"""Export the networks of a training, for another training to start from."""

from __future__ import annotations

from gemix.core.errors import CheckpointError
from gemix.data.leakage.provenance import (
    Provenance,
    write_provenance,
    write_withheld_provenance,
)
from gemix.gan.checkpoints.checkpoint import checkpoint_spec, checkpoint_weights, checkpoints
from gemix.gan.checkpoints.generator_io import MARKER, save_pretrained, save_shared
from gemix.io.storage import Store, open_output
from gemix.synthesis.teacher import Teachers, copy_teachers


def export_gan(
    gan_url: str,
    out_url: str,
    *,
    teacher_url: str | None = None,
    for_others: bool = False,
    overwrite: bool = False,
) -> str:
    """Write the averaged generator and the discriminator of the newest checkpoint, in float16.

    They take a seventh of a checkpoint, which also has the generator before averaging and the
    moments of both optimizers, in float32. The record of what they learned from goes along, with
    patient keys and thumbnails: for another training of the same owner.

    Args:
        gan_url: directory of a training.
        out_url: what ``gan.init_from`` or ``synthesis.generator`` will name.
        teacher_url: directory of the teachers, which go along in ``<out_url>/teacher`` for
            ``synthesis.teacher``; None for none.
        for_others: write what may leave: the generator alone, and in place of each record one that
            names nobody.

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
    if for_others:
        write_withheld_provenance(out, "the generator")
    else:
        write_provenance(out, [], [Provenance(store, "the network")])
    if teacher_url is not None:
        copy_teachers(Teachers.load(teacher_url), out / "teacher", for_others=for_others)
    save = save_shared if for_others else save_pretrained
    return save(out, weights, spec, kimg=spec.config.kimg_at(step))
