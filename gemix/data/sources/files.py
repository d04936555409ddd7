"""Files below a source's root, on a disk or in a bucket."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterable
from typing import NoReturn

import numpy as np

from gemix.core.errors import DataError
from gemix.data.preprocessing.decode import IMAGE_SUFFIXES, MAX_SIDE, decode_image
from gemix.data.scan import InvalidImageError
from gemix.data.sources.folder_names import is_hidden
from gemix.io.storage import Store, file_version

MAX_IMAGE_BYTES = 4 * MAX_SIDE**2 + 2**20
"""The largest image that is read, 4 bytes a pixel and uncompressed, and a header of 1 MiB."""

MISNAMED = "its name is no UTF-8, so that it cannot be read; rename it"
NOWHERE = "a link to a file that is not there"


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts "slice 2" before "slice 10"; ties by the exact name."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """Files below a folder, without hidden ones.

    Attributes:
        names: relative paths in natural order, links to nowhere included.
        stamps: a text that changes when the file does, by name; empty for a link to nowhere.
        misnamed: escaped paths that are no UTF-8: these files cannot be opened.
        linked: number of linked folders that were not followed.
    """

    names: list[str]
    stamps: dict[str, str]
    misnamed: list[str]
    linked: int

    def notes(self) -> list[str]:
        """Return a sentence on folders that were not followed, if there are any."""
        if not self.linked:
            return []
        return [
            f"did not follow {self.linked} linked folders (links below the first level, or to a "
            "folder above); copy their files if they are wanted"
        ]


def list_files(store: Store, is_secret: bool = False) -> Files:
    """List all files below.

    A directory at the top may be a symbolic link, as data sets on shared disks are; links further
    down, and links to a directory above, are not followed, so that loops end.

    Args:
        is_secret: whether paths may name patients; errors then quote the store's alone.

    Raises:
        DataError: if the directory is not there or cannot be read, or there is no such bucket.
    """
    if store.is_local:
        found, linked = _list_local(store.url, is_secret)
    else:
        found, linked = store.file_versions(recursive=True), []
        if not found:
            raise DataError(
                f"data.path {store.url}: no such bucket, or no object there; correct data.path or "
                "upload the scans"
            )
    names = sorted((name for name in found if not is_hidden(name)), key=natural_key)
    return Files(
        names=[name for name in names if escaped(name) == name],
        stamps=found,
        misnamed=[escaped(name) for name in names if escaped(name) != name],
        linked=sum(not is_hidden(name) for name in linked),
    )


def escaped(name: str) -> str:
    """Return the name with ``\\xff`` and so on for bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_image(name: str) -> bool:
    """Return whether the file name has the ending of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def describe_endings(names: Iterable[str]) -> str:
    """Count the endings of names: ``.dcm (12), .txt (1)``."""
    counts = Counter(posixpath.splitext(name)[1].lower() or "no ending" for name in names)
    return ", ".join(f"{ending} ({count})" for ending, count in counts.most_common())


def load_image(store: Store, name: str) -> np.ndarray:
    """Read the pixels of an image file, uint8 [H, W].

    Raises:
        InvalidImageError: if it is larger than `MAX_IMAGE_BYTES`, or cannot be read or used.
    """
    try:
        data = store.read_bytes(name, _check_bytes)
    except DataError as error:
        raise unreadable(store, name, error) from None
    return decode_image(data)


def _check_bytes(size: int) -> None:
    if size > MAX_IMAGE_BYTES:
        raise InvalidImageError(
            f"{size} bytes; images of {MAX_SIDE} x {MAX_SIDE} pixels take at most "
            f"{MAX_IMAGE_BYTES}: save one 8-bit grey slice a file"
        )


def unreadable(store: Store, name: str, error: DataError) -> InvalidImageError:
    """Return the reason why a file that was listed cannot be read."""
    if store.is_local and os.path.islink(store.path(name)):
        return InvalidImageError(f"{NOWHERE}; fetch it (git annex get, say) or copy it again")
    return InvalidImageError(f"{error}; copy it again")


def _list_local(root: str, is_secret: bool) -> tuple[dict[str, str], list[str]]:
    """Return files with their stamps, and linked folders that are not followed."""
    if not os.path.isdir(root):
        raise DataError(f"data.path {root}: no such folder; correct data.path")
    try:
        return _walk(root)
    except OSError as error:
        # files that cannot be listed must not be missing without a word
        where = f"data.path {root}: a folder in it" if is_secret else f"{error.filename}: it"
        raise DataError(
            f"{where} cannot be read ({error.strerror}); correct its permissions"
        ) from None


def _walk(root: str) -> tuple[dict[str, str], list[str]]:
    real_root, linked = os.path.realpath(root), []
    found: dict[str, str] = {}
    for name in sorted(os.listdir(root)):
        path = os.path.join(root, name)
        if (stamp := _stamp(path)) is not None:
            found[name] = stamp
        elif os.path.isdir(path):
            target = os.path.realpath(path)
            if os.path.commonpath([target, real_root]) == target:
                linked.append(name)  # the root or a directory above it
                continue
            for folder, folders, files in os.walk(path, onerror=_raise, followlinks=False):
                relative = os.path.relpath(folder, root).replace(os.sep, "/")
                stamps = ((f, _stamp(os.path.join(folder, f))) for f in files)
                found |= {f"{relative}/{f}": stamp for f, stamp in stamps if stamp is not None}
                links = (f for f in folders if os.path.islink(os.path.join(folder, f)))
                linked += [f"{relative}/{link}" for link in links]
    return found, linked


def _stamp(path: str) -> str | None:
    """Return the stamp of a file, empty for a link to nowhere; None for a socket or pipe."""
    try:
        found = os.stat(path)
    except OSError:
        return "" if os.path.islink(path) else None
    return file_version(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _raise(error: OSError) -> NoReturn:
    raise error
