"""Versions of the JSON that stands beside weights: checkpoints, generator.json and best.json.

Every file names its ``format_version``. Files of older versions are migrated one version at a time
when they are read; those of a later version are refused by name. To change the format, raise
:data:`FORMAT_VERSION`, add a migration from the version before, and keep a file of that version
among the test fixtures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemix.core.config_schema import settings_of_other_methods
from gemix.core.errors import CheckpointError
from gemix.gan.config import GanConfig

FORMAT_VERSION = 3


def migrate(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the values as the current version has them.

    Args:
        values: of a file of any version; without ``format_version`` it is version 1.
        where: names the file in messages.

    Raises:
        CheckpointError: if a later version of gemix wrote the file.
        ValueError: if the version is no number.
    """
    version = values.get("format_version", 1)
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version is {version!r}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{where}: has format version {version}, and this version of gemix reads 1 to "
            f"{FORMAT_VERSION}; install the version of gemix that wrote it, or a later one"
        )
    for old in range(version, FORMAT_VERSION):
        values = MIGRATIONS[old](values)
    return values | {"format_version": FORMAT_VERSION}


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Version 2 counts failures by phase and records changed settings; some names are new.

    Version 1 did not say which phase failed, so that counting starts anew. It also took, and
    ignored, settings that the method does not read: they get their defaults.
    """
    values = dict(values)
    if "step" in values:  # a checkpoint, not a generator
        values["fallback_level"] = values.pop("easings")
        del values["failing_steps"]
        values |= {"consecutive_failures": {}, "setting_changes": []}
    if "config" in values:  # an imported network may have none
        config = dict(values["config"])
        if "data" in config:
            config["data_loading"] = config.pop("data")
        unread = settings_of_other_methods(GanConfig, config.get("method", GanConfig.method))
        values["config"] = {key: config[key] for key in config if key not in unread}
        sizes = values["architecture"]
        values["architecture"] = {
            key: sizes[key] for key in sizes if key.removeprefix("d_") not in unread
        }
    return values


def _from_version_2(values: dict[str, Any]) -> dict[str, Any]:
    """Version 3 keeps what a step computes in tensors; here they stand as numbers, by name."""
    if "step" not in values:
        return values
    phases = {
        "stylegan2-ada": ("generator", "path length", "discriminator", "R1"),
        "cgan": ("discriminator", "generator"),
    }[values["config"].get("method", GanConfig.method)]
    values = dict(values)
    failures = values.pop("consecutive_failures")
    tensors = {name: values.pop(name) for name in ("sign_count", "augment_p", "skipped_updates")}
    tensors["phase_failures"] = [failures.get(phase, 0) for phase in phases]
    return values | {"tensors": tensors}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _from_version_1,
    2: _from_version_2,
}
