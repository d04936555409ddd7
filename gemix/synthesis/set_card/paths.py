"""What a synthetic set says of its origin, for files that are handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PATHS = (("synthesis", "generator"), ("synthesis", "teacher"), ("labels", "recall_of"))


def without_paths(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of a set without the settings that name directories or buckets."""
    found = dict(origin)
    for section, name in _PATHS:
        if isinstance(found.get(section), Mapping):
            found[section] = {key: value for key, value in found[section].items() if key != name}
    return found
