"""The output directory of a step: claimed, and labelled with the settings that fill it."""

from __future__ import annotations

from gemix.config import PipelineConfig
from gemix.storage import Store, open_output

CONFIG = "config.yaml"


def open_step(url: str, marker: str, config: PipelineConfig, overwrite: bool) -> Store:
    """Opens the directory that a step writes into, with the resolved configuration in it.

    Raises:
        AlreadyFinishedError: if it holds a finished result and `overwrite` is not set.
    """
    store = open_output(url, marker, overwrite)
    store.write_bytes(CONFIG, config.to_yaml().encode())
    return store
