"""What a synthetic set says of its origin, for files that are handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemix.core.config_schema import Location, marked_fields
from gemix.labels.config import LabelConfig
from gemix.synthesis.config import SynthesisConfig

_LOCATIONS = {
    "labels": marked_fields(LabelConfig, Location),
    "synthesis": marked_fields(SynthesisConfig, Location),
}


def without_paths(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of a set without the settings that name directories or buckets."""
    found = dict(origin)
    for section, names in _LOCATIONS.items():
        if isinstance(settings := found.get(section), Mapping):
            found[section] = {key: settings[key] for key in settings if key not in names}
    return found
