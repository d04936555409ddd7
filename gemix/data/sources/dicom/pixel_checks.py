"""Checks of an archive that need the pixels of a few of its slices.

A header alone tells neither that two files are copies nor that values are Hounsfield units.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from gemix.core.errors import DataError
from gemix.data.map_fn import MapFn
from gemix.data.scan import InvalidImageError
from gemix.data.sources.dicom.pixels import read_hounsfield, slice_has_air
from gemix.data.sources.dicom.slices import find_repeated, order_foot_to_head
from gemix.data.sources.redact import redact_path
from gemix.io.storage import Store

DAMAGED_COPY = "damaged copy of a slice that is there intact; remove it"

_CHUNK_FILES, _CHUNK_SERIES = 64, 16
# where a series is searched for air, as shares of its length from the feet: the chest of a scan
# of chest and abdomen comes second
_PROBES = (0.5, 0.75, 0.25, 0.9, 0.1)


def find_repeated_instances(
    slices: np.ndarray, names: Sequence[str], store: Store, map_fn: MapFn
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the pixels of files that share SOPInstanceUID within a series.

    Anonymisers give unlike slices one UID, so a UID is not enough to call two files copies. Files
    of unlike UIDs or series are not compared: of equal images prepare keeps one later on.

    Args:
        slices: rows of a :class:`gemix.data.sources.dicom.slices.SliceTable`.
        names: of the files.
        store: where they are.
        map_fn: maps over the files that must be read.

    Returns:
        bool [N] each: copies of an earlier row, and damaged files of which an intact copy exists.
    """
    is_copy, is_damaged = np.zeros((2, len(slices)), bool)
    groups = find_repeated(slices)
    if not groups:
        return is_copy, is_damaged
    rows = np.concatenate(groups)
    files = [names[file] for file in slices["file"][rows]]
    chunks = [files[start : start + _CHUNK_FILES] for start in range(0, len(files), _CHUNK_FILES)]
    read = functools.partial(_hash_pixels, store)
    hashes = dict(
        zip(
            rows.tolist(),
            itertools.chain.from_iterable(map_fn(read, chunks, "possible copies")),
            strict=True,
        )
    )
    for group in groups:
        seen: set[bytes] = set()
        for row in group.tolist():
            digest = hashes[row]
            is_copy[row] = digest in seen
            seen |= {digest} if digest else set()
        if seen:
            is_damaged[group] = [not hashes[row] for row in group.tolist()]
    return is_copy, is_damaged


def find_airless_series(
    slices: np.ndarray, names: Sequence[str], store: Store, map_fn: MapFn
) -> np.ndarray:
    """Return the series that hold no air, and so no Hounsfield units: values of ``series``.

    One slice of a good series is read, up to five of others. Slices that cannot be decoded or are
    blank decide nothing.
    """
    ordered = slices[order_foot_to_head(slices)]
    series, starts, counts = np.unique(ordered["series"], return_index=True, return_counts=True)
    probes = []
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        rows = dict.fromkeys(start + int(share * count) for share in _PROBES)
        probes.append([names[file] for file in ordered["file"][list(rows)]])
    chunks = [
        probes[first : first + _CHUNK_SERIES] for first in range(0, len(probes), _CHUNK_SERIES)
    ]
    read = functools.partial(_are_airless, store)
    airless = itertools.chain.from_iterable(map_fn(read, chunks, "series checked for air"))
    return series[np.fromiter(airless, bool, len(series))]


def _hash_pixels(store: Store, names: Sequence[str]) -> list[bytes]:
    """Return a digest of the Hounsfield units of each file, empty for one that is damaged."""
    hashes = []
    for name in names:
        data = _read(store, name)
        try:
            pixels = read_hounsfield(data) if data else None
        except InvalidImageError:
            pixels = None
        if pixels is None:
            hashes.append(b"")
            continue
        content = str(pixels.shape).encode() + pixels.tobytes()
        hashes.append(hashlib.blake2b(content, digest_size=16).digest())
    return hashes


def _are_airless(store: Store, probes: Sequence[Sequence[str]]) -> list[bool]:
    """Return for each series whether none of its probes has air, and one at least could have."""
    return [_is_airless(store, names) for names in probes]


def _is_airless(store: Store, names: Sequence[str]) -> bool:
    is_known = False
    for name in names:
        data = _read(store, name)
        try:
            found = slice_has_air(data) if data else None
        except InvalidImageError:
            continue
        if found:
            return False
        is_known |= found is not None
    return is_known


def _read(store: Store, name: str) -> bytes | None:
    """Return the file, or None where it cannot be read; `load` tells the reason."""
    try:
        with redact_path(store, name):
            return store.read_bytes(name)
    except DataError:
        return None
