"""Pretrained networks that come with gemix: ``gan.init_from=zoo:<name>``.

They are trained on the built-in phantom (:mod:`gemix.data.phantom`), so they hold nothing of any
person and no licence but gemix's own. Each has a directory here, as ``gemix export-gan`` writes it,
with a card that says how it was made and what it is good for.
"""

from __future__ import annotations

import functools
from pathlib import Path

from gemix.core.errors import ConfigError
from gemix.data.leakage.provenance import Provenance
from gemix.io.storage import Store

PREFIX = "zoo:"
_FOLDER = Path(__file__).parent


def zoo_names() -> list[str]:
    """Return the names of all networks of the zoo."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/generator.json"))


@functools.cache
def drawn_images() -> frozenset[str]:
    """Return the checksums of all images that the zoo learned from: phantoms, nobody's scans."""
    found: set[str] = set()
    for name in zoo_names():
        for table in Provenance(Store(_FOLDER / name), name):
            found.update(table["checksum"].to_pylist())
    return frozenset(found)


def open_pretrained(source: str) -> Store:
    """Return the directory of networks to start from: of the zoo, or any other.

    Args:
        source: ``zoo:<name>``, a path or an ``s3://`` URL.

    Raises:
        ConfigError: for a name that the zoo does not have.
    """
    if not source.startswith(PREFIX):
        return Store(source)
    name = source.removeprefix(PREFIX)
    if name not in zoo_names():
        known = ", ".join(f"{PREFIX}{one}" for one in zoo_names())
        raise ConfigError(f"gan.init_from {source!r}: there are {known}; or give a directory")
    return Store(_FOLDER / name)
