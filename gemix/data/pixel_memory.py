"""Room for the pixels of a set: in memory, or in a temporary file where they are too many."""

from __future__ import annotations

import errno
import math
import os
import tempfile

import numpy as np

from gemix.core.errors import DiskFullError


def allocate_pixels(shape: tuple[int, ...], memory_bytes: float = math.inf) -> np.ndarray:
    """Return an array to be filled, uint8 of this shape.

    One of more than `memory_bytes` lies in a temporary file, of which the system holds in memory
    what there is room for. The file has no name and is gone with the array, however the process
    ends.

    Raises:
        DiskFullError: if the folder of temporary files has no room for it.
    """
    size = math.prod(shape)
    if size <= memory_bytes:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        try:
            # a file with holes would be found too large only when a page of it is written
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise DiskFullError(
                f"{tempfile.gettempdir()}: no room for {size / 1e9:.3g} GB of pixels, more than "
                f"the {memory_bytes / 1e9:.3g} GB that may lie in memory ({error.strerror}); let "
                "TMPDIR name a folder with room, or raise data.memory_gb"
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)
