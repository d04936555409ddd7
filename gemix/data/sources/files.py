"""Files below a source's root, on a disk or in a bucket, and images read from them."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NoReturn

import numpy as np

from gemix.data.pixels.decode import IMAGE_SUFFIXES, decode_image
from gemix.data.scan import BadImage
from gemix.errors import DataError
from gemix.storage import Store


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts as people count: "slice 2" before "slice 10"; ties by the exact name."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def list_files(store: Store) -> list[str]:
    """Paths of all files below, relative and in natural order, hidden ones left out.

    A directory at the top may be a symbolic link, as data sets on shared disks are; links further
    down, and links to a directory above, are not followed, so that loops end.

    Raises:
        DataError: if the directory is not there or cannot be read, or there is no such bucket.
    """
    if store.is_local and not os.path.isdir(store.url):
        raise DataError(f"data.path {store.url}: no such folder; mend data.path")
    names = list(_walk(store.url)) if store.is_local else store.list(recursive=True)
    if not store.is_local and not names:
        raise DataError(
            f"data.path {store.url}: no such bucket, or no object there; mend data.path or "
            "upload the scans"
        )
    return sorted((name for name in names if not is_hidden(name)), key=natural_key)


def is_image(name: str) -> bool:
    """Whether the file name's ending is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def describe_endings(names: Iterable[str]) -> str:
    """Endings and how many there are of each: ``.dcm (12), .txt (1)``."""
    counts = Counter(posixpath.splitext(name)[1].lower() or "no ending" for name in names)
    return ", ".join(f"{ending} ({count})" for ending, count in counts.most_common())


def load_image(store: Store, name: str) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W].

    Raises:
        BadImage: if it cannot be read or used.
    """
    try:
        data = store.read_bytes(name)
    except DataError as error:
        raise BadImage(str(error)) from None
    return decode_image(data)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, is hidden or left by macOS."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _walk(root: str) -> Iterator[str]:
    real_root = os.path.realpath(root)
    for name in _listed(root):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            yield name
        elif os.path.isdir(path):
            target = os.path.realpath(path)
            if os.path.commonpath([target, real_root]) == target:
                continue  # a link to the root or to a directory above it
            for folder, _, files in os.walk(path, onerror=_refuse, followlinks=False):
                relative = os.path.relpath(folder, root).replace(os.sep, "/")
                for file in files:
                    if os.path.isfile(os.path.join(folder, file)):
                        yield f"{relative}/{file}"


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    """Files that cannot be seen must not be missing in silence."""
    raise DataError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); mend its permissions"
    ) from None
