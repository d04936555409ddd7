"""Which settings may differ between a checkpoint and the training that resumes from it.

- *Operational* settings change how long a training is, where it runs or what it keeps, not what it
  computes: they may differ.
- *Stabilizing* settings are what a :class:`gemix.gan.training.divergence.DivergedError` tells the
  user to change: they may differ too. Each change is recorded in the state, and so in every later
  checkpoint and in ``generator.json``, and it replaces the fallbacks that were applied before it.
- All other settings, the networks, the classes and the images must be the same.

A setting that the checkpoint does not have had its default.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gemix.core.config_schema import Operational, marked_fields
from gemix.core.errors import CheckpointError
from gemix.gan.config import GanConfig
from gemix.gan.models.architecture import Architecture

# `compile` changes results by rounding alone, and a training whose compiler fails goes on without
# it. `max_skipped_steps` says how long a failing phase is watched.
OPERATIONAL = ("kimg", "max_skipped_steps", *marked_fields(GanConfig, Operational))
STABILIZING = ("g_lr", "d_lr", "r1_gamma", "cgan_lr", "cgan_loss", "precision")


def check_same_training(
    where: str, saved: dict[str, Any], wanted: dict[str, Any]
) -> list[dict[str, Any]]:
    """Check that a checkpoint may be resumed; return the stabilizing settings that changed.

    Args:
        where: names the checkpoint in messages.
        saved, wanted: ``TrainingSpec.to_json()`` of the checkpoint and of the training to resume.

    Returns:
        `setting`, `old` and `new` each.

    Raises:
        CheckpointError: naming what differs and may not.
    """
    remedy = "use another work directory, or --overwrite to start over"
    if len(saved["classes"]) != len(wanted["classes"]):
        raise CheckpointError(
            f"{where}: was trained on {len(saved['classes'])} classes {saved['classes']}, the data "
            f"has {len(wanted['classes'])} {wanted['classes']}; {remedy}"
        )
    config = _defaults(GanConfig) | saved["config"]
    architecture = _defaults(Architecture) | saved["architecture"]
    saved = saved | {"config": config, "architecture": architecture}
    # the digest after the sizes of images, which say more
    for key in ("classes", "architecture", "data_digest", "config"):
        old, new = saved[key], wanted[key]
        if isinstance(new, dict):
            free = (*OPERATIONAL, *STABILIZING) if key == "config" else ()
            names = [name for name in new if name not in free]
            old, new = ({name: side.get(name) for name in names} for side in (old, new))
        if old != new:
            raise CheckpointError(f"{where}: {_difference(key, old, new)}; {remedy}")
    old, new = saved["config"], wanted["config"]
    return [
        {"setting": name, "old": old[name], "new": new[name]}
        for name in STABILIZING
        if old[name] != new[name]
    ]


def _defaults(cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def _difference(key: str, saved: Any, wanted: Any) -> str:
    if key == "data_digest":
        return f"the training images have changed, data_digest was {saved!r}, now {wanted!r}"
    if key == "classes":
        return f"classes were {saved!r}, now {wanted!r}"
    changed = [name for name in wanted if saved[name] != wanted[name]]
    values = ", ".join(f"{name} was {saved[name]!r}, now {wanted[name]!r}" for name in changed)
    return f"{key} changed: {values}"
