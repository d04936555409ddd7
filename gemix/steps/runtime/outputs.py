"""The output directory of a step."""

from __future__ import annotations

from gemix.config import PipelineConfig
from gemix.io.storage import Store, open_output

CONFIG = "config.yaml"


def open_step(url: str, marker: str, config: PipelineConfig, overwrite: bool) -> Store:
    """Open the directory that a step writes into and write the resolved configuration there.

    Without `overwrite` an unfinished result is left in it, for the step to go on with.

    Raises:
        AlreadyFinishedError: if it holds a finished result and `overwrite` is not set.
    """
    if overwrite:
        clear_step(url, marker)
    store = open_output(url, marker, overwrite=False)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    return store


def clear_step(url: str, marker: str) -> None:
    """Empty the directory if a step wrote it, finished or not; leave any other alone."""
    store = Store(url)
    if store.exists(marker) or store.exists(CONFIG):
        store.clear(marker)
