"""Arrays of predictions as files of NumPy's format, in any store."""

from __future__ import annotations

import io

import numpy as np

from gemix.core.errors import DataError
from gemix.io.storage import Store


def write_array(store: Store, name: str, array: np.ndarray) -> None:
    """Write an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    store.write_bytes(name, buffer.getvalue())


def read_array(store: Store, name: str) -> np.ndarray:
    """Read an array.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        return np.load(io.BytesIO(store.read_bytes(name)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{store.url}/{name}: damaged ({error}); delete its directory and run gemix compare"
        ) from error
